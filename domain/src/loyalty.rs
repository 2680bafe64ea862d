//! A loyalty account: the points of one customer in one program (會員點數; LoyaltyProgramMember, LoyaltyLedger).
//!
//! Points lie in lots, one for each transaction that earned some. They leave nearest expiry first, and never more than are
//! there. What was earned, spent and then taken back is a debt, which later points pay off before they can be spent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::Offset;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::customer::{self, Customer};
use crate::{Home, Id, Moment, Stream, StreamKind, StreamRef, derived_in};

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
    /// `points` is what the earn had given and had not expired since: `taken` from lots, and `debt` for the rest.
    EarnReversed {
        of: String,
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
        points: i64,
        /// The lot it made, or those it took from.
        lots: Vec<LotPoints>,
        /// The part of positive `points` that paid off debt.
        #[serde(default, skip_serializing_if = "is_zero")]
        debt_paid: i64,
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
        expires_on: Option<Date>,
    },
    /// Spend points for something, once for each reference.
    Redeem {
        #[schemars(range(min = 1, max = 1_000_000_000))]
        points: i64,
        #[serde(rename = "for")]
        reference: String,
    },
    /// Take out what is no longer good on this day.
    Expire { on: Date },
    /// Take back all that was earned from a source and redeemed under a reference of this name.
    Reverse { of: String, reason: String },
    /// Give points, or with a minus take points that are there. The same again on the same day is the same adjustment.
    Adjust {
        #[schemars(range(min = -1_000_000_000, max = 1_000_000_000))]
        points: i64,
        reason: String,
    },
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
    #[error("this loyalty account already belongs to another customer or program")]
    AlreadyEnrolled,
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
    #[error("source {source_name:?} has already earned {points} points")]
    EarnedOtherwise { source_name: String, points: i64 },
    #[error("{points} points are already redeemed for {reference:?}")]
    RedeemedOtherwise { reference: String, points: i64 },
    #[error("the redemption for {0:?} was reversed; use another reference to redeem again")]
    RedemptionReversed(String),
    #[error("only {0} points are available")]
    OnlyAvailable(i64),
    #[error("nothing was earned or redeemed under {0:?}")]
    UnknownReference(String),
    #[error(transparent)]
    Customer(#[from] customer::Unavailable),
}

/// Lots and redemptions stay for good: a source earns once, and a redemption goes back to where it came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct State {
    pub customer: Option<Id<Customer>>,
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
    pub last_adjustment: Option<Adjustment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lot {
    /// 1, 2, 3 … in the order of earning.
    pub number: u64,
    pub earned: i64,
    /// What can still be spent of it.
    pub left: i64,
    /// What was taken out because it was no longer good.
    pub expired: i64,
    pub expires_on: Option<Date>,
    pub is_reversed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redemption {
    pub points: i64,
    pub lots: Vec<LotPoints>,
    pub is_reversed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adjustment {
    pub on: Date,
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
            Event::Adjusted { points, debt_paid, .. } => points - debt_paid,
        }
    }

    /// By how much it changes the debt.
    pub fn debt_delta(&self) -> i64 {
        match self {
            Event::Enrolled { .. } | Event::Redeemed { .. } | Event::Expired { .. } => 0,
            Event::Earned { debt_paid, .. } => -debt_paid,
            Event::EarnReversed { debt, .. } => *debt,
            Event::RedemptionReversed { debt_paid, .. } | Event::Adjusted { debt_paid, .. } => -debt_paid,
        }
    }
}

#[derive(Debug)]
pub struct Loyalty;

