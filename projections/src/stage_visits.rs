//! How long deals stay in a stage: one row per visit of a deal to a stage, while it is open.

use domain::StreamKind;
use jiff::Timestamp;
use uuid::Uuid;

use crate::deals::{self, Card, Status};
use crate::{Column, ColumnType, Event, Group, List, Plan, Question, ReadModel, Row, Rows, Value, table};

table! {
    entity StageVisit "stage_visits" {
        key opportunity: Uuid,
        /// 1, 2, 3 … per deal.
        key visit: i64,
        set stage: String,
        set entered_at: Timestamp,
        /// `None` = it is there now.
        set left_at: Option<Timestamp>,
        /// The next stage, or `won` or `lost`.
        set left_to: Option<String>,
        /// From entered to left, in whole seconds of the clock, so that the visits of a deal add up to the time it was open.
        set seconds: Option<i64>,
    }
}

pub static MODEL: ReadModel = ReadModel {
    name: "stage_visits",
    about: "Every visit of a deal to a stage and how long it took; what is open runs to now",
    group: Group::Sales,
    version: 2,
    streams: &[StreamKind::Opportunity],
    tables: &[StageVisit::TABLE],
    project,
    plan: |question| {
        question.present_only()?;
        Ok(running_to_now(List::of::<StageVisit>().plan(question)?, question))
    },
};

fn project(event: &Event, rows: &mut Rows) {
    let Some((opportunity, advance)) = deals::advance(event, rows) else {
        return;
    };
    let old = visits(opportunity, &advance.old);
    let new = visits(opportunity, &advance.new);
    for gone in old.iter().skip(new.len()) {
        rows.remove::<StageVisit>(gone.key());
    }
    for (at, visit) in new.into_iter().enumerate() {
        if old.get(at) != Some(&visit) {
            rows.put(visit);
        }
    }
}

fn visits(opportunity: Uuid, cards: &[(Timestamp, Card)]) -> Vec<StageVisit> {
    let mut visits: Vec<StageVisit> = Vec::new();
    for (at, card) in cards {
        let here = visits.last_mut().filter(|visit| visit.left_at.is_none());
        let is_open = card.status == Status::Open;
        if let Some(visit) = here {
            if is_open && visit.stage == card.stage {
                continue;
            }
            visit.leave(*at, if is_open { &card.stage } else { card.status.name() });
        }
        if is_open {
            visits.push(StageVisit {
                opportunity,
                visit: i64::try_from(visits.len()).expect("a deal's few visits") + 1,
                stage: card.stage.clone(),
                entered_at: *at,
                left_at: None,
                left_to: None,
                seconds: None,
            });
        }
    }
    visits
}

impl StageVisit {
    fn leave(&mut self, at: Timestamp, to: &str) {
        self.left_at = Some(at);
        self.left_to = Some(to.to_owned());
        self.seconds = Some(at.as_second() - self.entered_at.as_second());
    }
}

/// Gives the visits that are going on the time they took so far, and all of them whole days besides.
fn running_to_now(plan: Plan, question: &Question) -> Plan {
    let now = question.now;
    let days = Column::shown("days", ColumnType::Int).or_null();
    let columns = plan.columns.iter().copied().chain([days]).collect();
    let plan = plan.then(move |rows| {
        for row in rows {
            let mut visit = StageVisit::from_values(row.clone());
            if let (None, Some(now)) = (visit.left_at, now) {
                visit.seconds = Some((now.as_second() - visit.entered_at.as_second()).max(0));
            }
            let days = visit
                .seconds
                .map_or(Value::Null, |seconds| Value::Int(seconds / 86_400));
            *row = visit.into_values();
            row.push(days);
        }
    });
    plan.showing(columns)
}

#[cfg(test)]
mod specs {
    use proptest::prelude::*;

    use super::*;
    use crate::deals::DealHistory;
    use crate::deals::specs::{deal, live, lives, lost, noon, opened, reopened, stage_changed, won};
    use crate::spec::{World, id, question};

