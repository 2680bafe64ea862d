//! A loyalty account: the points of one customer in one program (會員點數; LoyaltyProgramMember, LoyaltyLedger).
//!
//! Points lie in lots, one for each transaction that earned some. They leave nearest expiry first, and never more than are
//! there. An account is a ledger: its order is that of recording, as in the read models, whatever times its entries have. The time of
//! a command says which points there are and which of them are good; it is not before the account was begun, nor before the points
//! that it takes, or takes back, were earned. What was earned, spent and then taken back is a debt, which later points pay off before
//! they can be spent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::reversal::{Reversal, reverse};
use crate::customer::{self, Customer};
use crate::{
    Calendar, Differing, Home, Id, Moment, Stream, StreamKind, StreamRef, at_the_door, derived_in, in_sequence,
    same_beginning,
};

mod reversal;

/// So many points a command moves at most: more is a slip of the keyboard.
pub const POINTS_MAX: i64 = 1_000_000_000;

/// The lots of adjustments are called `adjustment:1`, `adjustment:2` …
const ADJUSTMENT: &str = "adjustment:";

/// `balance` is what lies in the lots after the event. It includes lots that have expired until `expire` takes them out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    Enrolled {
        customer: Id<Customer>,
        program: String,
    },
    Earned {
        points: i64,
        source: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_on: Option<Date>,
        /// The part of `points` that paid off debt; only the rest can be spent.
        #[serde(default, skip_serializing_if = "is_zero")]
        debt_paid: i64,
        balance: i64,
    },
    Redeemed {
        points: i64,
        #[serde(rename = "for")]
        reference: String,
        lots: Vec<LotPoints>,
        balance: i64,
    },
    Expired {
        on: Date,
        points: i64,
        lots: Vec<LotPoints>,
        balance: i64,
    },
    /// `points` of what the earn gave are taken back: `taken` from lots, and `debt` for the rest.
    EarnReversed {
        of: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
        points: i64,
        /// From its own lot first, then from the others.
        taken: Vec<LotPoints>,
        #[serde(default, skip_serializing_if = "is_zero")]
        debt: i64,
        reason: String,
        balance: i64,
    },
    RedemptionReversed {
        of: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
        points: i64,
        /// What went back into the lots it came from.
        lots: Vec<LotPoints>,
        /// The part of `points` that paid off debt.
        #[serde(default, skip_serializing_if = "is_zero")]
        debt_paid: i64,
        reason: String,
        balance: i64,
    },
    Adjusted {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
        points: i64,
        /// The lot it made, or those it took from.
        lots: Vec<LotPoints>,
        /// The part of positive `points` that paid off debt.
        #[serde(default, skip_serializing_if = "is_zero")]
        debt_paid: i64,
        /// The part of negative `points` that was not there, and became a debt.
        #[serde(default, skip_serializing_if = "is_zero")]
        debt: i64,
        reason: String,
        on: Date,
        balance: i64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Begin the account of a customer in a program. There is one.
    Enrol { customer: Id<Customer>, program: String },
    /// A `source`, such as a receipt, earns once, however often it is sent.
    Earn {
        #[schemars(range(min = 1, max = 1_000_000_000))]
        points: i64,
        source: String,
        /// The first day on which the points are no longer good.
        #[serde(default, deserialize_with = "at_the_door::day_if_any")]
        #[schemars(schema_with = "at_the_door::day_if_any_schema")]
        expires_on: Option<Date>,
    },
    /// Spend points for something, once for each reference.
    Redeem {
        #[schemars(range(min = 1, max = 1_000_000_000))]
        points: i64,
        #[serde(rename = "for")]
        reference: String,
    },
    /// Take out what is no longer good on this day. The day must have come.
    Expire {
        #[serde(deserialize_with = "at_the_door::day")]
        #[schemars(schema_with = "at_the_door::day_schema")]
        on: Date,
    },
    /// Take back what was earned from a source, and give back what was redeemed under a reference, of this name.
    ///
    /// Earned points that were spent meanwhile become a debt. All reversals together take back what was earned and no more.
    /// With a `reference` (the receipt of the return) a reversal counts once, however often it is sent. Without one, each command
    /// with `points` is a reversal of its own, and only its Idempotency-Key tells a retry from a second return.
    Reverse {
        of: String,
        /// How many. All that are left when nothing is said.
        #[schemars(range(min = 1, max = 1_000_000_000))]
        points: Option<i64>,
        /// Which points, when the name both earned and redeemed. Both when nothing is said, and then without `points`.
        what: Option<What>,
        reference: Option<String>,
        reason: String,
    },
    /// Give points, or with a minus take points.
    ///
    /// With a `reference` (the receipt of a return, a ticket) an adjustment counts once, however often it is sent. Without one,
    /// each command is an adjustment of its own: two returns on one day are two. Then only its Idempotency-Key tells a retry
    /// from a second adjustment.
    Adjust {
        #[schemars(range(min = -1_000_000_000, max = 1_000_000_000))]
        points: i64,
        reference: Option<String>,
        #[serde(default)]
        shortfall: Shortfall,
        reason: String,
    },
}

