//! The sales pipeline: every deal as it stands, and what was open by stage at any past time.

use std::collections::BTreeMap;

use domain::{Calendar, Currency, StreamKind};
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use crate::deals::{self, Card, DealHistory, Figures, Status, stage_rank};
use crate::{
    BadQuestion, Column, ColumnType, Event, Expr, Group, LIMIT_MAX, List, Op, Page, Plan, Question, ReadModel, Row,
    Rows, Select, Value, month_of, restate, table,
};

table! {
    entity PipelineCard "pipeline" {
        key opportunity: Uuid,
        /// What another system calls it, such as `erp:4711`, if it was opened under that key.
        set external_key: Option<String>,
        set customer: Uuid,
        set name: String,
        set owner: String,
        set status: String,
        set stage: String,
        set amount_minor: Option<i64>,
        set currency: Option<Currency>,
        /// Overridden, else the stage's as the event recorded it; 10000 when won, 0 when lost.
        set probability_bp: i64,
        set weighted_minor: i64,
        /// `pipeline`, `best-case`, `commit`, `omitted`; `closed` when won.
        set category: String,
        /// The day on which it is planned to close, also after it closed.
        set close_date: Date,
        set opened_at: Timestamp,
        set stage_since: Timestamp,
        set closed_at: Option<Timestamp>,
        /// The day of business on which it closed; none while it is open.
        set closed_on: Option<Date>,
        set push_count: i64,
        set source: Option<String>,
        set close_reason: Option<String>,
        set competitor: Option<String>,
    }
}

table! {
    /// What was in the pipeline when, as signed deltas: a deal in a stage counts 1 from when it is so, and -1 from when it
    /// is not so any more. Sums over `effective_at <= t` give the pipeline at t; sums over the first part of the log give
    /// it as it was known then.
    journal PipelineChange "pipeline_changes" {
        /// The day of business of `effective_at`.
        set day: Date,
        set effective_at: Timestamp,
        meta recorded_at: Timestamp,
        set opportunity: Uuid,
        set status: String,
        set stage: String,
        set currency: Option<Currency>,
        set owner: String,
        /// The day on which it is planned to close, and the one on which it closed.
        set close_date: Date,
        set closed_on: Option<Date>,
        /// `2026-06`: the month in which it closed; while it is open, in which it is planned to.
        set close_month: String,
        set category: String,
        set deals: i64,
        set amount_minor: i64,
        set weighted_minor: i64,
    }
}

/// The columns of `pipeline_changes` that a question about sums may filter by.
pub const DIMENSIONS: [&str; 9] = [
    "opportunity",
    "status",
    "stage",
    "currency",
    "owner",
    "close_date",
    "closed_on",
    "close_month",
    "category",
];

const SUMMARY: &[Column] = &[
    Column::shown("stage", ColumnType::Text),
    Column::shown("currency", ColumnType::Text).or_null(),
    Column::shown("deals", ColumnType::Int),
    Column::shown("amount_minor", ColumnType::Int),
    Column::shown("weighted_minor", ColumnType::Int),
];

