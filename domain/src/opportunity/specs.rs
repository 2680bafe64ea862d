use jiff::civil::date;

use super::*;
use crate::spec::{folded, given, given_at, moment, neighbour, stranger};

fn open_for(customer: Id<Customer>) -> Command {
    Command::Open {
        customer,
        name: "五軸加工機 2 台".into(),
        pipeline: None,
        stage: None,
        amount: Some(Money::new(120_000_000, Currency::TWD)),
        close_date: date(2026, 6, 30),
        owner: "mei".into(),
        source: Some("fair".into()),
    }
}

fn opened() -> Event {
    Event::Opened {
        customer: neighbour("a"),
        name: "五軸加工機 2 台".into(),
        pipeline: "default".into(),
        pipeline_version: 1,
        stage: "prospecting".into(),
        probability_bp: 1_000,
        amount: Some(Money::new(120_000_000, Currency::TWD)),
        close_date: date(2026, 6, 30),
        owner: "mei".into(),
        source: Some("fair".into()),
    }
}

fn won() -> Event {
    Event::Won {
        stage: "prospecting".into(),
        amount: Money::new(120_000_000, Currency::TWD),
        reason: None,
    }
}

fn lose() -> Command {
    Command::Lose {
        reason: "price".into(),
        competitor: None,
    }
}

fn active() -> customer::State {
    customer::Card {
        status: customer::Status::Active,
        ..Default::default()
    }
    .into()
}

#[test]
fn a_deal_is_opened_for_a_customer_that_exists_and_is_open() {
    let customer = neighbour("a");
    let closed = customer::Card {
        status: customer::Status::Closed,
        ..Default::default()
    }
    .into();
    given::<Opportunity>([])
        .with(customer, active())
        .when(open_for(customer))
        .then([opened()]);
    given::<Opportunity>([])
        .when(open_for(customer))
        .then_rejected(customer::Unavailable::NotRegistered(customer).into());
    given::<Opportunity>([])
        .with(customer, closed)
        .when(open_for(customer))
        .then_rejected(customer::Unavailable::Closed(customer).into());
}

#[test]
fn a_customer_of_another_slot_is_a_reference_that_cannot_be_checked() {
    let elsewhere = stranger("b");
    let Event::Opened {
        name,
        pipeline,
        stage,
        amount,
        close_date,
        owner,
        source,
        ..
    } = opened()
    else {
        panic!()
    };
    let opened = Event::Opened {
        customer: elsewhere,
        name,
        pipeline,
        pipeline_version: 1,
        stage,
        probability_bp: 1_000,
        amount,
        close_date,
        owner,
        source,
    };
    given::<Opportunity>([]).when(open_for(elsewhere)).then([opened]);
}

#[test]
fn a_won_opportunity_cannot_be_lost() {
    given::<Opportunity>([opened(), won()])
        .when(lose())
        .then_rejected(Rejection::AlreadyWon);
}

#[test]
fn a_reopened_deal_stands_where_it_was_won() {
    given::<Opportunity>([opened(), won()])
        .when(Command::Reopen {
            reason: "order cancelled".into(),
        })
        .then([Event::Reopened {
            stage: "prospecting".into(),
            reason: "order cancelled".into(),
        }]);
}

#[test]
fn one_deal_has_one_currency() {
    let dollars = Command::SetAmount {
        amount: Money::new(1, Currency::USD),
    };
    given::<Opportunity>([opened()])
        .when(dollars)
        .then_rejected(Rejection::ForeignCurrency(Currency::TWD, Currency::USD));
}

#[test]
fn a_stage_that_the_pipeline_does_not_have_is_refused() {
    given::<Opportunity>([opened()])
        .when(Command::ChangeStage {
            to: "closing".into(),
            reason: None,
        })
        .then_rejected(Rejection::UnknownStage("closing".into()));
}

#[test]
fn a_new_stage_ends_an_overridden_probability() {
    let state = folded::<Opportunity>(&[
        opened(),
        Event::ProbabilityOverridden {
            basis_points: 9_000,
            reason: "letter of intent".into(),
        },
        Event::StageChanged {
            from: "prospecting".into(),
            to: "proposal".into(),
            pipeline_version: 1,
            probability_bp: 5_000,
            reason: None,
        },
    ]);
    assert_eq!(state.probability_override, None);
}