impl Stream for Loyalty {
    const NAME: &'static str = "loyalty";
    const KIND: StreamKind = StreamKind::Loyalty;
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
        let today = business_date(at.effective_at);
        match command {
            Command::Enrol { customer, program } => enrol(state, customer, program, at),
            Command::Earn {
                points,
                source,
                expires_on,
            } => earn(state, points, source, expires_on, today),
            Command::Redeem { points, reference } => redeem(state, points, reference, today),
            Command::Expire { on } => Ok(expire(state, on)),
            Command::Reverse { of, reason } => reverse(state, of, reason, today, at.effective_at),
            Command::Adjust { points, reason } => adjust(state, points, reason, today),
        }
    }

    fn evolve(mut state: State, event: &Event, _: Timestamp) -> State {
        state.debt += event.debt_delta();
        match event {
            Event::Enrolled { customer, program } => {
                state.customer = Some(*customer);
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
                state.put_lot(source, *points, points - debt_paid, *expires_on);
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
                    lots: lots.clone(),
                    is_reversed: false,
                };
                state.redemptions.insert(reference.clone(), redemption);
            }
            Event::Expired { lots, .. } => {
                state.take_out(lots);
                for part in lots {
                    state.lot(&part.source).expired += part.points;
                }
            }
            Event::EarnReversed { of, taken, .. } => {
                state.take_out(taken);
                state.lot(of).is_reversed = true;
            }
            Event::RedemptionReversed { of, lots, .. } => {
                for part in lots {
                    state.lot(&part.source).left += part.points;
                }
                state
                    .redemptions
                    .get_mut(of)
                    .expect("what is reversed was redeemed")
                    .is_reversed = true;
            }
            Event::Adjusted {
                points,
                lots,
                reason,
                on,
                ..
            } => {
                if *points > 0 {
                    state.given += points;
                    for lot in lots {
                        state.put_lot(&lot.source, lot.points, lot.points, lot.expires_on);
                    }
                } else {
                    state.take_out(lots);
                }
                state.adjustments += 1;
                state.last_adjustment = Some(Adjustment {
                    on: *on,
                    points: *points,
                    reason: reason.clone(),
                });
            }
        }
        state
    }

    fn customer(state: &State) -> Option<Uuid> {
        customer::routing(&state.customer)
    }
}

impl State {
    /// What lies in the lots.
    pub fn balance(&self) -> i64 {
        self.lots.values().map(|lot| lot.left).sum()
    }

    /// What can be spent on this day.
    pub fn available(&self, today: Date) -> i64 {
        let good: i64 = self.good_lots(today).iter().map(|part| part.points).sum();
        // Debt beside good lots happens when a command is true at an earlier time than the one before it.
        (good - self.debt).max(0)
    }

    /// The lots with points that are good on this day, in the order in which they are spent.
    fn good_lots(&self, today: Date) -> Vec<LotPoints> {
        let mut good: Vec<_> = self
            .lots
            .iter()
            .filter(|(_, lot)| lot.left > 0 && !lot.is_expired(today))
            .collect();
        good.sort_by_key(|(_, lot)| (lot.expires_on.unwrap_or(Date::MAX), lot.number));
        good.into_iter()
            .map(|(source, lot)| lot.part(source, lot.left))
            .collect()
    }