/// The two kinds of points that one name can have moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    Earned,
    Redeemed,
}

/// What becomes of an adjustment that takes more points than there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shortfall {
    /// It is refused.
    #[default]
    Refused,
    /// The rest is a debt. This corrects points that were given by mistake and are spent.
    Debt,
}

/// Points of one lot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LotPoints {
    /// What earned the lot.
    pub source: String,
    pub points: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_on: Option<Date>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("there is no such loyalty account; enrol the customer first")]
    NotEnrolled,
    #[error("this loyalty account is already enrolled with other data: {0}")]
    AlreadyEnrolled(Differing),
    #[error("a program is needed")]
    ProgramMissing,
    #[error("a source is needed: what the points are earned with")]
    SourceMissing,
    #[error("a source does not begin with {ADJUSTMENT:?}, that is the name of adjustments")]
    SourceReserved,
    #[error("the field for is empty: what the points are redeemed for")]
    ReferenceMissing,
    #[error("a reason is needed")]
    ReasonMissing,
    #[error("points are more than zero; to take points back use reverse or adjust")]
    NotPositive,
    #[error("an adjustment by zero points changes nothing")]
    NothingToAdjust,
    #[error("at most {POINTS_MAX} points are moved at once")]
    TooManyPoints,
    #[error("this account has been given as many points as can be counted")]
    AccountFull,
    #[error("source {source_name:?} has already earned {points} points{}", expiring(.expires_on))]
    EarnedOtherwise {
        source_name: String,
        points: i64,
        expires_on: Option<Date>,
    },
    #[error("{points} points are already redeemed for {reference:?}")]
    RedeemedOtherwise { reference: String, points: i64 },
    #[error("the redemption for {0:?} was reversed; use another reference to redeem again")]
    RedemptionReversed(String),
    #[error("only {0} points are available")]
    OnlyAvailable(i64),
    #[error("only {0} points are available; to take back points that are spent use reverse, or shortfall debt")]
    OnlyThere(i64),
    #[error("{on} is still to come: on {today} nobody knows what expires then")]
    StillToCome { on: Date, today: Date },
    #[error("nothing was earned or redeemed under {0:?}")]
    UnknownReference(String),
    #[error("nothing was {} under {of:?}", .what.name())]
    NothingOf { of: String, what: What },
    #[error("{0:?} both earned and redeemed points; set `what` to \"earned\" or \"redeemed\"")]
    WhichPoints(String),
    #[error("only {left} of the points {} under {of:?} are left to reverse", .what.name())]
    OnlyLeft { of: String, what: What, left: i64 },
    #[error("the reference is empty; leave it out when there is none")]
    ReferenceEmpty,
    #[error("reference {reference:?} is already used, with other {differing}; use another reference")]
    ReferenceUsed { reference: String, differing: &'static str },
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

/// Lots and redemptions stay for good: a source earns once, and a redemption goes back to where it came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub customer: Option<Id<Customer>>,
    /// When the account was begun.
    #[serde(default)]
    pub enrolled_at: Timestamp,
    pub program: String,
    /// By source.
    pub lots: BTreeMap<String, Lot>,
    /// By what they were for.
    pub redemptions: BTreeMap<String, Redemption>,
    /// Points that were spent and then taken back.
    pub debt: i64,
    /// All points ever given. Every other number here is at most this one, so it alone is checked to be countable.
    pub given: i64,
    pub adjustments: u32,
    /// The adjustments that have a reference, by it.
    pub adjusted: BTreeMap<String, Movement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lot {
    /// 1, 2, 3 … in the order of earning.
    pub number: u64,
    /// When it was earned.
    #[serde(default)]
    pub since: Timestamp,
    pub earned: i64,
    /// What can still be spent of it.
    pub left: i64,
    /// What was taken out because it was no longer good.
    pub expired: i64,
    pub expires_on: Option<Date>,
    /// What was taken back of it, from itself, from other lots or as a debt.
    pub reversed: i64,
    /// The reversals that have a reference, by it.
    pub reversals: BTreeMap<String, Movement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redemption {
    pub points: i64,
    /// When they were spent: not before they were earned.
    #[serde(default)]
    pub at: Timestamp,
    /// What was not given back, in the order in which it was spent.
    pub lots: Vec<LotPoints>,
    /// The reversals that have a reference, by it.
    pub reversals: BTreeMap<String, Movement>,
}

/// What was moved under a reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Movement {
    pub points: i64,
    pub reason: String,
}

impl Event {
    /// By how much it changes the balance.
    pub fn delta(&self) -> i64 {
        match self {
            Event::Enrolled { .. } => 0,
            Event::Earned { points, debt_paid, .. } => points - debt_paid,
            Event::Redeemed { points, .. } | Event::Expired { points, .. } => -points,
            Event::EarnReversed { points, debt, .. } => debt - points,
            Event::RedemptionReversed { points, debt_paid, .. } => points - debt_paid,
            Event::Adjusted {
                points,
                debt_paid,
                debt,
                ..
            } => points - debt_paid + debt,
        }
    }

    /// By how much it changes the debt.
    pub fn debt_delta(&self) -> i64 {
        match self {
            Event::Enrolled { .. } | Event::Redeemed { .. } | Event::Expired { .. } => 0,
            Event::Earned { debt_paid, .. } => -debt_paid,
            Event::EarnReversed { debt, .. } => *debt,
            Event::RedemptionReversed { debt_paid, .. } => -debt_paid,
            Event::Adjusted { debt_paid, debt, .. } => debt - debt_paid,
        }
    }
}

#[derive(Debug)]
pub struct Loyalty;

impl Stream for Loyalty {
    const NAME: &'static str = "loyalty";
    const KIND: StreamKind = StreamKind::Loyalty;
    const BEGINS: &'static str = "enrol";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn home(command: &Command) -> Home {
        match command {
            Command::Enrol { customer, program } => {
                let key = [Loyalty::NAME, &customer.to_string(), program];
                Home::Exactly(derived_in(customer.slot(), &key))
            }
            _ => Home::Anywhere,
        }
    }

    fn companions(command: &Command) -> Vec<StreamRef> {
        match command {
            Command::Enrol { customer, .. } => customer::companion(*customer),
            _ => vec![],
        }
    }

    fn decide(state: &State, command: Command, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
        if state.customer.is_none() && !matches!(command, Command::Enrol { .. }) {
            return Err(Rejection::NotEnrolled);
        }
        let when = When {
            at: in_sequence(state.enrolled_at, at.effective_at),
            calendar: at.calendar,
        };
        match command {
            Command::Enrol { customer, program } => enrol(state, customer, program, at),
            Command::Earn {
                points,
                source,
                expires_on,
            } => earn(state, points, source, expires_on, when.today()),
            Command::Redeem { points, reference } => redeem(state, points, reference, when),
            Command::Expire { on } => expire(state, on, when),
            Command::Reverse {
                of,
                points,
                what,
                reference,
                reason,
            } => {
                let reversal = Reversal {
                    of,
                    points,
                    what,
                    reference,
                    reason,
                };
                reverse(state, &reversal, when)
            }
            Command::Adjust {
                points,
                reference,
                shortfall,
                reason,
            } => adjust(state, points, reference, shortfall, reason, when),
        }
    }

    fn evolve(mut state: State, event: &Event, at: Timestamp) -> State {
        let at = match state.customer {
            Some(_) => in_sequence(state.enrolled_at, at),
            None => at,
        };
        state.debt += event.debt_delta();
        match event {
            Event::Enrolled { customer, program } => {
                state.customer = Some(*customer);
                state.enrolled_at = at;
                state.program = program.clone();
            }
            Event::Earned {
                points,
                source,
                expires_on,
                debt_paid,
                ..
            } => {
                state.given += points;
                state.put_lot(source, *points, points - debt_paid, *expires_on, at);
            }
            Event::Redeemed {
                points,
                reference,
                lots,
                ..
            } => {
                state.take_out(lots);
                let redemption = Redemption {
                    points: *points,
                    at: lots
                        .iter()
                        .fold(at, |at, part| in_sequence(state.lots[&part.source].since, at)),
                    lots: lots.clone(),
                    reversals: BTreeMap::new(),
                };
                state.redemptions.insert(reference.clone(), redemption);
            }
            Event::Expired { lots, .. } => {
                state.take_out(lots);
                for part in lots {
                    state.lot(&part.source).expired += part.points;
                }
            }
            Event::EarnReversed {
                of,
                reference,
                points,
                taken,
                reason,
                ..
            } => {
                state.take_out(taken);
                let lot = state.lot(of);
                lot.reversed += points;
                remember(&mut lot.reversals, reference, *points, reason);
            }
            Event::RedemptionReversed {
                of,
                reference,
                points,
                lots,
                reason,
                ..
            } => {
                for part in lots {
                    state.lot(&part.source).left += part.points;
                }
                let redemption = state.redemptions.get_mut(of);
                let redemption = redemption.expect("what is reversed was redeemed");
                redemption.lots = first_points(redemption.lots.clone(), redemption.left() - points);
                remember(&mut redemption.reversals, reference, *points, reason);
            }
            Event::Adjusted {
                reference,
                points,
                lots,
                reason,
                ..
            } => {
                if *points > 0 {
                    state.given += points;
                    for lot in lots {
                        state.put_lot(&lot.source, lot.points, lot.points, lot.expires_on, at);
                    }
                } else {
                    state.take_out(lots);
                }
                state.adjustments += 1;
                remember(&mut state.adjusted, reference, *points, reason);
            }
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

/// A time, and the calendar that says on which day it is.
#[derive(Clone, Copy)]
struct When<'a> {
    at: Timestamp,
    calendar: &'a Calendar,
}

impl When<'_> {
    fn today(self) -> Date {
        self.calendar.day(self.at)
    }

    fn not_before(self, cause: Timestamp) -> Self {
        When {
            at: in_sequence(cause, self.at),
            ..self
        }
    }
}

impl State {
    /// What lies in the lots.
    pub fn balance(&self) -> i64 {
        self.lots.values().map(|lot| lot.left).sum()
    }

    /// What can be spent at this time.
    pub fn available(&self, at: Timestamp, calendar: &Calendar) -> i64 {
        self.available_when(When { at, calendar })
    }

    fn available_when(&self, when: When<'_>) -> i64 {
        let good: i64 = self.good(when).map(|(_, lot)| lot.left).sum();
        // Debt beside good lots happens when a command is true at an earlier time than the one before it.
        (good - self.debt).max(0)
    }

    /// `when`, or the first time after it at which `there` are so many points; if there never are, the time with the most. So an
    /// entry is not before the points that it takes, and one that is dated late takes those that were there by then. With the
    /// time comes how many are there.
    fn when_there<'a>(&self, points: i64, when: When<'a>, there: impl Fn(When<'a>) -> i64) -> (When<'a>, i64) {
        let (mut best, mut most) = (when, there(when));
        let later = self.lots.values().filter(|lot| lot.left > 0 && lot.since > when.at);
        let mut times: Vec<Timestamp> = later.map(|lot| lot.since).collect();
        times.sort_unstable();
        times.dedup();
        for at in times {
            if most >= points {
                break;
            }
            let then = When { at, ..when };
            let points = there(then);
            if points > most {
                (best, most) = (then, points);
            }
        }
        (best, most)
    }

    /// The lots with points that are there at this time and good on its day.
    fn good(&self, when: When<'_>) -> impl Iterator<Item = (&String, &Lot)> {
        let today = when.today();
        let lots = self.lots.iter();
        lots.filter(move |(_, lot)| lot.left > 0 && lot.since <= when.at && !lot.is_expired(today))
    }

    /// The same, in the order in which they are spent.
    fn good_lots(&self, when: When<'_>) -> Vec<LotPoints> {
        let mut good: Vec<_> = self.good(when).collect();
        good.sort_by_key(|(_, lot)| (lot.expires_on.unwrap_or(Date::MAX), lot.number));
        good.into_iter()
            .map(|(source, lot)| lot.part(source, lot.left))
            .collect()
    }

    fn put_lot(&mut self, source: &str, earned: i64, left: i64, expires_on: Option<Date>, since: Timestamp) {
        let lot = Lot {
            number: self.lots.len() as u64 + 1,
            since,
            earned,
            left,
            expired: 0,
            expires_on,
            reversed: 0,
            reversals: BTreeMap::new(),
        };
        self.lots.insert(source.to_owned(), lot);
    }

    fn take_out(&mut self, lots: &[LotPoints]) {
        for part in lots {
            self.lot(&part.source).left -= part.points;
        }
    }

    fn lot(&mut self, source: &str) -> &mut Lot {
        self.lots.get_mut(source).expect("a lot stays once it is there")
    }
}

impl Lot {
    /// What can still be taken back of it: what has expired is gone, and is not taken again.
    fn left_to_reverse(&self) -> i64 {
        // Points that a redemption gave back after the reversal may expire too.
        (self.earned - self.expired - self.reversed).max(0)
    }

    fn is_expired(&self, today: Date) -> bool {
        self.expires_on.is_some_and(|expires_on| expires_on <= today)
    }

    fn part(&self, source: &str, points: i64) -> LotPoints {
        LotPoints {
            source: source.to_owned(),
            points,
            expires_on: self.expires_on,
        }
    }
}

impl Redemption {
    /// What was not given back.
    fn left(&self) -> i64 {
        sum(&self.lots)
    }

    /// The `points` that were spent last, of what was not given back. They come back first.
    fn last_points(&self, points: i64) -> Vec<LotPoints> {
        let mut last = first_points(self.lots.iter().rev().cloned().collect(), points);
        last.reverse();
        last
    }
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Earned => "earned",
            What::Redeemed => "redeemed",
        }
    }
}

