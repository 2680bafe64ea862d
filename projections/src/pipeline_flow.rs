//! What came into the open pipeline and what left it, day by day: it balances to the cent.
//!
//! opening + new + up - down + reopened - won - lost + moved = closing. A deal that is won for more than was open goes up
//! first. A deal that moves to another owner or currency moves out there and in here: over all owners that is nothing.

use std::collections::BTreeMap;

use domain::{Currency, StreamKind};
use jiff::Timestamp;
use jiff::civil::Date;
use uuid::Uuid;

use crate::deals::{self, Card, Figures, Status};
use crate::pipeline::summed;
use crate::pipeline_daily::{Days, date};
use crate::{
    BadQuestion, Column, ColumnType, Event, Expr, Group, Plan, Question, ReadModel, Row, Rows, Select, Value, table,
};

table! {
    /// One row per movement, and signed ones when a late entry restates them.
    journal PipelineMove "pipeline_moves" {
        /// The day of business of `effective_at`.
        set day: Date,
        set effective_at: Timestamp,
        meta recorded_at: Timestamp,
        set opportunity: Uuid,
        set owner: String,
        set currency: Currency,
        /// `new`, `up`, `down`, `reopened`, `won`, `lost`; `moved` to another owner or currency.
        set movement: String,
        set deals: i64,
        set amount_minor: i64,
    }
}

const DIMENSIONS: [&str; 3] = ["currency", "owner", "opportunity"];

const COLUMNS: &[Column] = &[
    Column::shown("day", ColumnType::Date),
    Column::shown("currency", ColumnType::Text),
    Column::shown("opening_minor", ColumnType::Int),
    Column::shown("new_minor", ColumnType::Int),
    Column::shown("up_minor", ColumnType::Int),
    Column::shown("down_minor", ColumnType::Int),
    Column::shown("reopened_minor", ColumnType::Int),
    Column::shown("won_minor", ColumnType::Int),
    Column::shown("lost_minor", ColumnType::Int),
    Column::shown("moved_minor", ColumnType::Int),
    Column::shown("closing_minor", ColumnType::Int),
];

pub static MODEL: ReadModel = ReadModel {
    name: "pipeline_flow",
    about: "What came into the open pipeline and what left it, per day of the company's time zone and currency; 60 days unless `day` says otherwise",
    group: Group::Sales,
    version: 2,
    streams: &[StreamKind::Opportunity],
    tables: &[PipelineMove::TABLE],
    project,
    plan,
};

/// In the order of the answer's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Movement {
    New,
    Up,
    Down,
    Reopened,
    Won,
    Lost,
    /// Signed: out of the old place, into the new one.
    Moved,
}

impl Movement {
    const ALL: [Movement; 7] = [
        Movement::New,
        Movement::Up,
        Movement::Down,
        Movement::Reopened,
        Movement::Won,
        Movement::Lost,
        Movement::Moved,
    ];

    fn name(self) -> &'static str {
        match self {
            Movement::New => "new",
            Movement::Up => "up",
            Movement::Down => "down",
            Movement::Reopened => "reopened",
            Movement::Won => "won",
            Movement::Lost => "lost",
            Movement::Moved => "moved",
        }
    }

    /// Does it add to what is open, or take away?
    fn sign(self) -> i64 {
        match self {
            Movement::New | Movement::Up | Movement::Reopened | Movement::Moved => 1,
            Movement::Down | Movement::Won | Movement::Lost => -1,
        }
    }
}

