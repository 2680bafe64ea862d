use std::any::Any;

use jiff::ToSpan;
use jiff::civil::date;
use proptest::prelude::*;

use super::*;
use crate::spec::{Given, folded, given, moment, neighbour};
use crate::{Calendar, Companions, slot_of};

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
        points: None,
        what: None,
        reference: None,
        reason: "returned".into(),
    }
}

/// Take back so many of them, under a reference or without one.
fn reverse_part(of: &str, points: i64, reference: Option<&str>) -> Command {
    Command::Reverse {
        of: of.into(),
        points: Some(points),
        what: None,
        reference: reference.map(str::to_owned),
        reason: "returned".into(),
    }
}

fn earn_reversed(of: &str, taken: Vec<LotPoints>, debt: i64, balance: i64) -> Event {
    Event::EarnReversed {
        of: of.into(),
        reference: None,
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
        reference: None,
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
        reference: None,
        shortfall: Shortfall::Refused,
        reason: "goodwill".into(),
    }
}

fn adjust_under(points: i64, reference: &str, reason: &str) -> Command {
    Command::Adjust {
        points,
        reference: Some(reference.into()),
        shortfall: Shortfall::Refused,
        reason: reason.into(),
    }
}

/// The same event, under a reference.
fn under(reference: &str, mut event: Event) -> Event {
    let place = match &mut event {
        Event::EarnReversed { reference, .. }
        | Event::RedemptionReversed { reference, .. }
        | Event::Adjusted { reference, .. } => reference,
        _ => unreachable!("only reversals and adjustments have a reference"),
    };
    *place = Some(reference.into());
    event
}