pub static MODEL: ReadModel = ReadModel {
    name: "pipeline",
    about: "Every deal as it stands; with as_of or known_at what was open then, by stage and currency",
    group: Group::Sales,
    version: 2,
    streams: &[StreamKind::Opportunity],
    tables: &[PipelineCard::TABLE, DealHistory::TABLE, PipelineChange::TABLE],
    project,
    plan: |question| match question.as_of.is_some() || question.known_until.is_some() {
        false => List::of::<PipelineCard>().plan(question),
        true => open_by_stage(question),
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Some((opportunity, advance)) = deals::advance(event, rows) else {
        return;
    };
    let history = rows.get::<DealHistory>(opportunity);
    rows.put(PipelineCard {
        external_key: history.and_then(|history| history.external_key),
        ..PipelineCard::of(opportunity, advance.card(), &event.calendar)
    });
    let changes = restate(
        &counted(&advance.old, &event.calendar),
        &counted(&advance.new, &event.calendar),
    );
    for change in changes {
        let Counted {
            status,
            stage,
            currency,
            owner,
            close_date,
            closed_on,
            category,
            amount_minor,
            weighted_minor,
        } = change.value;
        rows.append(PipelineChange {
            day: event.calendar.day(change.at),
            effective_at: change.at,
            recorded_at: event.recorded_at,
            opportunity,
            status: status.name().to_owned(),
            stage,
            currency,
            owner,
            close_date,
            closed_on,
            close_month: month_of(closed_on.unwrap_or(close_date)),
            category: category.to_owned(),
            deals: change.sign,
            amount_minor: change.sign * amount_minor,
            weighted_minor: change.sign * weighted_minor,
        });
    }
}

impl PipelineCard {
    fn of(opportunity: Uuid, card: &Card, calendar: &Calendar) -> PipelineCard {
        PipelineCard {
            opportunity,
            external_key: None,
            customer: card.customer.expect("an open deal has one").uuid(),
            name: card.name.clone(),
            owner: card.owner.clone(),
            status: card.status.name().to_owned(),
            stage: card.stage.clone(),
            amount_minor: card.amount.map(|amount| amount.minor),
            currency: card.currency(),
            probability_bp: card.probability_bp().into(),
            weighted_minor: card.weighted_minor(),
            category: card.category().to_owned(),
            close_date: planned(card),
            opened_at: card.opened_at,
            stage_since: card.stage_since,
            closed_at: card.closed_at,
            closed_on: card.closed_at.map(|at| calendar.day(at)),
            push_count: card.push_count.into(),
            source: card.source.clone(),
            close_reason: card.close_reason.clone(),
            competitor: card.competitor.clone(),
        }
    }
}

fn planned(card: &Card) -> Date {
    card.close_date.expect("an open deal has a planned day")
}

/// What is counted of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counted {
    status: Status,
    stage: String,
    currency: Option<Currency>,
    owner: String,
    close_date: Date,
    closed_on: Option<Date>,
    category: &'static str,
    amount_minor: i64,
    weighted_minor: i64,
}

fn counted(cards: &[(Timestamp, Card)], calendar: &Calendar) -> Vec<(Timestamp, Option<Counted>)> {
    let count = |card: &Card| Counted {
        status: card.status,
        stage: card.stage.clone(),
        currency: card.currency(),
        owner: card.owner.clone(),
        close_date: planned(card),
        closed_on: card.closed_at.map(|at| calendar.day(at)),
        category: card.category(),
        amount_minor: card.amount_minor(),
        weighted_minor: card.weighted_minor(),
    };
    cards.iter().map(|(at, card)| (*at, Some(count(card)))).collect()
}

/// For an answer that sums: filters on the table's `dimensions` narrow what is summed, the others are applied to the sums.
/// (A filter on a summand would drop one half of a correction.) The answer is given whole unless a limit is asked for.
///
/// # Errors
/// A column that is neither, a value that does not fit, a foreign cursor.
pub fn summed(
    question: &Question,
    select: Select,
    dimensions: &[&str],
    columns: &'static [Column],
) -> Result<(Select, Page), BadQuestion> {
    let (mut before, mut after) = (question.clone(), question.clone());
    before.filters.clear();
    after.filters.clear();
    after.limit = question.limit.or(Some(LIMIT_MAX));
    for filter in &question.filters {
        let name = filter.column.as_str();
        if dimensions.contains(&name) {
            before.filters.push(filter.clone());
        } else if columns.iter().any(|column| column.name == name) {
            after.filters.push(filter.clone());
        } else {
            let names = columns.iter().map(|column| column.name);
            let others = dimensions
                .iter()
                .filter(|name| columns.iter().all(|column| column.name != **name));
            return Err(BadQuestion::Column {
                column: filter.column.clone(),
                known: names.chain(others.copied()).collect::<Vec<_>>().join(", "),
            });
        }
    }
    Ok((before.narrow(select)?, Page::of(&after, columns)?))
}