fn project(event: &Event, rows: &mut Rows) {
    let Some((opportunity, advance)) = deals::advance(event, rows) else {
        return;
    };
    // How often each movement is in the new history, less how often it was in the old one.
    let mut difference: BTreeMap<Move, i64> = BTreeMap::new();
    for step in moves(&advance.new) {
        *difference.entry(step).or_default() += 1;
    }
    for step in moves(&advance.old) {
        *difference.entry(step).or_default() -= 1;
    }
    for (step, times) in difference.into_iter().filter(|(_, times)| *times != 0) {
        rows.append(PipelineMove {
            day: event.calendar.day(step.at),
            effective_at: step.at,
            recorded_at: event.recorded_at,
            opportunity,
            owner: step.owner,
            currency: step.currency,
            movement: step.movement.name().to_owned(),
            deals: times,
            amount_minor: times * step.amount_minor,
        });
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    at: Timestamp,
    owner: String,
    currency: Currency,
    movement: Movement,
    amount_minor: i64,
}

/// The movements of a deal; as long as it has no amount there is nothing to move.
fn moves(cards: &[(Timestamp, Card)]) -> Vec<Move> {
    let mut moves = Vec::new();
    let mut before: Option<&Card> = None;
    for (at, card) in cards {
        let step = |card: &Card, (movement, amount_minor)| {
            card.currency().map(|currency| Move {
                at: *at,
                owner: card.owner.clone(),
                currency,
                movement,
                amount_minor,
            })
        };
        let there = before.filter(|before| changes_place(before, card));
        if let Some(there) = there {
            moves.extend(step(there, (Movement::Moved, -there.amount_minor())));
            moves.extend(step(card, (Movement::Moved, card.amount_minor())));
        }
        // What moved has the new amount already.
        let known = before.map(|before| match there {
            Some(_) => card.amount_minor(),
            None => before.amount_minor(),
        });
        let status = before.map(|before| before.status);
        let what = movements(status.zip(known), card);
        moves.extend(what.into_iter().filter_map(|what| step(card, what)));
        before = Some(card);
    }
    moves
}

/// Does an open deal go to another owner or currency?
fn changes_place(before: &Card, card: &Card) -> bool {
    let has_amounts = before.amount.is_some() && card.amount.is_some();
    let was_open = before.status == Status::Open;
    has_amounts && was_open && (before.owner != card.owner || before.currency() != card.currency())
}

/// What happened to a deal that had this status and amount, if there was one.
fn movements(before: Option<(Status, i64)>, card: &Card) -> Vec<(Movement, i64)> {
    let amount = card.amount_minor();
    let Some((status_before, amount_before)) = before else {
        return vec![(Movement::New, amount)];
    };
    let difference = amount - amount_before;
    let change = match difference {
        0 => None,
        1.. => Some((Movement::Up, difference)),
        ..0 => Some((Movement::Down, -difference)),
    };
    match (status_before, card.status) {
        (Status::NotOpened, _) | (_, Status::NotOpened) => vec![],
        (Status::Open, Status::Open) => change.into_iter().collect(),
        (Status::Open, Status::Won) => change.into_iter().chain([(Movement::Won, amount)]).collect(),
        (Status::Open, Status::Lost) => change.into_iter().chain([(Movement::Lost, amount)]).collect(),
        (Status::Won | Status::Lost, Status::Open) => vec![(Movement::Reopened, amount)],
        // What happens to a closed deal moves nothing in the open pipeline.
        (Status::Won | Status::Lost, Status::Won | Status::Lost) => vec![],
    }
}

fn plan(question: &Question) -> Result<Plan, BadQuestion> {
    let days = Days::of(question)?;
    let select = Select::of(
        PipelineMove::TABLE,
        [
            Expr::Column("day"),
            Expr::Column("currency"),
            Expr::Column("movement"),
            Expr::Sum("amount_minor"),
        ],
    );
    let (select, page) = summed(question, select, &DIMENSIONS, COLUMNS)?;
    let select = days.bound(question.dated(select, "effective_at")).order_by("day");
    Ok(page.plan(vec![select], move |mut results| flow(&days, results.remove(0))))
}

/// One row per day and currency from the movements of each day, which come in the order of days.
fn flow(days: &Days, moved: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    let mut open: BTreeMap<String, i64> = BTreeMap::new();
    let last = moved.last().map(|row| date(&row[0]));
    let mut moved = moved.into_iter().peekable();
    for day in days.list(last) {
        while let Some(row) = moved.next_if(|row| date(&row[0]) < day) {
            let (currency, movement, amount) = read(&row);
            *open.entry(currency).or_default() += movement.sign() * amount;
        }
        let mut today: BTreeMap<String, [i64; Movement::ALL.len()]> = BTreeMap::new();
        for currency in open.keys() {
            today.insert(currency.clone(), [0; Movement::ALL.len()]);
        }
        while let Some(row) = moved.next_if(|row| date(&row[0]) == day) {
            let (currency, movement, amount) = read(&row);
            today.entry(currency).or_default()[movement as usize] += amount;
        }
        for (currency, sums) in today {
            let balance = open.entry(currency.clone()).or_default();
            let opening = *balance;
            for (movement, sum) in Movement::ALL.iter().zip(sums) {
                *balance += movement.sign() * sum;
            }
            if opening == 0 && *balance == 0 && sums.iter().all(|sum| *sum == 0) {
                continue;
            }
            let mut row = vec![Value::Date(day), Value::Text(currency), Value::Int(opening)];
            row.extend(sums.map(Value::Int));
            row.push(Value::Int(*balance));
            rows.push(row);
        }
    }
    rows
}

fn read(row: &[Value]) -> (String, Movement, i64) {
    let name = row[2].as_text();
    let movement = Movement::ALL.into_iter().find(|movement| movement.name() == name);
    (
        row[1].as_text().to_owned(),
        movement.expect("the store gives back the movement it was given"),
        row[3].as_int(),
    )
}

#[cfg(test)]
mod specs {
    use jiff::civil::date as on;
    use proptest::prelude::*;

    use super::*;
    use crate::deals::specs::{amount_set, deal, live, lives, lost, noon, opened, reopened, twd, won};
    use crate::spec::{World, question};
    use crate::{pipeline, pipeline_daily};

    fn ask(world: &World, filter: &str) -> Vec<Vec<Value>> {
        let question = Question {
            now: Some(noon(59)),
            ..question(&[filter])
        };
        world.ask(&MODEL, question).rows
    }

    fn line(day: i8, figures: [i64; 9]) -> Vec<Value> {
        let mut line = vec![Value::Date(on(2026, 1, day)), Value::Text("TWD".into())];
        line.extend(figures.map(Value::Int));
        line
    }

    #[test]
    fn a_deal_won_for_more_goes_up_first() {
        let mut world = World::new(&[&MODEL]);
        world.record_at(deal("a"), None, opened(Some(twd(1_000))), noon(1), noon(1));
        world.record_at(deal("a"), None, won(twd(1_200)), noon(2), noon(2));
        world.record_at(deal("b"), None, opened(Some(twd(300))), noon(1), noon(2));
        world.record_at(deal("b"), None, lost("price"), noon(2), noon(2));
        world.record_at(deal("b"), None, reopened(), noon(3), noon(3));
        assert_eq!(
            ask(&world, "day=2026-01-02"),
            [line(2, [0, 1_300, 0, 0, 0, 0, 0, 0, 1_300])]
        );
        assert_eq!(
            ask(&world, "day=2026-01-03"),
            [line(3, [1_300, 0, 200, 0, 0, 1_200, 300, 0, 0])]
        );
        assert_eq!(
            ask(&world, "day=2026-01-04"),
            [line(4, [0, 0, 0, 0, 300, 0, 0, 0, 300])]
        );
        assert_eq!(
            ask(&world, "day=2026-01-05"),
            [line(5, [300, 0, 0, 0, 0, 0, 0, 0, 300])]
        );
    }

    #[test]
    fn a_late_entry_restates_the_movements() {
        let mut world = World::new(&[&MODEL]);
        world.record_at(deal("a"), None, opened(Some(twd(1_000))), noon(1), noon(1));
        world.record_at(deal("a"), None, amount_set(twd(1_500)), noon(4), noon(4));
        world.record_at(deal("a"), None, amount_set(twd(900)), noon(2), noon(6));
        assert_eq!(
            ask(&world, "day=2026-01-03"),
            [line(3, [1_000, 0, 0, 100, 0, 0, 0, 0, 900])]
        );
        assert_eq!(
            ask(&world, "day=2026-01-05"),
            [line(5, [900, 0, 600, 0, 0, 0, 0, 0, 1_500])]
        );
    }

    #[test]
    fn a_deal_that_goes_to_another_owner_or_currency_moves_out_there_and_in_here() {
        let mut world = World::new(&[&MODEL]);
        world.record_at(deal("a"), None, opened(Some(twd(1_000))), noon(1), noon(1));
        let to_jun = domain::opportunity::Event::OwnerAssigned {
            from: "mei".into(),
            to: "jun".into(),
        };
        world.record_at(deal("a"), None, to_jun, noon(2), noon(2));
        let all = line(3, [1_000, 0, 0, 0, 0, 0, 0, 0, 1_000]);
        assert_eq!(ask(&world, "day=2026-01-03"), [all]);
        let of = |owner: &str| {
            let question = Question {
                now: Some(noon(59)),
                ..question(&["day=2026-01-03", owner])
            };
            world.ask(&MODEL, question).rows
        };
        assert_eq!(of("owner=mei"), [line(3, [1_000, 0, 0, 0, 0, 0, 0, -1_000, 0])]);
        assert_eq!(of("owner=jun"), [line(3, [0, 0, 0, 0, 0, 0, 0, 1_000, 1_000])]);
    }

    proptest! {
        /// Whatever happens and however late, opening and movements give the closing, which is what the pipeline holds.
        #[test]
        fn the_flow_balances_to_the_cent(lives in lives(), known_at in 15_i64..60) {
            let mut world = World::new(&[&pipeline::MODEL, &MODEL]);
            live(&mut world, lives);
            let question = Question {
                now: Some(noon(59)),
                known_until: Some(world.known_at(noon(known_at))),
                ..question(&["day>=2025-12-01"])
            };
            let mut held: BTreeMap<(Date, String), i64> = BTreeMap::new();
            for row in world.ask(&pipeline_daily::MODEL, question.clone()).rows {
                if row[2] != Value::Null {
                    *held.entry((date(&row[0]), row[2].as_text().to_owned())).or_default() += row[4].as_int();
                }
            }
            held.retain(|_, amount| *amount != 0);
            let mut closings = BTreeMap::new();
            let mut yesterday: BTreeMap<String, i64> = BTreeMap::new();
            for row in world.ask(&MODEL, question).rows {
                let figures: Vec<i64> = row[2..].iter().map(Value::as_int).collect();
                let [opening, new, up, down, reopened, won, lost, moved, closing] = figures[..] else { panic!("nine figures") };
                let currency = row[1].as_text().to_owned();
                prop_assert_eq!(opening, yesterday.get(&currency).copied().unwrap_or(0));
                prop_assert_eq!(opening + new + up - down + reopened - won - lost + moved, closing);
                closings.insert((date(&row[0]), currency.clone()), closing);
                yesterday.insert(currency, closing);
            }
            closings.retain(|_, amount| *amount != 0);
            prop_assert_eq!(closings, held);
        }
    }
}