    fn put_lot(&mut self, source: &str, earned: i64, left: i64, expires_on: Option<Date>) {
        let lot = Lot {
            number: self.lots.len() as u64 + 1,
            earned,
            left,
            expired: 0,
            expires_on,
            is_reversed: false,
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

fn enrol(state: &State, customer: Id<Customer>, program: String, at: &Moment<'_>) -> Result<Vec<Event>, Rejection> {
    if let Some(enrolled) = state.customer {
        return if enrolled == customer && state.program == program {
            Ok(vec![])
        } else {
            Err(Rejection::AlreadyEnrolled)
        };
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
        return if lot.earned == points {
            Ok(vec![])
        } else {
            Err(Rejection::EarnedOtherwise {
                source_name: source,
                points: lot.earned,
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

fn redeem(state: &State, points: i64, reference: String, today: Date) -> Result<Vec<Event>, Rejection> {
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
        } else if redemption.is_reversed {
            Err(Rejection::RedemptionReversed(reference))
        } else {
            Ok(vec![])
        };
    }
    let available = state.available(today);
    if points > available {
        return Err(Rejection::OnlyAvailable(available));
    }
    Ok(vec![Event::Redeemed {
        points,
        reference,
        lots: first_points(state.good_lots(today), points),
        balance: state.balance() - points,
    }])
}

fn expire(state: &State, on: Date) -> Vec<Event> {
    let lots: Vec<LotPoints> = state
        .lots
        .iter()
        .filter(|(_, lot)| lot.left > 0 && lot.is_expired(on))
        .map(|(source, lot)| lot.part(source, lot.left))
        .collect();
    if lots.is_empty() {
        return vec![];
    }
    let points = sum(&lots);
    vec![Event::Expired {
        on,
        points,
        lots,
        balance: state.balance() - points,
    }]
}

/// One receipt may have both redeemed points and earned some. The redemption goes back first, so that its points are there
/// when the earned ones are taken.
fn reverse(state: &State, of: String, reason: String, today: Date, at: Timestamp) -> Result<Vec<Event>, Rejection> {
    if reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    let redemption = state.redemptions.get(&of);
    let is_earned = state.lots.contains_key(&of) && !of.starts_with(ADJUSTMENT);
    if redemption.is_none() && !is_earned {
        return Err(Rejection::UnknownReference(of));
    }
    let mut state = state.clone();
    let mut events = vec![];
    if let Some(redemption) = redemption.filter(|redemption| !redemption.is_reversed) {
        let event = reverse_redemption(&state, redemption, &of, &reason, today);
        state = Loyalty::evolve(state, &event, at);
        events.push(event);
    }
    if is_earned && !state.lots[&of].is_reversed {
        events.push(reverse_earn(&state, &of, &reason, today));
    }
    Ok(events)
}

fn reverse_redemption(state: &State, redemption: &Redemption, of: &str, reason: &str, today: Date) -> Event {
    // Points of an earn that was reversed pay first: while they were spent, its reversal was made good by other points
    // or became a debt.
    let mut parts = redemption.lots.clone();
    parts.sort_by_key(|part| !state.lots[&part.source].is_reversed);
    let mut debt = state.debt;
    let mut lots = vec![];
    for mut part in parts {
        let lot = &state.lots[&part.source];
        // What is no longer good pays no debt: had it not been spent, it would have expired.
        let pays = lot.is_reversed || !lot.is_expired(today);
        let debt_paid = if pays { part.points.min(debt) } else { 0 };
        debt -= debt_paid;
        part.points -= debt_paid;
        if part.points > 0 {
            lots.push(part);
        }
    }
    Event::RedemptionReversed {
        of: of.to_owned(),
        points: redemption.points,
        balance: state.balance() + sum(&lots),
        lots,
        debt_paid: state.debt - debt,
        reason: reason.to_owned(),
    }
}

fn reverse_earn(state: &State, of: &str, reason: &str, today: Date) -> Event {
    let lot = &state.lots[of];
    let points = lot.earned - lot.expired;
    let mut sources = vec![];
    if lot.left > 0 {
        sources.push(lot.part(of, lot.left));
    }
    sources.extend(state.good_lots(today).into_iter().filter(|part| part.source != of));
    let taken = first_points(sources, points);
    Event::EarnReversed {
        of: of.to_owned(),
        points,
        debt: points - sum(&taken),
        balance: state.balance() - sum(&taken),
        taken,
        reason: reason.to_owned(),
    }
}

fn adjust(state: &State, points: i64, reason: String, today: Date) -> Result<Vec<Event>, Rejection> {
    if points == 0 {
        return Err(Rejection::NothingToAdjust);
    }
    if !(-POINTS_MAX..=POINTS_MAX).contains(&points) {
        return Err(Rejection::TooManyPoints);
    }
    if reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    // An adjustment has no reference that would tell it from another.
    let again = Adjustment {
        on: today,
        points,
        reason: reason.clone(),
    };
    if state.last_adjustment == Some(again) {
        return Ok(vec![]);
    }
    let (lots, debt_paid) = if points > 0 {
        must_be_countable(state, points)?;
        let debt_paid = points.min(state.debt);
        let made = LotPoints {
            source: format!("{ADJUSTMENT}{}", state.adjustments + 1),
            points: points - debt_paid,
            expires_on: None,
        };
        let lots = if made.points > 0 { vec![made] } else { vec![] };
        (lots, debt_paid)
    } else {
        let available = state.available(today);
        if -points > available {
            return Err(Rejection::OnlyAvailable(available));
        }
        (first_points(state.good_lots(today), -points), 0)
    };
    Ok(vec![Event::Adjusted {
        points,
        lots,
        debt_paid,
        reason,
        on: today,
        balance: state.balance() + points - debt_paid,
    }])
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

/// The day in Taiwan, where points expire at midnight. It has had no other offset since 1979.
fn business_date(at: Timestamp) -> Date {
    Offset::constant(8).to_datetime(at).date()
}

fn is_zero(points: &i64) -> bool {
    *points == 0
}

#[cfg(test)]
mod specs {
    use std::any::Any;

    use jiff::ToSpan;
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::spec::{Given, folded, given, moment, neighbour};
    use crate::{Companions, slot_of};

    fn enrol() -> Command {
        Command::Enrol {
            customer: neighbour("a"),
            program: "gold".into(),
        }
    }

    fn enrolled() -> Event {
        Event::Enrolled {
            customer: neighbour("a"),
            program: "gold".into(),
        }
    }

    fn earn(points: i64, source: &str, expires_on: Option<Date>) -> Command {
        Command::Earn {
            points,
            source: source.into(),
            expires_on,
        }
    }

    fn earned(points: i64, source: &str, expires_on: Option<Date>, balance: i64) -> Event {
        Event::Earned {
            points,
            source: source.into(),
            expires_on,
            debt_paid: 0,
            balance,
        }
    }

    fn redeem(points: i64, reference: &str) -> Command {
        Command::Redeem {
            points,
            reference: reference.into(),
        }
    }

    fn redeemed(points: i64, reference: &str, lots: Vec<LotPoints>, balance: i64) -> Event {
        Event::Redeemed {
            points,
            reference: reference.into(),
            lots,
            balance,
        }
    }

    fn reverse(of: &str) -> Command {
        Command::Reverse {
            of: of.into(),
            reason: "returned".into(),
        }
    }

    fn earn_reversed(of: &str, taken: Vec<LotPoints>, debt: i64, balance: i64) -> Event {
        Event::EarnReversed {
            of: of.into(),
            points: sum(&taken) + debt,
            taken,
            debt,
            reason: "returned".into(),
            balance,
        }
    }

    fn redemption_reversed(of: &str, lots: Vec<LotPoints>, debt_paid: i64, balance: i64) -> Event {
        Event::RedemptionReversed {
            of: of.into(),
            points: sum(&lots) + debt_paid,
            lots,
            debt_paid,
            reason: "returned".into(),
            balance,
        }
    }

    fn adjust(points: i64) -> Command {
        Command::Adjust {
            points,
            reason: "goodwill".into(),
        }
    }

    fn lot(source: &str, points: i64) -> LotPoints {
        LotPoints {
            source: source.into(),
            points,
            expires_on: None,
        }
    }

    fn lot_until(source: &str, points: i64, expires_on: Date) -> LotPoints {
        LotPoints {
            source: source.into(),
            points,
            expires_on: Some(expires_on),
        }
    }

    fn active() -> customer::State {
        customer::State {
            status: customer::Status::Active,
            ..Default::default()
        }
    }

    /// 100 points from receipt R1, all spent on a voucher.
    fn spent() -> Vec<Event> {
        vec![
            enrolled(),
            earned(100, "R1", None, 100),
            redeemed(100, "voucher", vec![lot("R1", 100)], 0),
        ]
    }

    fn after(events: impl IntoIterator<Item = Event>) -> Given<Loyalty> {
        given::<Loyalty>(events)
    }

    #[test]
    fn a_customer_has_one_account_per_program_in_the_slot_of_the_customer() {
        let home = Loyalty::home(&enrol());
        let Home::Exactly(id) = home else {
            panic!("customer and program are a key")
        };
        assert_eq!(slot_of(id), neighbour::<Customer>("a").slot());
        assert_eq!(Loyalty::home(&enrol()), home);
        let silver = Command::Enrol {
            customer: neighbour("a"),
            program: "silver".into(),
        };
        assert_ne!(Loyalty::home(&silver), home);
        after([enrolled()])
            .when(silver)
            .then_rejected(Rejection::AlreadyEnrolled);
    }

    #[test]
    fn a_customer_that_is_open_is_enrolled() {
        let customer = neighbour::<Customer>("a");
        after([]).with(customer, active()).when(enrol()).then([enrolled()]);
        after([])
            .when(enrol())
            .then_rejected(customer::Unavailable::NotRegistered(customer).into());
        after([])
            .when(earn(1, "R1", None))
            .then_rejected(Rejection::NotEnrolled);
    }

    #[test]
    fn a_source_earns_once() {
        after([enrolled()])
            .when(earn(100, "R1", None))
            .then([earned(100, "R1", None, 100)]);
        after([enrolled(), earned(100, "R1", None, 100)])
            .when(earn(100, "R1", None))
            .then_nothing();
        after([enrolled(), earned(100, "R1", None, 100)])
            .when(earn(90, "R1", None))
            .then_rejected(Rejection::EarnedOtherwise {
                source_name: "R1".into(),
                points: 100,
            });
    }

    #[test]
    fn negative_and_absurd_points_are_refused() {
        let account = || after([enrolled(), earned(100, "R1", None, 100)]);
        for points in [0, -1, i64::MIN] {
            account()
                .when(earn(points, "R2", None))
                .then_rejected(Rejection::NotPositive);
            account()
                .when(redeem(points, "voucher"))
                .then_rejected(Rejection::NotPositive);
        }
        for points in [POINTS_MAX + 1, i64::MAX] {
            account()
                .when(earn(points, "R2", None))
                .then_rejected(Rejection::TooManyPoints);
            account()
                .when(redeem(points, "voucher"))
                .then_rejected(Rejection::TooManyPoints);
            account().when(adjust(points)).then_rejected(Rejection::TooManyPoints);
        }
        account().when(adjust(i64::MIN)).then_rejected(Rejection::TooManyPoints);
        account().when(adjust(0)).then_rejected(Rejection::NothingToAdjust);
    }

    #[test]
    fn an_account_is_given_no_more_points_than_can_be_counted() {
        let full = earned(i64::MAX, "R1", None, i64::MAX);
        after([enrolled(), full.clone()])
            .when(earn(1, "R2", None))
            .then_rejected(Rejection::AccountFull);
        after([enrolled(), full])
            .when(adjust(1))
            .then_rejected(Rejection::AccountFull);
    }

    #[test]
    fn points_are_spent_nearest_expiry_first_then_oldest_and_those_without_expiry_last() {
        let (may, june) = (date(2026, 5, 1), date(2026, 6, 1));
        after([
            enrolled(),
            earned(10, "for ever", None, 10),
            earned(10, "june, older", Some(june), 20),
            earned(10, "a june, younger", Some(june), 30),
            earned(10, "may", Some(may), 40),
        ])
        .when(redeem(35, "voucher"))
        .then([redeemed(
            35,
            "voucher",
            vec![
                lot_until("may", 10, may),
                lot_until("june, older", 10, june),
                lot_until("a june, younger", 10, june),
                lot("for ever", 5),
            ],
            5,
        )]);
    }

    #[test]
    fn no_more_is_redeemed_than_is_there() {
        after([enrolled(), earned(100, "R1", None, 100)])
            .when(redeem(101, "voucher"))
            .then_rejected(Rejection::OnlyAvailable(100));
    }

    #[test]
    fn points_are_no_longer_good_from_the_day_on_which_they_expire_in_taiwan() {
        let account = || after([enrolled(), earned(100, "R1", Some(date(2026, 5, 1)), 100)]);
        account()
            .effective("2026-04-30T15:59:59Z")
            .when(redeem(100, "voucher"))
            .then([redeemed(
                100,
                "voucher",
                vec![lot_until("R1", 100, date(2026, 5, 1))],
                0,
            )]);
        account()
            .effective("2026-04-30T16:00:00Z")
            .when(redeem(100, "voucher"))
            .then_rejected(Rejection::OnlyAvailable(0));
    }

    #[test]
    fn what_is_no_longer_good_is_taken_out_once() {
        let (may, june) = (date(2026, 5, 1), date(2026, 6, 1));
        let expired = Event::Expired {
            on: may,
            points: 10,
            lots: vec![lot_until("may", 10, may)],
            balance: 20,
        };
        let account = [
            enrolled(),
            earned(10, "may", Some(may), 10),
            earned(10, "june", Some(june), 20),
            earned(10, "for ever", None, 30),
        ];
        after(account.clone())
            .when(Command::Expire { on: may })
            .then([expired.clone()]);
        after(account.into_iter().chain([expired]))
            .when(Command::Expire { on: may })
            .then_nothing();
    }

    #[test]
    fn the_same_redemption_is_paid_once() {
        after(spent()).when(redeem(100, "voucher")).then_nothing();
        after(spent())
            .when(redeem(50, "voucher"))
            .then_rejected(Rejection::RedeemedOtherwise {
                reference: "voucher".into(),
                points: 100,
            });
    }

    #[test]
    fn a_reversed_redemption_is_not_redeemed_again_under_its_reference() {
        let mut events = spent();
        events.push(redemption_reversed("voucher", vec![lot("R1", 100)], 0, 100));
        after(events)
            .when(redeem(100, "voucher"))
            .then_rejected(Rejection::RedemptionReversed("voucher".into()));
    }

    #[test]
    fn reversing_a_redemption_puts_the_points_back_into_the_same_lots() {
        let may = date(2026, 5, 1);
        let events = [
            enrolled(),
            earned(10, "may", Some(may), 10),
            earned(10, "for ever", None, 20),
            redeemed(15, "voucher", vec![lot_until("may", 10, may), lot("for ever", 5)], 5),
        ];
        let before = folded::<Loyalty>(&events[..3]);
        let reversed = redemption_reversed("voucher", vec![lot_until("may", 10, may), lot("for ever", 5)], 0, 20);
        after(events.clone()).when(reverse("voucher")).then([reversed.clone()]);
        let state = folded::<Loyalty>(events.iter().chain([&reversed]));
        assert_eq!(state.lots, before.lots);
    }

    #[test]
    fn reversing_an_earn_takes_its_points_then_those_of_other_lots() {
        after([
            enrolled(),
            earned(100, "R1", None, 100),
            redeemed(60, "voucher", vec![lot("R1", 60)], 40),
            earned(100, "R2", None, 140),
        ])
        .when(reverse("R1"))
        .then([earn_reversed("R1", vec![lot("R1", 40), lot("R2", 60)], 0, 40)]);
    }

    #[test]
    fn reversing_an_earn_that_is_spent_makes_a_debt_that_later_points_pay_off_first() {
        let reversed = earn_reversed("R1", vec![], 100, 0);
        after(spent()).when(reverse("R1")).then([reversed.clone()]);
        let mut events = spent();
        events.push(reversed);
        after(events.clone()).when(earn(130, "R2", None)).then([Event::Earned {
            points: 130,
            source: "R2".into(),
            expires_on: None,
            debt_paid: 100,
            balance: 30,
        }]);
        after(events.clone()).when(adjust(40)).then([Event::Adjusted {
            points: 40,
            lots: vec![],
            debt_paid: 40,
            reason: "goodwill".into(),
            on: date(2026, 3, 2),
            balance: 0,
        }]);
        after(events)
            .when(reverse("voucher"))
            .then([redemption_reversed("voucher", vec![], 100, 0)]);
    }

    #[test]
    fn points_of_a_reversed_earn_pay_its_debt_when_they_come_back() {
        let may = date(2026, 5, 1);
        let spent_with = |expires_on: Option<Date>| {
            let r1 = LotPoints {
                expires_on,
                ..lot("R1", 50)
            };
            after([
                enrolled(),
                earned(50, "R0", Some(may), 50),
                earned(50, "R1", expires_on, 100),
                redeemed(100, "voucher", vec![lot_until("R0", 50, may), r1], 0),
                earn_reversed("R1", vec![], 50, 0),
            ])
        };
        let reversed = redemption_reversed("voucher", vec![lot_until("R0", 50, may)], 50, 50);
        spent_with(None).when(reverse("voucher")).then([reversed.clone()]);
        // Also when they would be no longer good by now.
        spent_with(Some(date(2026, 2, 1)))
            .when(reverse("voucher"))
            .then([reversed]);
    }

    #[test]
    fn points_that_are_no_longer_good_pay_no_debt() {
        let february = date(2026, 2, 1);
        after([
            enrolled(),
            earned(50, "R0", Some(february), 50),
            redeemed(50, "voucher", vec![lot_until("R0", 50, february)], 0),
            earned(50, "R1", None, 50),
            redeemed(50, "gift", vec![lot("R1", 50)], 0),
            earn_reversed("R1", vec![], 50, 0),
        ])
        .when(reverse("voucher"))
        .then([redemption_reversed(
            "voucher",
            vec![lot_until("R0", 50, february)],
            0,
            50,
        )]);
    }

    #[test]
    fn who_owes_points_cannot_spend_them_at_an_earlier_time() {
        let may = date(2026, 5, 1);
        let mut events = spent();
        events.push(earned(100, "R2", Some(may), 100));
        // Reversed in June, when the points of R2 were no longer good.
        events.push(earn_reversed("R1", vec![], 100, 100));
        after(events)
            .effective("2026-04-01T09:00:00+08:00")
            .when(redeem(10, "gift"))
            .then_rejected(Rejection::OnlyAvailable(0));
    }

    #[test]
    fn reversing_an_earn_that_has_expired_makes_no_debt() {
        let may = date(2026, 5, 1);
        after([
            enrolled(),
            earned(100, "R1", Some(may), 100),
            redeemed(30, "voucher", vec![lot_until("R1", 30, may)], 70),
            Event::Expired {
                on: may,
                points: 70,
                lots: vec![lot_until("R1", 70, may)],
                balance: 0,
            },
        ])
        .when(reverse("R1"))
        .then([earn_reversed("R1", vec![], 30, 0)]);
    }

    #[test]
    fn reversing_a_receipt_that_redeemed_and_earned_takes_both_back() {
        after([
            enrolled(),
            earned(100, "R1", None, 100),
            redeemed(80, "R2", vec![lot("R1", 80)], 20),
            earned(10, "R2", None, 30),
        ])
        .when(reverse("R2"))
        .then([
            redemption_reversed("R2", vec![lot("R1", 80)], 0, 110),
            earn_reversed("R2", vec![lot("R2", 10)], 0, 100),
        ]);
    }

    #[test]
    fn only_what_was_earned_or_redeemed_is_reversed() {
        let adjusted = Event::Adjusted {
            points: 10,
            lots: vec![lot("adjustment:1", 10)],
            debt_paid: 0,
            reason: "goodwill".into(),
            on: date(2026, 3, 2),
            balance: 10,
        };
        for of in ["R9", "adjustment:1"] {
            after([enrolled(), adjusted.clone()])
                .when(reverse(of))
                .then_rejected(Rejection::UnknownReference(of.into()));
        }
    }

    #[test]
    fn an_adjustment_makes_a_lot_or_takes_what_is_there() {
        let adjusted = |points, lots, balance| Event::Adjusted {
            points,
            lots,
            debt_paid: 0,
            reason: "goodwill".into(),
            on: date(2026, 3, 2),
            balance,
        };
        let account = || after([enrolled(), earned(100, "R1", None, 100)]);
        account()
            .when(adjust(20))
            .then([adjusted(20, vec![lot("adjustment:1", 20)], 120)]);
        account()
            .when(adjust(-20))
            .then([adjusted(-20, vec![lot("R1", 20)], 80)]);
        account()
            .when(adjust(-101))
            .then_rejected(Rejection::OnlyAvailable(100));
        account()
            .when(earn(5, "adjustment:1", None))
            .then_rejected(Rejection::SourceReserved);
    }

    #[test]
    fn a_redemption_names_what_it_is_for_in_json() {
        let command: Command =
            crate::command_from_json(serde_json::json!({"type": "redeem", "points": 5, "for": "voucher"})).unwrap();
        assert!(matches!(command, Command::Redeem { points: 5, reference } if reference == "voucher"));
        let (kind, body) = crate::encode_event::<Loyalty>(&redeemed(5, "voucher", vec![lot("R1", 5)], 0));
        assert_eq!(kind.to_string(), "crm.loyalty.redeemed.v1");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"points":5,"for":"voucher","lots":[{"source":"R1","points":5}],"balance":0}"#
        );
    }

    #[test]
    fn the_same_intent_twice_gives_nothing_the_second_time() {
        given::<Loyalty>([])
            .with(neighbour::<Customer>("a"), active())
            .same_intent_twice(enrol());
        let intents = [
            earn(10, "R2", None),
            redeem(10, "voucher"),
            Command::Expire { on: date(2026, 5, 1) },
            reverse("R1"),
            adjust(10),
            adjust(-10),
        ];
        for intent in intents {
            after([enrolled(), earned(100, "R1", Some(date(2026, 5, 1)), 100)]).same_intent_twice(intent);
        }
        after(spent()).same_intent_twice(reverse("voucher"));
    }

    struct Nobody;

    impl Companions for Nobody {
        fn find(&self, _: StreamRef) -> Option<&dyn Any> {
            None
        }
    }

    fn day() -> impl Strategy<Value = Date> {
        (0..120_i64).prop_map(|days| date(2026, 1, 1) + days.days())
    }

    /// Few sources and references, some the same, so that commands meet.
    fn any_command() -> impl Strategy<Value = Command> {
        let source = "[RS][1-4]";
        let reference = "[RV][1-4]";
        prop_oneof![
            4 => (-1..50_i64, source, proptest::option::of(day()))
                .prop_map(|(points, source, expires_on)| Command::Earn { points, source, expires_on }),
            4 => (-1..60_i64, reference).prop_map(|(points, reference)| Command::Redeem { points, reference }),
            1 => day().prop_map(|on| Command::Expire { on }),
            3 => "[RSV][1-4]".prop_map(|of| Command::Reverse { of, reason: "returned".into() }),
            1 => (-30..30_i64).prop_map(|points| Command::Adjust { points, reason: "goodwill".into() }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn points_are_never_below_zero_never_lost_and_never_spent_when_no_longer_good(
            steps in proptest::collection::vec((day(), any_command()), 1..60),
        ) {
            let mut state = Loyalty::evolve(State::default(), &enrolled(), Timestamp::UNIX_EPOCH);
            let (mut balance, mut debt) = (0, 0);
            for (today, command) in steps {
                let noon = moment(&format!("{today}T12:00:00+08:00"));
                let at = Moment::new(Uuid::nil(), noon, noon, &Nobody);
                let Ok(events) = Loyalty::decide(&state, command.clone(), &at) else {
                    continue;
                };
                for event in &events {
                    balance += event.delta();
                    debt += event.debt_delta();
                    state = Loyalty::evolve(state, event, noon);
                    prop_assert_eq!(state.balance(), balance);
                    prop_assert_eq!(state.debt, debt);
                    prop_assert!(debt >= 0);
                    prop_assert!(state.lots.values().all(|lot| (0..=lot.earned).contains(&lot.left)));
                    check_parts(event, balance, today)?;
                }
                let again = Loyalty::decide(&state, command, &at);
                prop_assert_eq!(again, Ok(vec![]));
            }
        }

        /// In the order of time nobody has points to spend while points are owed.
        #[test]
        fn debt_is_paid_before_anything_is_available(
            steps in proptest::collection::vec((0..4_i64, any_command()), 1..60),
        ) {
            let mut state = Loyalty::evolve(State::default(), &enrolled(), Timestamp::UNIX_EPOCH);
            let mut today = date(2026, 1, 1);
            for (days, command) in steps {
                today += days.days();
                let noon = moment(&format!("{today}T12:00:00+08:00"));
                let at = Moment::new(Uuid::nil(), noon, noon, &Nobody);
                for event in Loyalty::decide(&state, command, &at).unwrap_or_default() {
                    state = Loyalty::evolve(state, &event, noon);
                }
                prop_assert!(state.debt == 0 || state.good_lots(today).is_empty());
            }
        }
    }

    /// The event tells the balance, its parts add up, and nothing that is no longer good was spent.
    fn check_parts(event: &Event, balance_now: i64, today: Date) -> Result<(), TestCaseError> {
        let is_good = |part: &LotPoints| part.expires_on.is_none_or(|expires_on| expires_on > today);
        let told = match event {
            Event::Enrolled { .. } => balance_now,
            Event::Earned { balance, .. } => *balance,
            Event::Redeemed {
                points, lots, balance, ..
            } => {
                prop_assert_eq!(sum(lots), *points);
                prop_assert!(lots.iter().all(is_good));
                *balance
            }
            Event::Expired {
                points, lots, balance, ..
            } => {
                prop_assert_eq!(sum(lots), *points);
                *balance
            }
            Event::EarnReversed {
                points,
                taken,
                debt,
                balance,
                ..
            } => {
                prop_assert_eq!(sum(taken) + debt, *points);
                *balance
            }
            Event::RedemptionReversed {
                points,
                lots,
                debt_paid,
                balance,
                ..
            } => {
                prop_assert_eq!(sum(lots) + debt_paid, *points);
                *balance
            }
            Event::Adjusted {
                points,
                lots,
                debt_paid,
                balance,
                ..
            } => {
                prop_assert_eq!(sum(lots) + debt_paid, points.abs());
                prop_assert!(*points > 0 || lots.iter().all(is_good));
                *balance
            }
        };
        prop_assert_eq!(told, balance_now);
        Ok(())
    }
}