fn adjusted(points: i64, lots: Vec<LotPoints>, balance: i64) -> Event {
    Event::Adjusted {
        reference: None,
        points,
        lots,
        debt_paid: 0,
        debt: 0,
        reason: "goodwill".into(),
        on: date(2026, 3, 2),
        balance,
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
    customer::Card {
        status: customer::Status::Active,
        ..Default::default()
    }
    .into()
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
        .then_rejected(Rejection::AlreadyEnrolled(Differing(vec!["program".into()])));
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
            expires_on: None,
        });
    let may = date(2026, 5, 1);
    after([enrolled(), earned(100, "R1", Some(may), 100)])
        .when(earn(100, "R1", None))
        .then_rejected(Rejection::EarnedOtherwise {
            source_name: "R1".into(),
            points: 100,
            expires_on: Some(may),
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
    let on_the_day = |events: Vec<Event>| after(events).effective("2026-05-01T09:00:00+08:00");
    on_the_day(account.to_vec())
        .when(Command::Expire { on: may })
        .then([expired.clone()]);
    on_the_day([&account[..], &[expired]].concat())
        .when(Command::Expire { on: may })
        .then_nothing();
}

#[test]
fn nothing_expires_on_a_day_that_is_still_to_come() {
    let (may, today) = (date(2026, 5, 1), date(2026, 3, 2));
    let account = || after([enrolled(), earned(100, "R1", Some(may), 100)]);
    account()
        .when(Command::Expire { on: may })
        .then_rejected(Rejection::StillToCome { on: may, today });
    // The day is that of the command: it may be entered late, and midnight is that of the company.
    account()
        .at("2026-06-01T09:00:00+08:00")
        .effective("2026-03-02T09:00:00+08:00")
        .when(Command::Expire { on: may })
        .then_rejected(Rejection::StillToCome { on: may, today });
    account()
        .effective("2026-04-30T15:59:59Z")
        .when(Command::Expire { on: may })
        .then_rejected(Rejection::StillToCome {
            on: may,
            today: date(2026, 4, 30),
        });
    account()
        .effective("2026-04-30T16:00:00Z")
        .when(Command::Expire { on: may })
        .then([Event::Expired {
            on: may,
            points: 100,
            lots: vec![lot_until("R1", 100, may)],
            balance: 0,
        }]);
    // On the first of May 18 hours later.
    let evening = || {
        account()
            .in_zone("America/Los_Angeles")
            .effective("2026-05-01T06:59:59Z")
    };
    evening()
        .when(Command::Expire { on: may })
        .then_rejected(Rejection::StillToCome {
            on: may,
            today: date(2026, 4, 30),
        });
    let morning = || {
        account()
            .in_zone("America/Los_Angeles")
            .effective("2026-05-01T07:00:00Z")
    };
    assert_eq!(
        morning().decide(Command::Expire { on: may }).map(|events| events.len()),
        Ok(1)
    );
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
        reference: None,
        points: 40,
        lots: vec![],
        debt_paid: 40,
        debt: 0,
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
    let adjusted = adjusted(10, vec![lot("adjustment:1", 10)], 10);
    for of in ["R9", "adjustment:1"] {
        after([enrolled(), adjusted.clone()])
            .when(reverse(of))
            .then_rejected(Rejection::UnknownReference(of.into()));
    }
}

#[test]
fn an_adjustment_makes_a_lot_or_takes_what_is_there() {
    let account = || after([enrolled(), earned(100, "R1", None, 100)]);
    account()
        .when(adjust(20))
        .then([adjusted(20, vec![lot("adjustment:1", 20)], 120)]);
    account()
        .when(adjust(-20))
        .then([adjusted(-20, vec![lot("R1", 20)], 80)]);
    account().when(adjust(-101)).then_rejected(Rejection::OnlyThere(100));
    account()
        .when(earn(5, "adjustment:1", None))
        .then_rejected(Rejection::SourceReserved);
}

#[test]
fn two_adjustments_without_a_reference_are_two() {
    let once = adjusted(-10, vec![lot("R1", 10)], 90);
    let events = [enrolled(), earned(100, "R1", None, 100), once];
    after(events)
        .when(adjust(-10))
        .then([adjusted(-10, vec![lot("R1", 10)], 80)]);
}

#[test]
fn an_adjustment_counts_once_for_its_reference() {
    let account = [enrolled(), earned(100, "R1", None, 100)];
    let first = under("return 7", adjusted(-10, vec![lot("R1", 10)], 90));
    after(account.clone())
        .when(adjust_under(-10, "return 7", "goodwill"))
        .then([first.clone()]);
    // Also after others.
    let account = [&account[..], &[first, adjusted(-10, vec![lot("R1", 10)], 80)]].concat();
    after(account.clone())
        .when(adjust_under(-10, "return 7", "goodwill"))
        .then_nothing();
    after(account.clone())
        .when(adjust_under(-10, "return 8", "goodwill"))
        .then([under("return 8", adjusted(-10, vec![lot("R1", 10)], 70))]);
    for (points, reason, differing) in [
        (-20, "goodwill", "points"),
        (-10, "returned", "reason"),
        (-20, "returned", "points and reason"),
    ] {
        after(account.clone())
            .when(adjust_under(points, "return 7", reason))
            .then_rejected(Rejection::ReferenceUsed {
                reference: "return 7".into(),
                differing,
            });
    }
    after(account)
        .when(adjust_under(-10, " ", "goodwill"))
        .then_rejected(Rejection::ReferenceEmpty);
}

#[test]
fn an_adjustment_of_what_is_spent_is_a_debt_when_it_says_so() {
    let adjust = |shortfall| Command::Adjust {
        points: -130,
        reference: None,
        shortfall,
        reason: "goodwill".into(),
    };
    let mut events = spent();
    events.push(earned(50, "R2", None, 50));
    after(events.clone())
        .when(adjust(Shortfall::Refused))
        .then_rejected(Rejection::OnlyThere(50));
    after(events).when(adjust(Shortfall::Debt)).then([Event::Adjusted {
        reference: None,
        points: -130,
        lots: vec![lot("R2", 50)],
        debt_paid: 0,
        debt: 80,
        reason: "goodwill".into(),
        on: date(2026, 3, 2),
        balance: 0,
    }]);
}

#[test]
fn a_part_of_what_was_earned_is_taken_back_though_it_is_spent() {
    let first = under("return 1", earn_reversed("R1", vec![], 30, 0));
    after(spent())
        .when(reverse_part("R1", 30, Some("return 1")))
        .then([first.clone()]);
    let mut events = spent();
    events.push(first);
    let again = |command| after(events.clone()).when(command);
    again(reverse_part("R1", 30, Some("return 1"))).then_nothing();
    again(reverse_part("R1", 20, Some("return 1"))).then_rejected(Rejection::ReferenceUsed {
        reference: "return 1".into(),
        differing: "points",
    });
    again(reverse_part("R1", 30, Some("return 2"))).then([under("return 2", earn_reversed("R1", vec![], 30, 0))]);
    again(reverse_part("R1", 30, None)).then([earn_reversed("R1", vec![], 30, 0)]);
    again(reverse_part("R1", 71, None)).then_rejected(Rejection::OnlyLeft {
        of: "R1".into(),
        what: What::Earned,
        left: 70,
    });
    // The rest.
    again(reverse("R1")).then([earn_reversed("R1", vec![], 70, 0)]);
    events.push(earn_reversed("R1", vec![], 70, 0));
    after(events).when(reverse("R1")).then_nothing();
}

#[test]
fn what_has_expired_of_an_earn_is_not_taken_back_again() {
    let may = date(2026, 5, 1);
    let account = [
        enrolled(),
        earned(100, "R1", Some(may), 100),
        redeemed(30, "voucher", vec![lot_until("R1", 30, may)], 70),
        earn_reversed("R1", vec![lot_until("R1", 20, may)], 0, 50),
        Event::Expired {
            on: may,
            points: 50,
            lots: vec![lot_until("R1", 50, may)],
            balance: 0,
        },
    ];
    after(account.clone())
        .when(reverse_part("R1", 31, None))
        .then_rejected(Rejection::OnlyLeft {
            of: "R1".into(),
            what: What::Earned,
            left: 30,
        });
    after(account)
        .when(reverse("R1"))
        .then([earn_reversed("R1", vec![], 30, 0)]);
}

#[test]
fn a_part_of_a_redemption_comes_back_and_what_was_spent_last_comes_first() {
    let may = date(2026, 5, 1);
    let mut events = vec![
        enrolled(),
        earned(10, "may", Some(may), 10),
        earned(10, "for ever", None, 20),
        redeemed(15, "coffees", vec![lot_until("may", 10, may), lot("for ever", 5)], 5),
    ];
    let first = redemption_reversed("coffees", vec![lot_until("may", 2, may), lot("for ever", 5)], 0, 12);
    after(events.clone())
        .when(reverse_part("coffees", 7, None))
        .then([first.clone()]);
    events.push(first);
    after(events.clone())
        .when(reverse_part("coffees", 9, None))
        .then_rejected(Rejection::OnlyLeft {
            of: "coffees".into(),
            what: What::Redeemed,
            left: 8,
        });
    // The part that is spent is spent once.
    after(events.clone()).when(redeem(15, "coffees")).then_nothing();
    let rest = redemption_reversed("coffees", vec![lot_until("may", 8, may)], 0, 20);
    after(events.clone()).when(reverse("coffees")).then([rest.clone()]);
    events.push(rest);
    after(events)
        .when(redeem(15, "coffees"))
        .then_rejected(Rejection::RedemptionReversed("coffees".into()));
}

#[test]
fn a_part_of_a_receipt_that_redeemed_and_earned_says_which_points_come_back() {
    let events = [
        enrolled(),
        earned(100, "R1", None, 100),
        redeemed(80, "R2", vec![lot("R1", 80)], 20),
        earned(10, "R2", None, 30),
    ];
    let part = |of: &str, what| Command::Reverse {
        of: of.into(),
        points: Some(5),
        what,
        reference: None,
        reason: "returned".into(),
    };
    let when = |command| after(events.clone()).when(command);
    when(part("R2", None)).then_rejected(Rejection::WhichPoints("R2".into()));
    when(part("R2", Some(What::Earned))).then([earn_reversed("R2", vec![lot("R2", 5)], 0, 25)]);
    when(part("R2", Some(What::Redeemed))).then([redemption_reversed("R2", vec![lot("R1", 5)], 0, 35)]);
    when(part("R1", Some(What::Redeemed))).then_rejected(Rejection::NothingOf {
        of: "R1".into(),
        what: What::Redeemed,
    });
}

#[test]
fn commands_of_before_there_were_references_are_still_read() {
    let command = |json| crate::command_from_json::<Command>(json).unwrap();
    assert!(matches!(
        command(serde_json::json!({"type": "adjust", "points": -5, "reason": "r"})),
        Command::Adjust {
            points: -5,
            reference: None,
            shortfall: Shortfall::Refused,
            ..
        }
    ));
    assert!(matches!(
        command(serde_json::json!({"type": "reverse", "of": "R1", "reason": "r"})),
        Command::Reverse {
            points: None,
            what: None,
            reference: None,
            ..
        }
    ));
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
        reverse("R1"),
        reverse_part("R1", 10, Some("return")),
        adjust_under(10, "ticket", "goodwill"),
        adjust_under(-10, "return", "goodwill"),
    ];
    let account = || after([enrolled(), earned(100, "R1", Some(date(2026, 5, 1)), 100)]);
    for intent in intents {
        account().same_intent_twice(intent);
    }
    let expire = Command::Expire { on: date(2026, 5, 1) };
    account()
        .effective("2026-05-01T09:00:00+08:00")
        .same_intent_twice(expire);
    after(spent()).same_intent_twice(reverse("voucher"));
}

