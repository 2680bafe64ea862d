//! What a record says: a CloudEvent in Kafka's binary mode, or a control record of the protocol.

use domain::{Actor, Calendar, EventType, ExternalKey, Fact, Position, Recorded, StreamRef, UnreadableEvent};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Record;

/// A record that is not ours, or is damaged. It stops the shard's readers; only an operator's quarantine steps over it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shard {shard}, offset {offset}: {why}")]
pub struct Foreign {
    pub shard: u16,
    pub offset: u64,
    /// The record's fingerprint, by which a quarantine names it.
    pub fingerprint: u64,
    pub why: String,
}

/// A record as it was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The writer's epoch, and 1, 2, 3 … since its claim.
    pub epoch: u64,
    pub n: u64,
    pub time: Timestamp,
    pub meaning: Meaning,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    Event(Box<StoredEvent>),
    Created(LogCreated),
    Claim(Claim),
    /// Nothing but a proof that the writer still owns the shard.
    Barrier,
    Quarantine(Quarantine),
}

/// First in every shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCreated {
    pub log_id: Uuid,
    pub shards: u16,
    pub slots: u16,
    /// Whose days the log counts in. It is Taipei's where none is named: once no other could be chosen.
    #[serde(rename = "time_zone", default = "Calendar::taipei")]
    pub calendar: Calendar,
}

/// "I own this shard from here on."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub epoch: u64,
    /// By which a claimant knows its own claim again.
    pub nonce: Uuid,
    pub node: String,
    /// Where the owner answers commands.
    pub address: String,
}

/// An operator's word: step over exactly this record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    pub offset: u64,
    pub fingerprint: u64,
    pub reason: String,
}

/// An event, its body not decoded yet: most readers skip many.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    pub command_id: Uuid,
    /// Which of the commit's events, from 0, and how many there are.
    pub index: u32,
    pub commit_size: u32,
    pub event_type: EventType,
    pub stream: StreamRef,
    pub sequence: u64,
    pub time: Timestamp,
    pub effective_at: Option<Timestamp>,
    pub actor: Actor,
    pub on_behalf_of: Option<Actor>,
    pub causation: Option<String>,
    pub correlation: Option<String>,
    pub traceparent: Option<String>,
    /// The customer it belongs to, if any (the record's key otherwise is the stream's own id).
    pub customer: Option<Uuid>,
    /// What another system calls the stream; see [`Recorded::external_key`].
    pub external_key: Option<ExternalKey>,
    /// Sixteen hex digits of the command's content: the same id with another body is refused.
    pub command_hash: String,
    pub body: Vec<u8>,
    pub position: Position,
}

const SPEC_VERSION: &str = "1.0";
const JSON: &str = "application/json";
const CREATED: &str = "crm.log.created.v1";
const CLAIMED: &str = "crm.log.shard-claimed.v1";
const BARRIER: &str = "crm.log.barrier.v1";
const QUARANTINED: &str = "crm.log.quarantined.v1";

impl StoredEvent {
    /// The event, in a log of this calendar.
    ///
    /// # Errors
    /// Unknown type or version, damaged body.
    pub fn decode(&self, calendar: &Calendar) -> Result<Recorded<Fact>, UnreadableEvent> {
        let fact = Fact::decode(&self.event_type, &self.body)?;
        Ok(Recorded {
            stream: self.stream,
            version: self.sequence,
            fact,
            customer: self.customer,
            external_key: self.external_key.clone(),
            recorded_at: self.time,
            effective_at: self.true_since(),
            actor: self.actor.clone(),
            event_id: self.event_id(),
            causation: self.causation.clone(),
            correlation: self.correlation.clone(),
            position: self.position,
            calendar: calendar.clone(),
        })
    }

    /// Since when it is true in the world. Nothing is dated ahead of the time at which it is written; what an earlier
    /// version of the program let in is true since it was written, so that it is now what it is as of now.
    pub fn true_since(&self) -> Timestamp {
        self.effective_at.map_or(self.time, |at| at.min(self.time))
    }

    pub fn event_id(&self) -> String {
        format!("{}.{}", self.command_id, self.index)
    }