fn enrol(state: &State, customer: Id<Customer>, program: String, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if let Some(enrolled) = state.customer {
        let known = Event::Enrolled {
            customer: enrolled,
            program: state.program.clone(),
        };
        let again = Event::Enrolled { customer, program };
        same_beginning(Some(&known), &again, &[]).map_err(Rejection::AlreadyEnrolled)?;
        return Ok(vec![]);
    }
    if program.trim().is_empty() {
        return Err(Rejection::ProgramMissing);
    }
    customer::must_be_open(customer, at)?;
    Ok(vec![Event::Enrolled { customer, program }])
}

fn earn(
    state: &State,
    points: i64,
    source: String,
    expires_on: Option<Date>,
    today: Date,
) -> Result<Vec<Event>, Rejection> {
    must_be_points(points)?;
    if source.trim().is_empty() {
        return Err(Rejection::SourceMissing);
    }
    if source.starts_with(ADJUSTMENT) {
        return Err(Rejection::SourceReserved);
    }
    if let Some(lot) = state.lots.get(&source) {
        return if lot.earned == points && lot.expires_on == expires_on {
            Ok(vec![])
        } else {
            Err(Rejection::EarnedOtherwise {
                source_name: source,
                points: lot.earned,
                expires_on: lot.expires_on,
            })
        };
    }
    must_be_countable(state, points)?;
    let is_good = expires_on.is_none_or(|expires_on| expires_on > today);
    let debt_paid = if is_good { points.min(state.debt) } else { 0 };
    Ok(vec![Event::Earned {
        points,
        source,
        expires_on,
        debt_paid,
        balance: state.balance() + points - debt_paid,
    }])
}

