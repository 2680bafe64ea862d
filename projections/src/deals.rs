//! The history of a deal, from which the sales read models are made: what was true when, late entries included.
//!
//! The domain says what the events come to at any time, by the same fold that gives a deal its state.

use domain::opportunity::Event as DealEvent;
use domain::opportunity::ForecastCategory;
use domain::{Currency, Fact};
use uuid::Uuid;

use crate::{Event, Rows, Step, table};

pub use domain::opportunity::{Card, Status};

table! {
    /// The events of one deal, in the order they were recorded.
    entity DealHistory "deal_history" {
        key opportunity: Uuid,
        set external_key: Option<String>,
        set steps: Vec<Step<DealEvent>>,
    }
}

pub type Advance = crate::Advance<Card>;

/// What `event` does to its deal. `None` = it is not an event of a deal, or the deal's history is not loaded yet.
pub fn advance(event: &Event, rows: &mut Rows) -> Option<(Uuid, Advance)> {
    let Fact::Opportunity(fact) = &event.fact else {
        return None;
    };
    let opportunity = event.stream.id;
    let mut history = match fact {
        DealEvent::Opened { .. } => DealHistory {
            opportunity,
            external_key: event.external_key.as_ref().map(ToString::to_string),
            steps: vec![],
        },
        _ => rows.get::<DealHistory>(opportunity)?,
    };
    let advance = Advance::of(event, fact, &mut history.steps);
    rows.put(history);
    Some((opportunity, advance))
}

/// What the sales read models count of a card.
pub trait Figures {
    fn amount_minor(&self) -> i64;
    fn currency(&self) -> Option<Currency>;
    /// How likely it is won, in basis points: what was overridden, else its stage's; certain once it is closed.
    fn probability_bp(&self) -> u16;
    /// Amount times probability, rounded half-even to the minor unit.
    fn weighted_minor(&self) -> i64;
    /// The forecast category; what is won is closed, what is lost is out.
    fn category(&self) -> &'static str;
}

impl Figures for Card {
    fn probability_bp(&self) -> u16 {
        match self.status {
            Status::NotOpened | Status::Open => self.probability_override.unwrap_or(self.stage_probability),
            Status::Won => 10_000,
            Status::Lost => 0,
        }
    }

    fn amount_minor(&self) -> i64 {
        self.amount.map_or(0, |amount| amount.minor)
    }

    fn currency(&self) -> Option<Currency> {
        self.amount.map(|amount| amount.currency)
    }

    fn weighted_minor(&self) -> i64 {
        weigh(self.amount_minor(), self.probability_bp())
    }

    fn category(&self) -> &'static str {
        match (self.status, self.category) {
            (Status::Won, _) => "closed",
            (Status::Lost, _) => "omitted",
            (_, ForecastCategory::Pipeline) => "pipeline",
            (_, ForecastCategory::BestCase) => "best-case",
            (_, ForecastCategory::Commit) => "commit",
            (_, ForecastCategory::Omitted) => "omitted",
        }
    }
}

/// `amount_minor * basis_points / 10000`, rounded half-even.
pub fn weigh(amount_minor: i64, basis_points: u16) -> i64 {
    let product = i128::from(amount_minor) * i128::from(basis_points);
    let floor = product.div_euclid(10_000);
    let rest = product.rem_euclid(10_000);
    let up = rest > 5_000 || (rest == 5_000 && floor % 2 != 0);
    i64::try_from(floor + i128::from(up)).expect("a part of an amount is not larger than the amount")
}