    fn visit(visit: i64, stage: &str, entered: i64, left: Option<(i64, &str)>) -> StageVisit {
        StageVisit {
            opportunity: id("a"),
            visit,
            stage: stage.into(),
            entered_at: noon(entered),
            left_at: left.map(|(at, _)| noon(at)),
            left_to: left.map(|(_, to)| to.to_owned()),
            seconds: left.map(|(at, _)| (at - entered) * 86_400),
        }
    }

    #[test]
    fn a_visit_ends_with_the_next_stage_or_the_end_of_the_deal() {
        let mut world = World::new(&[&MODEL]);
        let a = deal("a");
        world.record_at(a, None, opened(None), noon(1), noon(1));
        world.record_at(a, None, stage_changed("prospecting", "proposal"), noon(3), noon(3));
        world.record_at(a, None, lost("price"), noon(7), noon(7));
        world.record_at(a, None, reopened(), noon(9), noon(9));
        let expected = [
            visit(1, "prospecting", 1, Some((3, "proposal"))),
            visit(2, "proposal", 3, Some((7, "lost"))),
            visit(3, "prospecting", 9, None),
        ];
        assert_eq!(world.rows::<StageVisit>(), expected);
    }

    #[test]
    fn a_late_entry_moves_the_visits() {
        let mut world = World::new(&[&MODEL]);
        let a = deal("a");
        world.record_at(a, None, opened(None), noon(1), noon(1));
        world.record_at(a, None, stage_changed("prospecting", "proposal"), noon(6), noon(6));
        // The deal was already in negotiation on the third, and has been in proposal since the sixth.
        world.record_at(a, None, stage_changed("prospecting", "negotiation"), noon(3), noon(8));
        let expected = [
            visit(1, "prospecting", 1, Some((3, "negotiation"))),
            visit(2, "negotiation", 3, Some((6, "proposal"))),
            visit(3, "proposal", 6, None),
        ];
        assert_eq!(world.rows::<StageVisit>(), expected);
        // And on the fourth it was already won: the rest did not happen to an open deal.
        world.record_at(a, None, won(crate::deals::specs::twd(5)), noon(4), noon(9));
        let expected = [
            visit(1, "prospecting", 1, Some((3, "negotiation"))),
            visit(2, "negotiation", 3, Some((4, "won"))),
        ];
        assert_eq!(world.rows::<StageVisit>(), expected);
    }

    #[test]
    fn an_open_visit_runs_to_now() {
        let mut world = World::new(&[&MODEL]);
        world.record_at(deal("a"), None, opened(None), noon(1), noon(1));
        let question = Question {
            now: Some(noon(11)),
            ..question(&[])
        };
        let answer = world.ask(&MODEL, question);
        assert_eq!(answer.rows[0].last(), Some(&Value::Int(10)));
    }

    proptest! {
        /// The visits follow each other without a gap while the deal is open, and add up to the time it was.
        #[test]
        fn the_visits_add_up_to_the_life_of_the_deal(lives in lives()) {
            let mut world = World::new(&[&MODEL]);
            live(&mut world, lives);
            let now = noon(200);
            for deal in world.rows::<DealHistory>() {
                let mut lifetime = 0;
                let mut open_since: Option<Timestamp> = None;
                for (at, card) in crate::life::<Card>(&deal.steps).cards() {
                    match (open_since, card.status) {
                        (None, Status::Open) => open_since = Some(at),
                        (Some(since), Status::Won | Status::Lost) => {
                            lifetime += at.as_second() - since.as_second();
                            open_since = None;
                        }
                        (Some(_), _) | (None, _) => {}
                    }
                }
                lifetime += open_since.map_or(0, |since| now.as_second() - since.as_second());
                let all = world.rows::<StageVisit>();
                let visits = all.iter().filter(|visit| visit.opportunity == deal.opportunity);
                let sum: i64 = visits
                    .map(|visit| visit.seconds.unwrap_or(now.as_second() - visit.entered_at.as_second()))
                    .sum();
                prop_assert_eq!(sum, lifetime);
            }
        }
    }
}
