//! The history of a deal, from which the sales read models are made: what was true when, late entries included.
//!
//! A deal's events are kept with the time from which they are true. Folded in that order they give the deal's card at any
//! time; an entry that comes late goes to its place among the others, and only the days until the next one change.

use domain::opportunity::{Event as DealEvent, ForecastCategory};
use domain::{Currency, Fact, Money};
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Event, Rows, business_date, table};

table! {
    /// The events of one deal, in the order they were recorded.
    entity DealHistory "deal_history" {
        key opportunity: Uuid,
        set steps: Vec<Step>,
    }
}

/// An event of a deal and since when it is true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub version: u64,
    pub at: Timestamp,
    pub event: DealEvent,
}

/// A deal as it stood at some time.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    pub customer: Uuid,
    pub name: String,
    pub owner: String,
    pub source: Option<String>,
    pub status: Status,
    pub stage: String,
    /// The stage's probability, as the event recorded it.
    pub stage_bp: u16,
    pub override_bp: Option<u16>,
    pub amount: Option<Money>,
    pub category: ForecastCategory,
    pub expected_close: Date,
    pub opened_at: Timestamp,
    pub stage_since: Timestamp,
    pub closed_at: Option<Timestamp>,
    /// How often the expected close date was moved to a later month.
    pub push_count: i64,
    pub close_reason: Option<String>,
    pub competitor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Open,
    Won,
    Lost,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Won => "won",
            Status::Lost => "lost",
        }
    }
}

/// What one event did to the history of its deal.
pub struct Advance {
    pub opportunity: Uuid,
    /// The cards before and after the event: since when, and how the deal stood.
    pub old: Vec<(Timestamp, Card)>,
    pub new: Vec<(Timestamp, Card)>,
}

impl Advance {
    /// Adds the event to its deal's history. Each sales read model calls it for itself: the first one adds the step, the
    /// others find it added. `None` = not an event of a deal, or its history is not loaded yet.
    pub fn of(event: &Event, rows: &mut Rows) -> Option<Advance> {
        let Fact::Opportunity(fact) = &event.fact else {
            return None;
        };
        let opportunity = event.stream.id;
        let mut steps = match fact {
            DealEvent::Opened { .. } => vec![],
            DealEvent::StageChanged { .. }
            | DealEvent::AmountSet { .. }
            | DealEvent::CloseDateSet { .. }
            | DealEvent::ForecastCategorySet { .. }
            | DealEvent::ProbabilityOverridden { .. }
            | DealEvent::Won { .. }
            | DealEvent::Lost { .. }
            | DealEvent::Reopened { .. } => rows.get::<DealHistory>(opportunity)?.steps,
        };
        steps.retain(|step| step.version < event.version);
        let old = cards(&steps);
        steps.push(Step {
            version: event.version,
            at: not_before_its_cause(fact, event.effective_at, &steps),
            event: fact.clone(),
        });
        let new = cards(&steps);
        rows.put(DealHistory { opportunity, steps });
        Some(Advance { opportunity, old, new })
    }

    /// The deal as it stands by all that is known.
    pub fn card(&self) -> &Card {
        &self.new.last().expect("the event gave a card").1
    }
}

/// Nothing about a deal is true before the deal was opened, and it is not reopened before it was closed.
fn not_before_its_cause(event: &DealEvent, effective_at: Timestamp, steps: &[Step]) -> Timestamp {
    let opens_or_closes = |event: &DealEvent| match event {
        DealEvent::Opened { .. } | DealEvent::Won { .. } | DealEvent::Lost { .. } | DealEvent::Reopened { .. } => true,
        DealEvent::StageChanged { .. }
        | DealEvent::AmountSet { .. }
        | DealEvent::CloseDateSet { .. }
        | DealEvent::ForecastCategorySet { .. }
        | DealEvent::ProbabilityOverridden { .. } => false,
    };
    let cause = if opens_or_closes(event) {
        steps.iter().rfind(|step| opens_or_closes(&step.event))
    } else {
        steps.first()
    };
    cause.map_or(effective_at, |cause| effective_at.max(cause.at))
}