fn redeem(state: &State, points: i64, reference: String, when: When<'_>) -> Result<Vec<Event>, Rejection> {
    must_be_points(points)?;
    if reference.trim().is_empty() {
        return Err(Rejection::ReferenceMissing);
    }
    if let Some(redemption) = state.redemptions.get(&reference) {
        // Whoever redeems again what was reversed must not believe that it was paid.
        return if redemption.points != points {
            Err(Rejection::RedeemedOtherwise {
                reference,
                points: redemption.points,
            })
        } else if redemption.lots.is_empty() {
            Err(Rejection::RedemptionReversed(reference))
        } else {
            Ok(vec![])
        };
    }
    let (when, available) = state.when_there(points, when, |when| state.available_when(when));
    if points > available {
        return Err(Rejection::OnlyAvailable(available));
    }
    Ok(vec![Event::Redeemed {
        points,
        reference,
        lots: first_points(state.good_lots(when), points),
        balance: state.balance() - points,
    }])
}

fn expire(state: &State, on: Date, when: When<'_>) -> Result<Vec<Event>, Rejection> {
    let today = when.today();
    if on > today {
        return Err(Rejection::StillToCome { on, today });
    }
    let lots: Vec<LotPoints> = state
        .lots
        .iter()
        .filter(|(_, lot)| lot.left > 0 && lot.since <= when.at && lot.is_expired(on))
        .map(|(source, lot)| lot.part(source, lot.left))
        .collect();
    if lots.is_empty() {
        return Ok(vec![]);
    }
    let points = sum(&lots);
    Ok(vec![Event::Expired {
        on,
        points,
        lots,
        balance: state.balance() - points,
    }])
}