const JAN_1: &str = "2026-01-01T10:00:00+08:00";
const JAN_5: &str = "2026-01-05T10:00:00+08:00";
const JAN_10: &str = "2026-01-10T10:00:00+08:00";
const JAN_20: &str = "2026-01-20T10:00:00+08:00";

fn twd(minor: i64) -> Money {
    Money::new(minor, Currency::TWD)
}

fn amount_set(from: i64, to: i64) -> Event {
    Event::AmountSet {
        from: Some(twd(from)),
        to: twd(to),
    }
}

fn set_amount(minor: i64) -> Command {
    Command::SetAmount { amount: twd(minor) }
}

#[test]
fn an_amount_that_was_entered_late_holds_until_the_next_one() {
    let deal = || {
        given_at::<Opportunity>([
            (JAN_1, opened()),
            (JAN_20, amount_set(120_000_000, 200)),
            (JAN_10, amount_set(120_000_000, 150)),
        ])
    };
    // Now it is 200, so that 150 is news; on the 10th it was 150 already.
    deal().when(set_amount(150)).then([amount_set(200, 150)]);
    deal().effective(JAN_10).when(set_amount(150)).then_nothing();
    deal()
        .effective(JAN_5)
        .when(set_amount(7))
        .then([amount_set(120_000_000, 7)]);
    let win = || Command::Win {
        amount: None,
        reason: None,
    };
    let won_for = |minor| Event::Won {
        stage: "prospecting".into(),
        amount: twd(minor),
        reason: None,
    };
    deal().when(win()).then([won_for(200)]);
    deal().effective(JAN_10).when(win()).then([won_for(150)]);
}

#[test]
fn what_is_said_of_the_time_before_the_end_is_taken_and_of_the_time_after_it_refused() {
    let deal = || given_at::<Opportunity>([(JAN_1, opened()), (JAN_10, won())]);
    deal()
        .effective(JAN_5)
        .when(set_amount(7))
        .then([amount_set(120_000_000, 7)]);
    deal()
        .effective(JAN_20)
        .when(set_amount(7))
        .then_rejected(Rejection::AlreadyWon);
}

#[test]
fn a_closed_deal_stands_still_whatever_was_planned_for_later() {
    let won_early = State::default()
        .record(&opened(), moment(JAN_1))
        .record(&amount_set(120_000_000, 200), moment(JAN_10))
        .record(&won(), moment(JAN_5));
    assert_eq!(
        (won_early.status, won_early.amount),
        (Status::Won, Some(twd(120_000_000)))
    );
}

#[test]
fn a_deal_is_not_reopened_before_it_was_closed() {
    let reopened = Event::Reopened {
        stage: "prospecting".into(),
        reason: "cancelled".into(),
    };
    let deal = State::default()
        .record(&opened(), moment(JAN_5))
        .record(&amount_set(120_000_000, 7), moment(JAN_1))
        .record(&won(), moment(JAN_20))
        .record(&reopened, moment(JAN_10));
    assert_eq!((deal.status, deal.stage_since), (Status::Open, moment(JAN_20)));
    assert_eq!(deal.at(moment(JAN_5)).amount, Some(twd(7)));
    assert_eq!(deal.at(moment(JAN_1)).status, Status::NotOpened);
}

#[test]
fn already_won_is_not_already_won_at_an_earlier_time() {
    let win = || Command::Win {
        amount: None,
        reason: None,
    };
    let deal = || given_at::<Opportunity>([(JAN_1, opened()), (JAN_10, won())]);
    deal().effective(JAN_20).when(win()).then_nothing();
    deal()
        .effective(JAN_5)
        .when(win())
        .then_rejected(Rejection::OnlySince("won", moment(JAN_10)));
}