/// The deal's cards in the order in which they were true: one per event.
pub fn cards(steps: &[Step]) -> Vec<(Timestamp, Card)> {
    let mut in_order: Vec<&Step> = steps.iter().collect();
    in_order.sort_by_key(|step| (step.at, step.version));
    let mut cards: Vec<(Timestamp, Card)> = Vec::with_capacity(steps.len());
    for step in in_order {
        let next = match (cards.last(), &step.event) {
            (None, event) => opened(event, step.at),
            (Some((_, card)), event) => Some(card.clone().after(event, step.at, steps)),
        };
        cards.extend(next.map(|card| (step.at, card)));
    }
    cards
}

fn opened(event: &DealEvent, at: Timestamp) -> Option<Card> {
    let DealEvent::Opened {
        customer,
        name,
        stage,
        probability_bp,
        amount,
        close_date,
        owner,
        source,
        ..
    } = event
    else {
        return None;
    };
    Some(Card {
        customer: customer.uuid(),
        name: name.clone(),
        owner: owner.clone(),
        source: source.clone(),
        status: Status::Open,
        stage: stage.clone(),
        stage_bp: *probability_bp,
        override_bp: None,
        amount: *amount,
        category: ForecastCategory::default(),
        expected_close: *close_date,
        opened_at: at,
        stage_since: at,
        closed_at: None,
        push_count: 0,
        close_reason: None,
        competitor: None,
    })
}

impl Card {
    fn after(mut self, event: &DealEvent, at: Timestamp, steps: &[Step]) -> Card {
        match event {
            DealEvent::Opened { .. } => {}
            DealEvent::StageChanged { to, probability_bp, .. } => {
                if self.stage != *to {
                    self.stage_since = at;
                }
                self.stage = to.clone();
                self.stage_bp = *probability_bp;
                self.override_bp = None;
            }
            DealEvent::AmountSet { to, .. } => self.amount = Some(*to),
            DealEvent::CloseDateSet { to, .. } => {
                if to.first_of_month() > self.expected_close.first_of_month() {
                    self.push_count += 1;
                }
                self.expected_close = *to;
            }
            DealEvent::ForecastCategorySet { to, .. } => self.category = *to,
            DealEvent::ProbabilityOverridden { basis_points, .. } => self.override_bp = Some(*basis_points),
            DealEvent::Won { amount, reason, .. } => {
                self.status = Status::Won;
                self.amount = Some(*amount);
                self.closed_at = Some(at);
                self.close_reason = reason.clone();
            }
            DealEvent::Lost { reason, competitor, .. } => {
                self.status = Status::Lost;
                self.closed_at = Some(at);
                self.close_reason = Some(reason.clone());
                self.competitor = competitor.clone();
            }
            DealEvent::Reopened { stage, .. } => {
                self.status = Status::Open;
                self.closed_at = None;
                self.close_reason = None;
                self.competitor = None;
                self.stage_since = at;
                if self.stage != *stage {
                    self.stage_bp = recorded_probability(stage, steps).unwrap_or(self.stage_bp);
                    self.stage = stage.clone();
                }
            }
        }
        self
    }

    /// How likely it is won, in basis points: what was overridden, else its stage's; certain once it is closed.
    pub fn probability_bp(&self) -> u16 {
        match self.status {
            Status::Open => self.override_bp.unwrap_or(self.stage_bp),
            Status::Won => 10_000,
            Status::Lost => 0,
        }
    }

    pub fn amount_minor(&self) -> i64 {
        self.amount.map_or(0, |amount| amount.minor)
    }

    pub fn currency(&self) -> Option<Currency> {
        self.amount.map(|amount| amount.currency)
    }

    /// Amount times probability, rounded half-even to the minor unit.
    pub fn weighted_minor(&self) -> i64 {
        weigh(self.amount_minor(), self.probability_bp())
    }

    /// The date it closed; while it is open, the date it is expected to.
    pub fn close_date(&self) -> Date {
        self.closed_at.map_or(self.expected_close, business_date)
    }