fn adjust(
    state: &State,
    points: i64,
    reference: Option<String>,
    shortfall: Shortfall,
    reason: String,
    mut when: When<'_>,
) -> Result<Vec<Event>, Rejection> {
    if points == 0 {
        return Err(Rejection::NothingToAdjust);
    }
    if !(-POINTS_MAX..=POINTS_MAX).contains(&points) {
        return Err(Rejection::TooManyPoints);
    }
    if reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    must_not_be_empty(&reference)?;
    if is_repeated(&state.adjusted, reference.as_deref(), Some(points), &reason)? {
        return Ok(vec![]);
    }
    let (lots, debt_paid, debt) = if points > 0 {
        must_be_countable(state, points)?;
        let debt_paid = points.min(state.debt);
        let made = LotPoints {
            source: format!("{ADJUSTMENT}{}", state.adjustments + 1),
            points: points - debt_paid,
            expires_on: None,
        };
        let lots = if made.points > 0 { vec![made] } else { vec![] };
        (lots, debt_paid, 0)
    } else {
        let available;
        (when, available) = state.when_there(-points, when, |when| state.available_when(when));
        if -points > available && shortfall == Shortfall::Refused {
            return Err(Rejection::OnlyThere(available));
        }
        let taken = first_points(state.good_lots(when), -points);
        let debt = -points - sum(&taken);
        (taken, 0, debt)
    };
    Ok(vec![Event::Adjusted {
        reference,
        points,
        lots,
        debt_paid,
        debt,
        reason,
        on: when.today(),
        balance: state.balance() + points - debt_paid + debt,
    }])
}

