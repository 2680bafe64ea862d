//! Points that are taken back because what earned them came back, and points that are given back because what they were spent for did.

use std::collections::BTreeMap;

use jiff::civil::Date;

use super::{
    ADJUSTMENT, Event, Loyalty, Movement, Rejection, State, What, When, first_points, is_repeated, must_be_points,
    must_not_be_empty, sum,
};
use crate::Stream;

/// `Command::Reverse`.
pub(super) struct Reversal {
    pub of: String,
    pub points: Option<i64>,
    pub what: Option<What>,
    pub reference: Option<String>,
    pub reason: String,
}

impl Reversal {
    /// How many points this command reverses when so many are `left`, and these were reversed before it.
    fn points_of(&self, what: What, left: i64, before: &BTreeMap<String, Movement>) -> Result<i64, Rejection> {
        if is_repeated(before, self.reference.as_deref(), self.points, &self.reason)? {
            return Ok(0);
        }
        match self.points {
            Some(points) if points > left => Err(Rejection::OnlyLeft {
                of: self.of.clone(),
                what,
                left,
            }),
            points => Ok(points.unwrap_or(left)),
        }
    }
}

/// One receipt may have both redeemed points and earned some. The redemption goes back first, so that its points are there
/// when the earned ones are taken.
pub(super) fn reverse(state: &State, reversal: &Reversal, mut when: When<'_>) -> Result<Vec<Event>, Rejection> {
    let of = &reversal.of;
    if reversal.reason.trim().is_empty() {
        return Err(Rejection::ReasonMissing);
    }
    must_not_be_empty(&reversal.reference)?;
    reversal.points.map_or(Ok(()), must_be_points)?;
    let is_redeemed = state.redemptions.contains_key(of);
    let is_earned = state.lots.contains_key(of) && !of.starts_with(ADJUSTMENT);
    match reversal.what {
        _ if !is_redeemed && !is_earned => return Err(Rejection::UnknownReference(of.clone())),
        None if is_redeemed && is_earned && reversal.points.is_some() => {
            return Err(Rejection::WhichPoints(of.clone()));
        }
        Some(what @ What::Earned) if !is_earned => return Err(Rejection::NothingOf { of: of.clone(), what }),
        Some(what @ What::Redeemed) if !is_redeemed => return Err(Rejection::NothingOf { of: of.clone(), what }),
        None | Some(_) => {}
    }
    let mut state = state.clone();
    let mut events = vec![];
    if is_redeemed && reversal.what != Some(What::Earned) {
        let redemption = &state.redemptions[of];
        let points = reversal.points_of(What::Redeemed, redemption.left(), &redemption.reversals)?;
        if points > 0 {
            when = when.not_before(redemption.at);
            let event = reverse_redemption(&state, reversal, points, when.today());
            state = Loyalty::evolve(state, &event, when.at);
            events.push(event);
        }
    }
    if is_earned && reversal.what != Some(What::Redeemed) {
        let lot = &state.lots[of];
        let points = reversal.points_of(What::Earned, lot.left_to_reverse(), &lot.reversals)?;
        if points > 0 {
            events.push(reverse_earn(&state, reversal, points, when.not_before(lot.since)));
        }
    }
    Ok(events)
}

fn reverse_redemption(state: &State, reversal: &Reversal, points: i64, today: Date) -> Event {
    // Points of an earn that was reversed pay first: while they were spent, its reversal was made good by other points
    // or became a debt.
    let mut parts = state.redemptions[&reversal.of].last_points(points);
    parts.sort_by_key(|part| state.lots[&part.source].reversed == 0);
    let mut debt = state.debt;
    let mut lots = vec![];
    for mut part in parts {
        let lot = &state.lots[&part.source];
        // What is no longer good pays no debt: had it not been spent, it would have expired.
        let can_pay = if lot.is_expired(today) {
            lot.reversed
        } else {
            part.points
        };
        let debt_paid = part.points.min(can_pay).min(debt);
        debt -= debt_paid;
        part.points -= debt_paid;
        if part.points > 0 {
            lots.push(part);
        }
    }
    Event::RedemptionReversed {
        of: reversal.of.clone(),
        reference: reversal.reference.clone(),
        points,
        balance: state.balance() + sum(&lots),
        lots,
        debt_paid: state.debt - debt,
        reason: reversal.reason.clone(),
    }
}

fn reverse_earn(state: &State, reversal: &Reversal, points: i64, when: When<'_>) -> Event {
    let of = &reversal.of;
    let lot = &state.lots[of];
    let mut sources = vec![];
    if lot.left > 0 {
        sources.push(lot.part(of, lot.left));
    }
    let others = |when| {
        let good = state.good_lots(when).into_iter();
        good.filter(|part| part.source != *of).collect::<Vec<_>>()
    };
    let (when, _) = state.when_there(points - lot.left, when, |when| sum(&others(when)));
    sources.extend(others(when));
    let taken = first_points(sources, points);
    Event::EarnReversed {
        of: of.clone(),
        reference: reversal.reference.clone(),
        points,
        debt: points - sum(&taken),
        balance: state.balance() - sum(&taken),
        taken,
        reason: reversal.reason.clone(),
    }
}