const FIRST: &str = "2026-03-01T09:00:00+08:00";
const TENTH: &str = "2026-03-10T09:00:00+08:00";

/// What `command` comes to when it is recorded on the 20th and says that it is true since the first.
fn on_the_first(events: Vec<(&'static str, Event)>, command: Command) -> Result<Vec<Event>, Rejection> {
    let account = crate::spec::given_at::<Loyalty>(events);
    account.at("2026-03-20T09:00:00+08:00").effective(FIRST).decide(command)
}

#[test]
fn points_are_not_spent_before_they_were_earned() {
    let (eighth, fifteenth) = (date(2026, 3, 8), date(2026, 3, 15));
    let account = |expires_on| {
        vec![
            (FIRST, enrolled()),
            (FIRST, earned(40, "R1", None, 40)),
            (TENTH, earned(60, "R2", expires_on, 100)),
        ]
    };
    // Those that were there by then come first, however soon later ones expire.
    assert_eq!(
        on_the_first(account(Some(fifteenth)), redeem(40, "gift")),
        Ok(vec![redeemed(40, "gift", vec![lot("R1", 40)], 60)])
    );
    // More is spent since there is more, and what was no longer good then is not spent.
    assert_eq!(
        on_the_first(account(Some(fifteenth)), redeem(70, "gift")),
        Ok(vec![redeemed(
            70,
            "gift",
            vec![lot_until("R2", 60, fifteenth), lot("R1", 10)],
            30
        )])
    );
    assert_eq!(
        on_the_first(account(Some(eighth)), redeem(70, "gift")),
        Err(Rejection::OnlyAvailable(40))
    );
}

#[test]
fn an_adjustment_takes_no_points_before_they_were_earned() {
    let account = vec![(FIRST, enrolled()), (TENTH, earned(60, "R2", None, 60))];
    let Ok(events) = on_the_first(account, adjust(-10)) else {
        panic!("the points are there since the tenth")
    };
    let [Event::Adjusted { on, lots, .. }] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((*on, lots), (date(2026, 3, 10), &vec![lot("R2", 10)]));
}

#[test]
fn nothing_happens_to_an_account_before_it_was_begun() {
    let on = |command| {
        let events = on_the_first(vec![(TENTH, enrolled())], command).unwrap();
        match events.as_slice() {
            [Event::Adjusted { on, .. }] => *on,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(on(adjust(10)), date(2026, 3, 10));
    // Points that had expired by then pay no debt.
    let owing = vec![
        (TENTH, enrolled()),
        (TENTH, earned(100, "R1", None, 100)),
        (TENTH, redeemed(100, "voucher", vec![lot("R1", 100)], 0)),
        (TENTH, earn_reversed("R1", vec![], 100, 0)),
    ];
    let earned_late = on_the_first(owing, earn(10, "R2", Some(date(2026, 3, 5))));
    assert_eq!(earned_late, Ok(vec![earned(10, "R2", Some(date(2026, 3, 5)), 10)]));
}

#[test]
fn points_do_not_expire_before_they_were_earned() {
    let fifth = date(2026, 3, 5);
    let account = vec![
        (FIRST, enrolled()),
        (TENTH, earned(60, "R2", Some(date(2026, 3, 1)), 60)),
    ];
    assert_eq!(
        on_the_first(account.clone(), Command::Expire { on: date(2026, 3, 1) }),
        Ok(vec![])
    );
    let later = crate::spec::given_at::<Loyalty>(account).at("2026-03-20T09:00:00+08:00");
    assert_eq!(
        later.decide(Command::Expire { on: fifth }).map(|events| events.len()),
        Ok(1)
    );
}

#[test]
fn points_are_not_taken_back_before_they_were_earned() {
    let fifth = date(2026, 3, 5);
    // On the tenth the points of R3 are no longer good, and R1 cannot be made good by them.
    let account = vec![
        (FIRST, enrolled()),
        (FIRST, earned(50, "R3", Some(fifth), 50)),
        (TENTH, earned(60, "R1", None, 110)),
        (TENTH, redeemed(60, "gift", vec![lot("R1", 60)], 50)),
    ];
    assert_eq!(
        on_the_first(account.clone(), reverse("R1")),
        Ok(vec![earn_reversed("R1", vec![], 60, 50)])
    );
    // Nor is what was spent on the tenth given back before that.
    let mut owing = account;
    owing.push((TENTH, earn_reversed("R1", vec![], 60, 50)));
    owing.push((TENTH, earned(5, "R4", Some(date(2026, 3, 9)), 55)));
    owing.push((
        TENTH,
        redeemed(5, "tea", vec![lot_until("R4", 5, date(2026, 3, 9))], 50),
    ));
    assert_eq!(
        on_the_first(owing, reverse("tea")),
        Ok(vec![redemption_reversed(
            "tea",
            vec![lot_until("R4", 5, date(2026, 3, 9))],
            0,
            55
        )])
    );
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
    let part = proptest::option::of(1..30_i64);
    let what = proptest::option::of(prop_oneof![Just(What::Earned), Just(What::Redeemed)]);
    let return_of = || proptest::option::of("[A-C]");
    let shortfall = prop_oneof![Just(Shortfall::Refused), Just(Shortfall::Debt)];
    prop_oneof![
        4 => (-1..50_i64, source, proptest::option::of(day()))
            .prop_map(|(points, source, expires_on)| Command::Earn { points, source, expires_on }),
        4 => (-1..60_i64, reference).prop_map(|(points, reference)| Command::Redeem { points, reference }),
        1 => day().prop_map(|on| Command::Expire { on }),
        4 => ("[RSV][1-4]", part, what, return_of()).prop_map(|(of, points, what, reference)| {
            Command::Reverse { of, points, what, reference, reason: "returned".into() }
        }),
        2 => (-30..30_i64, return_of(), shortfall).prop_map(|(points, reference, shortfall)| {
            Command::Adjust { points, reference, shortfall, reason: "goodwill".into() }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn points_are_never_below_zero_never_lost_and_never_spent_when_no_longer_good(
        steps in proptest::collection::vec((day(), any_command()), 1..60),
    ) {
        let calendar = Calendar::taipei();
        let mut state = Loyalty::evolve(State::default(), &enrolled(), Timestamp::UNIX_EPOCH);
        let (mut balance, mut debt, mut told) = (0, 0, vec![]);
        for (today, command) in steps {
            let noon = moment(&format!("{today}T12:00:00+08:00"));
            let at = Moment::new(Uuid::nil(), noon, noon, &calendar, &Nobody);
            let Ok(events) = Loyalty::decide(&state, command.clone(), &at) else {
                continue;
            };
            for event in &events {
                balance += event.delta();
                debt += event.debt_delta();
                state = Loyalty::evolve(state, event, noon);
                told.push(event.clone());
                prop_assert_eq!(state.balance(), balance);
                prop_assert_eq!(state.debt, debt);
                prop_assert!(debt >= 0);
                prop_assert!(state.lots.values().all(|lot| (0..=lot.earned).contains(&lot.left)));
                check_parts(event, balance, today)?;
            }
            for (of, lot) in &state.lots {
                let events = told.iter().filter_map(|event| match event {
                    Event::EarnReversed { of: source, points, .. } if source == of => Some(points),
                    _ => None,
                });
                prop_assert!(events.sum::<i64>() <= lot.earned);
            }
            if says_which(&command) {
                let again = Loyalty::decide(&state, command, &at);
                prop_assert_eq!(again, Ok(vec![]));
            }
        }
    }

    /// In the order of time nobody has points to spend while points are owed.
    #[test]
    fn debt_is_paid_before_anything_is_available(
        steps in proptest::collection::vec((0..4_i64, any_command()), 1..60),
    ) {
        let calendar = Calendar::taipei();
        let mut state = Loyalty::evolve(State::default(), &enrolled(), Timestamp::UNIX_EPOCH);
        let mut today = date(2026, 1, 1);
        for (days, command) in steps {
            today += days.days();
            let noon = moment(&format!("{today}T12:00:00+08:00"));
            let at = Moment::new(Uuid::nil(), noon, noon, &calendar, &Nobody);
            for event in Loyalty::decide(&state, command, &at).unwrap_or_default() {
                state = Loyalty::evolve(state, &event, noon);
            }
            let when = When { at: noon, calendar: &calendar };
            prop_assert!(state.debt == 0 || state.good_lots(when).is_empty());
        }
    }
}

/// Does the command itself tell a retry from another intent?
fn says_which(command: &Command) -> bool {
    match command {
        Command::Adjust { reference, .. } => reference.is_some(),
        Command::Reverse { points, reference, .. } => points.is_none() || reference.is_some(),
        Command::Enrol { .. } | Command::Earn { .. } | Command::Redeem { .. } | Command::Expire { .. } => true,
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
            debt,
            balance,
            ..
        } => {
            prop_assert_eq!(sum(lots) + debt_paid + debt, points.abs());
            prop_assert!(*points < 0 || *debt == 0);
            prop_assert!(*points > 0 || lots.iter().all(is_good));
            *balance
        }
    };
    prop_assert_eq!(told, balance_now);
    Ok(())
}