/// Is this what was moved before under the reference? A command that does not say how many `points` means those.
fn is_repeated(
    before: &BTreeMap<String, Movement>,
    reference: Option<&str>,
    points: Option<i64>,
    reason: &str,
) -> Result<bool, Rejection> {
    let Some((reference, moved)) = reference.and_then(|reference| before.get_key_value(reference)) else {
        return Ok(false);
    };
    let differing = match (
        points.is_none_or(|points| points == moved.points),
        reason == moved.reason,
    ) {
        (true, true) => return Ok(true),
        (false, true) => "points",
        (true, false) => "reason",
        (false, false) => "points and reason",
    };
    Err(Rejection::ReferenceUsed {
        reference: reference.clone(),
        differing,
    })
}

fn remember(moved: &mut BTreeMap<String, Movement>, reference: &Option<String>, points: i64, reason: &str) {
    if let Some(reference) = reference {
        let movement = Movement {
            points,
            reason: reason.to_owned(),
        };
        moved.insert(reference.clone(), movement);
    }
}

fn must_not_be_empty(reference: &Option<String>) -> Result<(), Rejection> {
    match reference {
        Some(reference) if reference.trim().is_empty() => Err(Rejection::ReferenceEmpty),
        Some(_) | None => Ok(()),
    }
}

/// `, which expire on 2026-05-01`, for a sentence about points.
fn expiring(expires_on: &Option<Date>) -> String {
    match expires_on {
        Some(day) => format!(", which expire on {day}"),
        None => ", which do not expire".to_owned(),
    }
}

fn must_be_points(points: i64) -> Result<(), Rejection> {
    match points {
        ..=0 => Err(Rejection::NotPositive),
        1..=POINTS_MAX => Ok(()),
        _ => Err(Rejection::TooManyPoints),
    }
}

fn must_be_countable(state: &State, points: i64) -> Result<(), Rejection> {
    match state.given.checked_add(points) {
        Some(_) => Ok(()),
        None => Err(Rejection::AccountFull),
    }
}

/// The first `points` of `lots`, or all there are.
fn first_points(lots: Vec<LotPoints>, points: i64) -> Vec<LotPoints> {
    let mut missing = points;
    let mut taken = vec![];
    for mut lot in lots {
        lot.points = lot.points.min(missing);
        missing -= lot.points;
        if lot.points > 0 {
            taken.push(lot);
        }
    }
    taken
}

fn sum(lots: &[LotPoints]) -> i64 {
    lots.iter().map(|part| part.points).sum()
}

fn is_zero(points: &i64) -> bool {
    *points == 0
}

#[cfg(test)]
mod specs;