    /// The record of this event, written by `source` (`/crm/<instance>`) as number `n` of `epoch`.
    pub fn to_record(&self, source: &str, epoch: u64, n: u64) -> Record {
        let key = self.customer.unwrap_or(self.stream.id);
        let mut headers = Headers::new(
            &self.event_id(),
            &self.event_type.to_string(),
            source,
            self.time,
            epoch,
            n,
        );
        headers.add("ce_commitsize", self.commit_size);
        headers.add("ce_subject", self.stream);
        headers.add("ce_sequence", self.sequence);
        headers.add("ce_actor", &self.actor);
        headers.add("ce_commandhash", &self.command_hash);
        headers.add_some("ce_effectiveat", self.effective_at);
        headers.add_some("ce_externalkey", self.external_key.as_ref().map(key_to_text));
        headers.add_some("ce_onbehalfof", self.on_behalf_of.as_ref());
        headers.add_some("ce_causationid", self.causation.as_ref());
        headers.add_some("ce_correlationid", self.correlation.as_ref());
        headers.add_some("traceparent", self.traceparent.as_ref());
        Record {
            key: key.to_string().into_bytes(),
            headers: headers.0,
            value: Some(self.body.clone()),
        }
    }
}

impl LogCreated {
    pub fn to_record(&self, time: Timestamp) -> Record {
        control(&self.log_id.to_string(), CREATED, "/crm/init", time, 0, 0, self)
    }
}

impl Claim {
    pub fn to_record(&self, source: &str, time: Timestamp) -> Record {
        control(&self.nonce.to_string(), CLAIMED, source, time, self.epoch, 0, self)
    }
}

impl Quarantine {
    pub fn to_record(&self, id: Uuid, time: Timestamp) -> Record {
        control(&id.to_string(), QUARANTINED, "/crm/operator", time, 0, 0, self)
    }
}

impl Envelope {
    /// The record of a barrier, number `n` of `epoch`.
    pub fn barrier_record(id: Uuid, source: &str, time: Timestamp, epoch: u64, n: u64) -> Record {
        control(&id.to_string(), BARRIER, source, time, epoch, n, &serde_json::json!({}))
    }

    /// What the record at this position says.
    ///
    /// # Errors
    /// [`Foreign`] when it is none of ours.
    pub fn parse(record: &Record, position: Position) -> Result<Envelope, Foreign> {
        parse(record, position).map_err(|why| Foreign {
            shard: position.shard,
            offset: position.offset,
            fingerprint: record.fingerprint(),
            why,
        })
    }
}

/// `["erp","C-12"]`: either part may have any character.
fn key_to_text(ExternalKey { source, key }: &ExternalKey) -> String {
    serde_json::json!([source, key]).to_string()
}

fn key_of_text(text: &str) -> Result<ExternalKey, String> {
    let (source, key) = serde_json::from_str(text).map_err(|_| format!("its header ce_externalkey reads {text:?}"))?;
    Ok(ExternalKey { source, key })
}

fn control(id: &str, kind: &str, source: &str, time: Timestamp, epoch: u64, n: u64, body: &impl Serialize) -> Record {
    let headers = Headers::new(id, kind, source, time, epoch, n);
    Record {
        key: b"log".to_vec(),
        headers: headers.0,
        value: Some(serde_json::to_vec(body).expect("a control record is plain data")),
    }
}

struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    fn new(id: &str, kind: &str, source: &str, time: Timestamp, epoch: u64, n: u64) -> Headers {
        let mut headers = Headers(Vec::with_capacity(16));
        headers.add("ce_specversion", SPEC_VERSION);
        headers.add("content-type", JSON);
        headers.add("ce_id", id);
        headers.add("ce_type", kind);
        headers.add("ce_source", source);
        headers.add("ce_time", time);
        headers.add("ce_epoch", epoch);
        headers.add("ce_n", n);
        headers
    }

    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string().into_bytes()));
    }

    fn add_some(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

fn parse(record: &Record, position: Position) -> Result<Envelope, String> {
    let Some(value) = &record.value else {
        return Err("it is a tombstone (null value)".into());
    };
    let text = |name: &'static str| -> Result<&str, String> {
        let bytes = record.header(name).ok_or_else(|| format!("it has no header {name}"))?;
        std::str::from_utf8(bytes).map_err(|_| format!("its header {name} is no text"))
    };
    let some =
        |name: &'static str| -> Result<Option<&str>, String> { record.header(name).map(|_| text(name)).transpose() };
    if text("ce_specversion")? != SPEC_VERSION {
        return Err("it is no CloudEvent of version 1.0".into());
    }
    let time = read(text("ce_time")?, "ce_time")?;
    let (epoch, n) = (read(text("ce_epoch")?, "ce_epoch")?, read(text("ce_n")?, "ce_n")?);
    let body = |what: &str, error: serde_json::Error| format!("its body is no {what}: {error}");
    let meaning = match text("ce_type")? {
        CREATED => Meaning::Created(serde_json::from_slice(value).map_err(|error| body("creation", error))?),
        CLAIMED => Meaning::Claim(serde_json::from_slice(value).map_err(|error| body("claim", error))?),
        QUARANTINED => Meaning::Quarantine(serde_json::from_slice(value).map_err(|error| body("quarantine", error))?),
        BARRIER => Meaning::Barrier,
        kind => {
            let event_type = EventType::parse(kind).ok_or_else(|| format!("its type {kind:?} is none of ours"))?;
            let id = text("ce_id")?;
            let (command_id, index) = id.split_once('.').ok_or("its ce_id is not <command>.<i>")?;
            let actor = |name, text: &str| Actor::parse(text).ok_or_else(|| format!("its {name} is no actor"));
            let key = std::str::from_utf8(&record.key)
                .ok()
                .and_then(|key| Uuid::parse_str(key).ok());
            let key = key.ok_or("its key is no UUID")?;
            let subject = text("ce_subject")?;
            let stream = StreamRef::parse(subject).ok_or_else(|| {
                format!("its subject {subject:?} is no stream that this version of the program knows")
            })?;
            Meaning::Event(Box::new(StoredEvent {
                command_id: read(command_id, "ce_id")?,
                index: read(index, "ce_id")?,
                commit_size: read(text("ce_commitsize")?, "ce_commitsize")?,
                event_type,
                stream,
                sequence: read(text("ce_sequence")?, "ce_sequence")?,
                time,
                effective_at: some("ce_effectiveat")?
                    .map(|text| read(text, "ce_effectiveat"))
                    .transpose()?,
                actor: actor("ce_actor", text("ce_actor")?)?,
                on_behalf_of: some("ce_onbehalfof")?
                    .map(|text| actor("ce_onbehalfof", text))
                    .transpose()?,
                causation: some("ce_causationid")?.map(str::to_owned),
                correlation: some("ce_correlationid")?.map(str::to_owned),
                traceparent: some("traceparent")?.map(str::to_owned),
                customer: (key != stream.id || stream.kind == domain::StreamKind::Customer).then_some(key),
                external_key: some("ce_externalkey")?.map(key_of_text).transpose()?,
                command_hash: text("ce_commandhash")?.to_owned(),
                body: value.clone(),
                position,
            }))
        }
    };
    Ok(Envelope {
        epoch,
        n,
        time,
        meaning,
    })
}

fn read<T: std::str::FromStr>(text: &str, name: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("its header {name} reads {text:?}"))
}

#[cfg(test)]
mod specs {
    use super::*;

    pub fn event() -> StoredEvent {
        let customer = domain::derived_id(&["customer"]);
        StoredEvent {
            command_id: domain::derived_id(&["command"]),
            index: 0,
            commit_size: 1,
            event_type: EventType {
                stream: "customer".into(),
                event: "closed".into(),
                version: 1,
            },
            stream: StreamRef {
                kind: domain::StreamKind::Customer,
                id: customer,
            },
            sequence: 3,
            time: "2026-03-02T01:00:00Z".parse().unwrap(),
            effective_at: Some("2026-03-01T01:00:00Z".parse().unwrap()),
            actor: Actor::parse("user:mei").unwrap(),
            on_behalf_of: None,
            causation: None,
            correlation: Some("import-7".into()),
            traceparent: None,
            customer: Some(customer),
            external_key: Some(ExternalKey {
                source: "a:b".into(),
                key: "\"訂\" 1".into(),
            }),
            command_hash: "0123456789abcdef".into(),
            body: b"{}".to_vec(),
            position: Position { shard: 3, offset: 7 },
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let event = event();
        let record = event.to_record("/crm/test", 5, 9);
        let envelope = Envelope::parse(&record, event.position).unwrap();
        assert_eq!((envelope.epoch, envelope.n), (5, 9));
        assert_eq!(envelope.meaning, Meaning::Event(Box::new(event)));
    }

    #[test]
    fn what_was_dated_ahead_is_true_since_it_was_written() {
        let mut event = event();
        let earlier: Timestamp = "2026-03-01T01:00:00Z".parse().unwrap();
        assert_eq!(event.true_since(), earlier);
        event.effective_at = None;
        assert_eq!(event.true_since(), event.time);
        event.effective_at = Some(event.time + jiff::SignedDuration::from_hours(8));
        assert_eq!(event.true_since(), event.time);
    }

    #[test]
    fn a_record_that_is_not_ours_says_where_and_why() {
        let position = Position { shard: 3, offset: 7 };
        let foreign = Envelope::parse(&Record::default(), position).unwrap_err();
        assert_eq!(foreign.to_string(), "shard 3, offset 7: it is a tombstone (null value)");
        let mut record = event().to_record("/crm/test", 5, 9);
        record.headers.retain(|(name, _)| name != "ce_n");
        assert_eq!(
            Envelope::parse(&record, position).unwrap_err().why,
            "it has no header ce_n"
        );
    }
}