fn open_by_stage(question: &Question) -> Result<Plan, BadQuestion> {
    let select = Select::of(
        PipelineChange::TABLE,
        [
            Expr::Column("stage"),
            Expr::Column("currency"),
            Expr::Sum("deals"),
            Expr::Sum("amount_minor"),
            Expr::Sum("weighted_minor"),
        ],
    );
    let open = select.filter("status", Op::Eq, Value::Text(Status::Open.name().to_owned()));
    let (select, page) = summed(question, open, &DIMENSIONS, SUMMARY)?;
    let select = question.dated(select, "effective_at");
    Ok(page.plan(vec![select], move |mut results| {
        let mut stages = BTreeMap::new();
        for row in results.remove(0) {
            let is_empty = row[2..].iter().all(|sum| sum.as_int() == 0);
            if !is_empty {
                let stage = row[0].as_text().to_owned();
                stages.insert((stage_rank(&stage), stage, row[1].clone()), row);
            }
        }
        stages.into_values().collect()
    }))
}

#[cfg(test)]
mod specs {
    use domain::{StreamRef, opportunity};
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::deals::specs::{
        amount_set, deal, live, lives, lost, naive_card, noon, opened, reopened, stage_changed, twd, won,
    };
    use crate::deals::weigh;
    use crate::spec::{World, question};

    fn asked(world: &World, as_of: Option<Timestamp>, known_at: Option<Timestamp>) -> Vec<Vec<Value>> {
        let question = Question {
            as_of,
            known_until: known_at.map(|at| world.known_at(at)),
            ..question(&[])
        };
        world.ask(&MODEL, question).rows
    }

    fn line(stage: &str, deals: i64, amount_minor: i64, weighted_minor: i64) -> Vec<Value> {
        vec![
            Value::Text(stage.into()),
            Value::Text("TWD".into()),
            Value::Int(deals),
            Value::Int(amount_minor),
            Value::Int(weighted_minor),
        ]
    }

    fn record(world: &mut World, stream: StreamRef, fact: domain::opportunity::Event, effective: i64, recorded: i64) {
        world.record_at(stream, None, fact, noon(effective), noon(recorded));
    }

    #[test]
    fn a_card_shows_the_deal_as_it_stands() {
        let mut world = World::new(&[&MODEL]);
        let a = deal("a");
        record(&mut world, a, opened(Some(twd(120_000_000))), 1, 1);
        record(&mut world, a, stage_changed("prospecting", "proposal"), 4, 4);
        let card = world.rows::<PipelineCard>().remove(0);
        assert_eq!(card.stage, "proposal");
        assert_eq!((card.probability_bp, card.weighted_minor), (5_000, 60_000_000));
        assert_eq!((card.opened_at, card.stage_since), (noon(1), noon(4)));
        assert_eq!(card.close_date, date(2026, 6, 30));

        record(&mut world, a, won(twd(130_000_000)), 9, 9);
        let card = world.rows::<PipelineCard>().remove(0);
        assert_eq!((card.status.as_str(), card.category.as_str()), ("won", "closed"));
        assert_eq!(
            (card.amount_minor, card.weighted_minor),
            (Some(130_000_000), 130_000_000)
        );
        assert_eq!(
            (card.closed_at, card.closed_on),
            (Some(noon(9)), Some(date(2026, 1, 10)))
        );
        assert_eq!(card.close_date, date(2026, 6, 30));
        assert_eq!(world.ask(&MODEL, question(&["status=open"])).rows.len(), 0);
        assert_eq!(world.ask(&MODEL, question(&["owner=mei"])).rows.len(), 1);
    }

    #[test]
    fn the_pipeline_of_a_past_day_is_told_as_reported_and_restated() {
        let mut world = World::new(&[&MODEL]);
        let a = deal("a");
        record(&mut world, a, opened(Some(twd(1_000))), 1, 1);
        record(&mut world, a, stage_changed("prospecting", "proposal"), 10, 10);
        // On the 12th it becomes known that the customer asked for more on the 5th.
        record(&mut world, a, amount_set(twd(3_000)), 5, 12);

        assert_eq!(asked(&world, None, Some(noon(6))), [line("prospecting", 1, 1_000, 100)]);
        assert_eq!(asked(&world, Some(noon(6)), None), [line("prospecting", 1, 3_000, 300)]);
        assert_eq!(asked(&world, Some(noon(4)), None), [line("prospecting", 1, 1_000, 100)]);
        assert_eq!(asked(&world, Some(noon(10)), None), [line("proposal", 1, 3_000, 1_500)]);
        assert_eq!(
            asked(&world, Some(noon(6)), Some(noon(11))),
            [line("prospecting", 1, 1_000, 100)]
        );
    }