/// Where a stage stands in selling order; stages that the pipeline does not have (any more) come last.
pub fn stage_rank(stage: &str) -> usize {
    domain::pipeline::stage_order(stage).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub mod specs {
    use domain::{Currency, Id, Money, StreamRef, customer::Customer, opportunity};
    use jiff::Timestamp;
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::life;
    use crate::spec::{World, id, moment};

    pub fn deal(name: &str) -> StreamRef {
        StreamRef::of(Id::<opportunity::Opportunity>::new(id(name)))
    }

    pub fn twd(minor: i64) -> Money {
        Money::new(minor, Currency::TWD)
    }

    pub fn opened(amount: Option<Money>) -> DealEvent {
        DealEvent::Opened {
            customer: Id::<Customer>::new(id("customer")),
            name: "五軸加工機 2 台".into(),
            pipeline: "default".into(),
            pipeline_version: 1,
            stage: "prospecting".into(),
            probability_bp: 1_000,
            amount,
            close_date: date(2026, 6, 30),
            owner: "mei".into(),
            source: Some("fair".into()),
        }
    }

    pub fn stage_changed(from: &str, to: &str) -> DealEvent {
        DealEvent::StageChanged {
            from: from.into(),
            to: to.into(),
            pipeline_version: 1,
            probability_bp: domain::pipeline::stage(to).unwrap().probability_bp,
            reason: None,
        }
    }

    pub fn amount_set(to: Money) -> DealEvent {
        DealEvent::AmountSet { from: None, to }
    }

    pub fn won(amount: Money) -> DealEvent {
        DealEvent::Won {
            stage: "prospecting".into(),
            amount,
            reason: None,
        }
    }

    pub fn lost(reason: &str) -> DealEvent {
        DealEvent::Lost {
            stage: "prospecting".into(),
            reason: reason.into(),
            competitor: None,
        }
    }

    pub fn reopened() -> DealEvent {
        DealEvent::Reopened {
            stage: "prospecting".into(),
            reason: "cancelled".into(),
        }
    }

    /// Noon in Taiwan, so many days after the first of January 2026.
    pub fn noon(day: i64) -> Timestamp {
        moment("2026-01-01T12:00:00+08:00") + jiff::SignedDuration::from_hours(24 * day)
    }

    /// Some deals' lives through the domain's own decisions: per entry the deal, how many days after the previous entry it
    /// was recorded, how many days before that it was true, and what was wanted.
    pub fn lives() -> impl Strategy<Value = Vec<(u8, i64, i64, opportunity::Command)>> {
        use opportunity::Command;
        let money = || (0_i64..1_000_000).prop_map(twd);
        let stage = || proptest::sample::select(vec!["prospecting", "qualification", "proposal", "negotiation"]);
        let command = prop_oneof![
            4 => (proptest::option::of(money()), stage()).prop_map(|(amount, stage)| Command::Open {
                customer: Id::new(id("customer")),
                name: "五軸加工機 2 台".into(),
                pipeline: None,
                stage: Some(stage.to_owned()),
                amount,
                close_date: date(2026, 6, 30),
                owner: "mei".into(),
                source: None,
            }),
            4 => stage().prop_map(|to| Command::ChangeStage { to: to.to_owned(), reason: None }),
            4 => money().prop_map(|amount| Command::SetAmount { amount }),
            1 => (1_i8..=12).prop_map(|month| Command::SetCloseDate { close_date: date(2026, month, 15) }),
            1 => Just(Command::SetForecastCategory { category: ForecastCategory::Commit }),
            1 => Just(Command::SetForecastCategory { category: ForecastCategory::Omitted }),
            1 => (0_u16..=10_000).prop_map(|basis_points| Command::OverrideProbability { basis_points, reason: "letter".into() }),
            2 => proptest::option::of(money()).prop_map(|amount| Command::Win { amount, reason: None }),
            2 => Just(Command::Lose { reason: "price".into(), competitor: Some("rival".into()) }),
            2 => Just(Command::Reopen { reason: "cancelled".into() }),
            1 => Just(Command::Lose { reason: "no budget".into(), competitor: None }),
            1 => Just(Command::AssignOwner { owner: "jun".into() }),
            1 => (1_i64..1_000).prop_map(|minor| Command::ChangeCurrency { amount: Money::new(minor, Currency::USD) }),
        ];
        let late = prop_oneof![3 => Just(0_i64), 2 => 0_i64..15];
        proptest::collection::vec((0_u8..3, 0_i64..3, late, command), 1..40)
    }

    /// Records what comes of those wishes, and gives the states of the three deals.
    pub fn live(world: &mut World, lives: Vec<(u8, i64, i64, opportunity::Command)>) -> Vec<opportunity::State> {
        use domain::{AnyState, Calendar, Companions, Moment, Stream};
        struct Nobody;
        impl Companions for Nobody {
            fn find(&self, _: StreamRef) -> Option<&dyn std::any::Any> {
                None
            }
        }
        let calendar = Calendar::taipei();
        let mut states = vec![opportunity::State::default(); 3];
        let mut today = 20;
        for (who, pause, late, command) in lives {
            today += pause;
            let stream = deal(&format!("deal {who}"));
            let (recorded_at, effective_at) = (noon(today), noon(today - late));
            let at = Moment::new(stream.id, recorded_at, effective_at, &calendar, &Nobody);
            let state = &mut states[usize::from(who)];
            let Ok(events) = opportunity::Opportunity::decide(state, command, &at) else {
                continue;
            };
            for event in events {
                *state = opportunity::Opportunity::evolve(state.clone(), &event, effective_at);
                let customer = AnyState::Opportunity(state.clone()).customer();
                world.record_at(stream, customer, event, effective_at, recorded_at);
            }
        }
        states
    }

    /// The deal at `t`, found again from its events by a fold of its own: those true by then, in their order.
    pub fn naive_card(events: &[&Event], t: Timestamp) -> Option<Card> {
        use domain::Card as _;
        let turns = |fact: &DealEvent| {
            matches!(
                fact,
                DealEvent::Opened { .. } | DealEvent::Won { .. } | DealEvent::Lost { .. } | DealEvent::Reopened { .. }
            )
        };
        let mut timed: Vec<(Timestamp, &DealEvent)> = Vec::new();
        for event in events {
            let Fact::Opportunity(fact) = &event.fact else {
                panic!("an event of a deal")
            };
            let mut at = event.effective_at;
            if let Some((opened_at, _)) = timed.first() {
                at = at.max(*opened_at);
            }
            if turns(fact) || matches!(fact, DealEvent::CloseReasonSet { .. }) {
                at = timed
                    .iter()
                    .rfind(|(_, fact)| turns(fact))
                    .map_or(at, |(turned, _)| at.max(*turned));
            }
            timed.push((at, fact));
        }
        timed.retain(|(at, _)| *at <= t);
        timed.sort_by_key(|(at, _)| *at);
        let card = timed
            .iter()
            .fold(Card::default(), |card, (at, fact)| card.after(fact, *at));
        (card.status != Status::NotOpened).then_some(card)
    }

    fn step(version: u64, at: i64, event: DealEvent) -> Step<DealEvent> {
        Step {
            version,
            at: noon(at),
            event,
        }
    }

    #[test]
    fn a_late_entry_takes_its_place_among_the_others() {
        let steps = [
            step(1, 1, opened(Some(twd(100)))),
            step(2, 10, amount_set(twd(200))),
            step(3, 5, amount_set(twd(150))),
        ];
        let amounts: Vec<_> = life::<Card>(&steps)
            .cards()
            .into_iter()
            .map(|(at, card)| (at, card.amount_minor()))
            .collect();
        assert_eq!(amounts, vec![(noon(1), 100), (noon(5), 150), (noon(10), 200)]);
    }

    #[test]
    fn half_a_cent_goes_to_the_even_cent() {
        assert_eq!(weigh(5, 1_000), 0);
        assert_eq!(weigh(15, 1_000), 2);
        assert_eq!(weigh(25, 1_000), 2);
        assert_eq!(weigh(26, 1_000), 3);
        assert_eq!(weigh(-15, 1_000), -2);
        assert_eq!(weigh(i64::MAX, 10_000), i64::MAX);
    }

    #[test]
    fn a_close_date_moved_to_a_later_month_is_a_push() {
        let moved = |month, day| DealEvent::CloseDateSet {
            from: date(2026, 6, 30),
            to: date(2026, month, day),
        };
        let steps = [
            step(1, 1, opened(None)),
            step(2, 2, moved(7, 15)),
            step(3, 3, moved(7, 31)),
            step(4, 4, moved(6, 1)),
            step(5, 5, moved(9, 1)),
        ];
        assert_eq!(life::<Card>(&steps).push_count, 2);
    }
}