    /// The forecast category; what is won is closed, what is lost is out.
    pub fn category(&self) -> &'static str {
        match (self.status, self.category) {
            (Status::Won, _) => "closed",
            (Status::Lost, _) => "omitted",
            (Status::Open, ForecastCategory::Pipeline) => "pipeline",
            (Status::Open, ForecastCategory::BestCase) => "best-case",
            (Status::Open, ForecastCategory::Commit) => "commit",
            (Status::Open, ForecastCategory::Omitted) => "omitted",
        }
    }
}

/// What the events said of the stage's probability when the deal last entered it.
fn recorded_probability(stage: &str, steps: &[Step]) -> Option<u16> {
    steps.iter().rev().find_map(|step| match &step.event {
        DealEvent::Opened {
            stage: to,
            probability_bp,
            ..
        }
        | DealEvent::StageChanged { to, probability_bp, .. }
            if to == stage =>
        {
            Some(*probability_bp)
        }
        _ => None,
    })
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
    use domain::{Id, StreamRef, customer::Customer, opportunity};
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
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
        ];
        let late = prop_oneof![3 => Just(0_i64), 2 => 0_i64..15];
        proptest::collection::vec((0_u8..3, 0_i64..3, late, command), 1..40)
    }

    /// Records what comes of those wishes.
    pub fn live(world: &mut World, lives: Vec<(u8, i64, i64, opportunity::Command)>) {
        use domain::{AnyState, Companions, Moment, Stream};
        struct Nobody;
        impl Companions for Nobody {
            fn find(&self, _: StreamRef) -> Option<&dyn std::any::Any> {
                None
            }
        }
        let mut states = vec![opportunity::State::default(); 3];
        let mut today = 20;
        for (who, pause, late, command) in lives {
            today += pause;
            let stream = deal(&format!("deal {who}"));
            let (recorded_at, effective_at) = (noon(today), noon(today - late));
            let at = Moment::new(stream.id, recorded_at, effective_at, &Nobody);
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
    }

    /// The state of a deal at `t`, found again from its events by the domain's own fold: those true by then, in their order.
    pub fn naive_state(events: &[&Event], t: Timestamp) -> Option<opportunity::State> {
        use domain::Stream;
        let mut opened_at = Timestamp::MIN;
        let mut opened_or_closed_at = Timestamp::MIN;
        let mut timed: Vec<(Timestamp, &DealEvent)> = Vec::new();
        for event in events {
            let Fact::Opportunity(fact) = &event.fact else {
                panic!("an event of a deal")
            };
            let at = match fact {
                DealEvent::Opened { .. } => event.effective_at,
                DealEvent::Won { .. } | DealEvent::Lost { .. } | DealEvent::Reopened { .. } => {
                    event.effective_at.max(opened_or_closed_at)
                }
                _ => event.effective_at.max(opened_at),
            };
            match fact {
                DealEvent::Opened { .. } => (opened_at, opened_or_closed_at) = (at, at),
                DealEvent::Won { .. } | DealEvent::Lost { .. } | DealEvent::Reopened { .. } => opened_or_closed_at = at,
                _ => {}
            }
            timed.push((at, fact));
        }
        timed.retain(|(at, _)| *at <= t);
        timed.sort_by_key(|(at, _)| *at);
        let state = timed
            .into_iter()
            .fold(opportunity::State::default(), |state, (at, fact)| {
                opportunity::Opportunity::evolve(state, fact, at)
            });
        (state.status != opportunity::Status::NotOpened).then_some(state)
    }

    fn step(version: u64, at: i64, event: DealEvent) -> Step {
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
        let amounts: Vec<_> = cards(&steps)
            .into_iter()
            .map(|(at, card)| (at, card.amount_minor()))
            .collect();
        assert_eq!(amounts, vec![(noon(1), 100), (noon(5), 150), (noon(10), 200)]);
    }

    #[test]
    fn a_deal_is_not_reopened_before_it_was_closed() {
        let steps = [step(1, 1, opened(None)), step(2, 10, lost("price"))];
        assert_eq!(not_before_its_cause(&reopened(), noon(5), &steps), noon(10));
        assert_eq!(not_before_its_cause(&amount_set(twd(1)), noon(0), &steps), noon(1));
        assert_eq!(not_before_its_cause(&amount_set(twd(1)), noon(5), &steps), noon(5));
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
        assert_eq!(cards(&steps).last().unwrap().1.push_count, 2);
    }
}