#[test]
fn a_deal_that_is_opened_again_names_what_differs() {
    let customer = neighbour("a");
    let again = |change: fn(&mut Command)| {
        let mut command = open_for(customer);
        change(&mut command);
        // Later changes are no other beginning.
        given::<Opportunity>([opened(), amount_set(120_000_000, 7)]).when(command)
    };
    again(|_| {}).then_nothing();
    again(|command| {
        if let Command::Open { stage, pipeline, .. } = command {
            *stage = Some("prospecting".into());
            *pipeline = Some(PIPELINE.into());
        }
    })
    .then_nothing();
    again(|command| {
        if let Command::Open { amount, owner, .. } = command {
            *amount = Some(Money::new(990_000, Currency::USD));
            *owner = "jun".into();
        }
    })
    .then_rejected(Rejection::AlreadyOpened(Differing(vec![
        "amount".into(),
        "owner".into(),
    ])));
    again(|command| {
        if let Command::Open { source, close_date, .. } = command {
            *source = None;
            *close_date = date(2027, 1, 1);
        }
    })
    .then_rejected(Rejection::AlreadyOpened(Differing(vec![
        "close_date".into(),
        "source".into(),
    ])));
}

#[test]
fn why_it_was_lost_or_won_is_put_right() {
    let lost = Event::Lost {
        stage: "prospecting".into(),
        reason: "price".into(),
        competitor: None,
    };
    given::<Opportunity>([opened(), lost])
        .when(Command::Lose {
            reason: "no budget".into(),
            competitor: Some("Acme".into()),
        })
        .then([Event::CloseReasonSet {
            from_reason: Some("price".into()),
            from_competitor: None,
            reason: Some("no budget".into()),
            competitor: Some("Acme".into()),
        }]);
    given::<Opportunity>([opened(), won()])
        .when(Command::Win {
            amount: None,
            reason: Some("service".into()),
        })
        .then([Event::CloseReasonSet {
            from_reason: None,
            from_competitor: None,
            reason: Some("service".into()),
            competitor: None,
        }]);
}

#[test]
fn a_deal_gets_another_owner_name_customer_and_currency() {
    let (customer, other) = (neighbour("a"), neighbour("other"));
    let deal = || given::<Opportunity>([opened(), won()]).with(other, active());
    deal()
        .when(Command::AssignOwner { owner: "jun".into() })
        .then([Event::OwnerAssigned {
            from: "mei".into(),
            to: "jun".into(),
        }]);
    deal()
        .when(Command::Rename {
            name: "one machine".into(),
        })
        .then([Event::Renamed {
            from: "五軸加工機 2 台".into(),
            to: "one machine".into(),
        }]);
    let change = || Command::ChangeCustomer {
        customer: other,
        reason: "the mother company pays".into(),
    };
    deal().when(change()).then([Event::CustomerChanged {
        from: customer,
        to: other,
        reason: "the mother company pays".into(),
    }]);
    given::<Opportunity>([opened()])
        .when(change())
        .then_rejected(customer::Unavailable::NotRegistered(other).into());
    let amount = Money::new(4_000, Currency::USD);
    given::<Opportunity>([opened()])
        .when(Command::ChangeCurrency { amount })
        .then([Event::AmountSet {
            from: Some(twd(120_000_000)),
            to: amount,
        }]);
}

#[test]
fn the_same_intent_twice_gives_nothing_the_second_time() {
    let customer = neighbour("a");
    given::<Opportunity>([])
        .with(customer, active())
        .same_intent_twice(open_for(customer));
    let intents = [
        Command::ChangeStage {
            to: "proposal".into(),
            reason: None,
        },
        Command::SetAmount {
            amount: Money::new(5, Currency::TWD),
        },
        Command::SetCloseDate {
            close_date: date(2026, 7, 31),
        },
        Command::SetForecastCategory {
            category: ForecastCategory::Commit,
        },
        Command::OverrideProbability {
            basis_points: 9_000,
            reason: "letter of intent".into(),
        },
        Command::Win {
            amount: None,
            reason: Some("service".into()),
        },
        lose(),
        Command::ChangeCurrency {
            amount: Money::new(5, Currency::USD),
        },
        Command::AssignOwner { owner: "jun".into() },
        Command::Rename {
            name: "one machine".into(),
        },
    ];
    for intent in intents {
        given::<Opportunity>([opened()]).same_intent_twice(intent);
    }
    given::<Opportunity>([opened()])
        .with(neighbour::<Customer>("other"), active())
        .same_intent_twice(Command::ChangeCustomer {
            customer: neighbour("other"),
            reason: "the mother company pays".into(),
        });
    given::<Opportunity>([opened(), won()]).same_intent_twice(Command::Reopen {
        reason: "cancelled".into(),
    });
}
