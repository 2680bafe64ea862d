//! `GET /metrics`: what the process counts by itself, and how its shards and read models stand at the time of the question.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use super::{Api, GroupStatus, LOOK_WAIT_MAX, ends, group_status, groups, shard_trouble, shards};
use crate::shard::{Lane, ShardHandle};

/// Says what each measurement means. Call it once, after the recorder was installed.
pub fn describe() {
    describe_counter!("crm_http_requests_total", "Requests that were answered.");
    describe_histogram!(
        "crm_http_request_seconds",
        Unit::Seconds,
        "Time from a request's head to the head of its answer."
    );
    describe_counter!(
        "crm_commands_answered_total",
        "Commands that were answered, refusals included."
    );
    describe_counter!("crm_events_appended_total", "Events that were appended to the log.");
    describe_histogram!("crm_append_seconds", Unit::Seconds, "Time of an append to the log.");
    describe_counter!("crm_takeovers_total", "Shards that this process took over.");
    describe_counter!(
        "crm_takeover_records_read_total",
        "Records that were read to take shards over."
    );
    describe_counter!(
        "crm_events_projected_total",
        "Events that were folded into read models."
    );
    describe_gauge!("crm_build_info", "Always 1; its label is the version of the program.");
    describe_gauge!("crm_stopping", "Is the process about to end?");
    describe_gauge!("crm_shard_assigned", "Is this process to serve the shard?");
    describe_gauge!("crm_shard_owned", "Does this process serve the shard?");
    describe_gauge!(
        "crm_shard_in_trouble",
        "Is the shard to be served here, and is not? The status says why."
    );
    describe_gauge!(
        "crm_shard_commands_waiting",
        "Commands that wait in the shard's queues."
    );
    describe_gauge!(
        "crm_shard_unsaved_entries",
        "States and command ids of the shard that the state store does not have yet."
    );
    describe_gauge!("crm_shard_cached_streams", "States of the shard in memory.");
    describe_gauge!("crm_shard_log_end_records", "Records of the shard of the log.");
    describe_gauge!(
        "crm_read_models_live",
        "Can the read models of the group be asked, in this version of the program?"
    );
    describe_gauge!(
        "crm_read_models_lag_records",
        "Records of the shard that the read models of the group have not read yet."
    );
    describe_gauge!(
        "crm_oldest_unread_record_age_seconds",
        Unit::Seconds,
        "How long the oldest record waits that the read models of the group have not read, over all shards."
    );
    describe_gauge!(
        "crm_read_models_stopped",
        "Shards on which the read models of the group stand still. The status says why."
    );
    describe_gauge!(
        "crm_shards_not_served",
        "Shards that no process serves, as far as this one knows."
    );
    describe_gauge!(
        "crm_seat_unsettled_seconds",
        Unit::Seconds,
        "How long the group that spreads work over processes has not said what this one is to do."
    );
    describe_counter!(
        "crm_seats_taken_anew_total",
        "How often this process gave up its seat in such a group, and took another."
    );
    describe_counter!(
        "crm_panics_total",
        "Panics that were caught, by the part that had them."
    );
    describe_gauge!(
        "crm_status_unknown",
        "Could the log or the store not say in time how it stands? Then the other measurements are old."
    );
    // What seldom happens is told from the start: an increase from nothing at all is none for Prometheus.
    for part in ["projector", "reader", "shard", "membership"] {
        counter!("crm_panics_total", "part" => part).increment(0);
    }
    counter!("crm_http_connections_cut_total").increment(0);
    describe_gauge!("crm_http_connections", "Open HTTP connections.");
    describe_counter!(
        "crm_http_connections_cut_total",
        "Connections that ended because their clients kept the server waiting while others needed the place."
    );
}

pub async fn metrics(State(api): State<Api>) -> Response {
    let looked = tokio::time::timeout(LOOK_WAIT_MAX, look(&api)).await;
    gauge!("crm_status_unknown").set(flag(!looked.unwrap_or(false)));
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, (api.metrics)()).into_response()
}

/// False when something did not say how it stands.
async fn look(api: &Api) -> bool {
    gauge!("crm_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    gauge!("crm_stopping").set(flag(*api.stopping.borrow()));
    api.commands.shards().iter().for_each(tell_shard);
    let mut trouble = Vec::new();
    let ends = ends(api, &shards(api), &mut trouble).await;
    for (shard, end) in (0_u16..).zip(&ends) {
        gauge!("crm_shard_log_end_records", "shard" => shard.to_string()).set(*end as f64);
    }
    let looks = groups().map(|group| group_status(api, group, &ends));
    let looked = futures::future::join_all(looks).await;
    let is_complete = trouble.is_empty() && looked.iter().all(Result::is_ok);
    looked.iter().flatten().for_each(tell_group);
    is_complete
}

fn tell_shard(handle: &ShardHandle) {
    let status = handle.status();
    let shard = [("shard", status.shard.to_string())];
    gauge!("crm_shard_assigned", &shard).set(flag(status.assigned));
    gauge!("crm_shard_owned", &shard).set(flag(status.owned));
    gauge!("crm_shard_in_trouble", &shard).set(flag(shard_trouble(&status).is_some()));
    gauge!("crm_shard_unsaved_entries", &shard).set(status.unsaved as f64);
    gauge!("crm_shard_cached_streams", &shard).set(status.cached_streams as f64);
    for (lane, name) in [(Lane::People, "people"), (Lane::Imports, "imports")] {
        let labels = [("shard", status.shard.to_string()), ("lane", name.to_owned())];
        gauge!("crm_shard_commands_waiting", &labels).set(handle.waiting(lane) as f64);
    }
}

fn tell_group(status: &GroupStatus) {
    gauge!("crm_read_models_live", "group" => status.group).set(flag(status.generation.is_some()));
    for standing in &status.shards {
        let labels = [
            ("group", status.group.to_owned()),
            ("shard", standing.shard.to_string()),
        ];
        gauge!("crm_read_models_lag_records", &labels).set(standing.lag as f64);
    }
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