    #[test]
    fn a_lost_deal_leaves_the_pipeline_and_a_reopened_one_comes_back() {
        let mut world = World::new(&[&MODEL]);
        let a = deal("a");
        record(&mut world, a, opened(Some(twd(1_000))), 1, 1);
        record(&mut world, a, lost("price"), 5, 5);
        record(&mut world, a, reopened(), 8, 8);
        assert_eq!(asked(&world, Some(noon(4)), None), [line("prospecting", 1, 1_000, 100)]);
        assert_eq!(asked(&world, Some(noon(5)), None), Vec::<Vec<Value>>::new());
        assert_eq!(asked(&world, Some(noon(8)), None), [line("prospecting", 1, 1_000, 100)]);
    }

    #[test]
    fn sums_are_filtered_by_what_they_are_of_and_by_themselves() {
        let world = World::new(&[&MODEL]);
        let ask = |filter: &str| {
            let question = Question {
                as_of: Some(noon(1)),
                ..question(&[filter])
            };
            world.try_ask(&MODEL, question).map(|answer| answer.rows.len())
        };
        assert_eq!(ask("owner=mei"), Ok(0));
        assert_eq!(ask("amount_minor>5"), Ok(0));
        assert!(ask("closed>5").unwrap_err().to_string().contains("close_month"));
    }

    proptest! {
        /// State, card and the events themselves say the same, now and of any time.
        #[test]
        fn state_and_card_never_disagree(lives in lives(), t in 0_i64..80) {
            let mut world = World::new(&[&MODEL]);
            let states = live(&mut world, lives);
            for (who, state) in states.into_iter().enumerate() {
                let stream = deal(&format!("deal {who}"));
                let events: Vec<&Event> = world.log().iter().filter(|event| event.stream == stream).collect();
                let naive = naive_card(&events, noon(t)).unwrap_or_default();
                prop_assert_eq!(state.at(noon(t)).into_owned(), naive);
                let row = world.rows::<PipelineCard>().into_iter().find(|row| row.opportunity == stream.id);
                let card = || PipelineCard::of(stream.id, &state, &Calendar::taipei());
                let expected = (state.status != Status::NotOpened).then(card);
                prop_assert_eq!(row, expected);
            }
        }

        /// What the deltas give for `as_of` and `known_at` is what the events known by then say of that time.
        #[test]
        fn the_deltas_give_what_the_events_say(lives in lives(), as_of in 0_i64..60, known_at in 15_i64..60) {
            let mut world = World::new(&[&MODEL]);
            live(&mut world, lives);
            let mut expected: BTreeMap<_, (i64, i64, i64)> = BTreeMap::new();
            for who in 0..3 {
                let stream = deal(&format!("deal {who}"));
                let known: Vec<&Event> = world
                    .log()
                    .iter()
                    .filter(|event| event.stream == stream && event.recorded_at <= noon(known_at))
                    .collect();
                let Some(state) = naive_card(&known, noon(as_of)) else { continue };
                if state.status == opportunity::Status::Open {
                    let probability_bp = state
                        .probability_override
                        .unwrap_or_else(|| domain::pipeline::stage(&state.stage).unwrap().probability_bp);
                    let amount_minor = state.amount.map_or(0, |amount| amount.minor);
                    let currency = state.amount.map(|amount| amount.currency);
                    let sums = expected.entry((stage_rank(&state.stage), state.stage, currency)).or_default();
                    sums.0 += 1;
                    sums.1 += amount_minor;
                    sums.2 += weigh(amount_minor, probability_bp);
                }
            }
            let expected: Vec<Vec<Value>> = expected
                .into_iter()
                .map(|((_, stage, currency), (deals, amount, weighted))| vec![
                    Value::Text(stage),
                    currency.map_or(Value::Null, |currency| Value::Text(currency.code().to_owned())),
                    Value::Int(deals),
                    Value::Int(amount),
                    Value::Int(weighted),
                ])
                .collect();
            prop_assert_eq!(asked(&world, Some(noon(as_of)), Some(noon(known_at))), expected);
        }
    }
}
