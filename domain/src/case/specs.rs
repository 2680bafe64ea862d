use super::*;
use crate::spec::{folded, given, given_at, moment, neighbour};

const RESOLVED_AT: &str = "2026-03-02T09:00:00+08:00";

fn open() -> Command {
    Command::Open {
        customer: neighbour("a"),
        subject: "主軸異音".into(),
        kind: Kind::Incident,
        priority: Priority::Normal,
        channel: Channel::Phone,
        about: vec![],
    }
}

fn opened() -> Event {
    Event::Opened {
        customer: neighbour("a"),
        subject: "主軸異音".into(),
        kind: Kind::Incident,
        priority: Priority::Normal,
        channel: Channel::Phone,
        about: vec![],
    }
}

fn assigned() -> Event {
    Event::Assigned {
        from_agent: None,
        from_group: None,
        agent: Some("mei".into()),
        group: Some("hotline".into()),
        from: Status::New,
    }
}

fn pending() -> Event {
    Event::Pending {
        on: PendingOn::Customer,
        from: Status::New,
    }
}

fn resolve(code: &str) -> Command {
    Command::Resolve {
        code: code.into(),
        note: None,
    }
}

fn resolved() -> Event {
    Event::Resolved {
        code: "repaired".into(),
        note: None,
        agent: None,
        group: None,
        from: Status::New,
        at: moment(RESOLVED_AT),
    }
}

fn closed() -> Event {
    Event::Closed {
        code: "repaired".into(),
        from: Status::Resolved,
        at: moment("2026-03-12T09:00:00+08:00"),
    }
}

fn closed_case() -> crate::spec::Given<Case> {
    given_at([
        (RESOLVED_AT, opened()),
        (RESOLVED_AT, resolved()),
        ("2026-03-12T09:00:00+08:00", closed()),
    ])
}

fn reopen() -> Command {
    Command::Reopen {
        reason: "noise is back".into(),
    }
}

fn reply(author: Author) -> Command {
    Command::Reply {
        author,
        public: true,
        text: Some("已收到".into()),
    }
}

fn replied(author: Author) -> Event {
    Event::Replied {
        author,
        public: true,
        text: Some("已收到".into()),
        from: Status::New,
    }
}

fn active() -> customer::State {
    customer::Card {
        status: customer::Status::Active,
        ..Default::default()
    }
    .into()
}

fn status_after(events: &[Event]) -> Status {
    folded::<Case>(events).status
}

#[test]
fn a_case_is_opened_for_a_customer_that_exists_and_is_open() {
    let customer = neighbour::<Customer>("a");
    given::<Case>([]).with(customer, active()).when(open()).then([opened()]);
    given::<Case>([])
        .when(open())
        .then_rejected(customer::Unavailable::NotRegistered(customer).into());
}

#[test]
fn nothing_happens_to_a_case_that_nobody_opened() {
    given::<Case>([])
        .when(Command::Close)
        .then_rejected(Rejection::NotOpened);
}

#[test]
fn a_new_case_is_open_once_an_agent_has_it_or_replies() {
    assert_eq!(status_after(&[opened()]), Status::New);
    assert_eq!(status_after(&[opened(), assigned()]), Status::Open);
    assert_eq!(status_after(&[opened(), replied(Author::Agent)]), Status::Open);
    assert_eq!(status_after(&[opened(), replied(Author::Bot)]), Status::New);
    assert_eq!(status_after(&[opened(), replied(Author::System)]), Status::New);
}

#[test]
fn every_reply_counts() {
    let event = replied(Author::Bot);
    given::<Case>([opened()]).when(reply(Author::Bot)).then([event.clone()]);
    given::<Case>([opened(), event.clone()])
        .when(reply(Author::Bot))
        .then([event]);
}

#[test]
fn another_priority_needs_a_reason() {
    let classify = |reason: Option<&str>| Command::Classify {
        category: "spindle".into(),
        priority: Some(Priority::Urgent),
        reason: reason.map(str::to_owned),
    };
    given::<Case>([opened()])
        .when(classify(None))
        .then_rejected(Rejection::PriorityReasonMissing);
    given::<Case>([opened()])
        .when(classify(Some("line is down")))
        .then([Event::Classified {
            from_category: None,
            category: "spindle".into(),
            from_priority: Priority::Normal,
            priority: Priority::Urgent,
            reason: Some("line is down".into()),
        }]);
}

#[test]
fn a_case_is_assigned_to_somebody() {
    given::<Case>([opened()])
        .when(Command::Assign {
            agent: None,
            group: None,
        })
        .then_rejected(Rejection::NobodyToAssign);
}

#[test]
fn a_case_handed_to_another_group_waits_for_an_agent_there() {
    given::<Case>([opened(), assigned()])
        .when(Command::Assign {
            agent: None,
            group: Some("workshop".into()),
        })
        .then([Event::Assigned {
            from_agent: Some("mei".into()),
            from_group: Some("hotline".into()),
            agent: None,
            group: Some("workshop".into()),
            from: Status::Open,
        }]);
}

#[test]
fn another_agent_of_the_same_group_takes_over() {
    given::<Case>([opened(), assigned()])
        .when(Command::Assign {
            agent: Some("jun".into()),
            group: None,
        })
        .then([Event::Assigned {
            from_agent: Some("mei".into()),
            from_group: Some("hotline".into()),
            agent: Some("jun".into()),
            group: Some("hotline".into()),
            from: Status::Open,
        }]);
}

#[test]
fn a_pending_case_tells_whom_it_waits_for_and_is_open_again_when_resumed() {
    given::<Case>([opened(), pending()])
        .when(Command::SetPending {
            on: PendingOn::ThirdParty,
        })
        .then([Event::Pending {
            on: PendingOn::ThirdParty,
            from: Status::PendingCustomer,
        }]);
    let resumed = Event::Resumed {
        from: Status::PendingCustomer,
    };
    given::<Case>([opened(), pending()])
        .when(Command::Resume)
        .then([resumed.clone()]);
    assert_eq!(status_after(&[opened(), pending(), resumed]), Status::Open);
    given::<Case>([opened()])
        .when(Command::Resume)
        .then_rejected(Rejection::NotPending);
}

#[test]
fn a_case_is_resolved_with_one_code() {
    given::<Case>([opened()])
        .when(resolve(" "))
        .then_rejected(Rejection::CodeMissing);
    given::<Case>([opened()])
        .effective(RESOLVED_AT)
        .when(resolve("repaired"))
        .then([resolved()]);
    given::<Case>([opened(), resolved()])
        .when(resolve("no fault found"))
        .then_rejected(Rejection::ResolvedOtherwise("repaired".into()));
}

#[test]
fn only_a_resolved_case_is_closed() {
    for before in [vec![opened()], vec![opened(), assigned()], vec![opened(), pending()]] {
        given::<Case>(before)
            .when(Command::Close)
            .then_rejected(Rejection::NotResolved);
    }
    given::<Case>([opened(), resolved()])
        .effective("2026-03-12T09:00:00+08:00")
        .when(Command::Close)
        .then([closed()]);
}

#[test]
fn a_resolved_case_does_not_wait_or_escalate() {
    let escalate = Command::Escalate {
        reason: "no answer".into(),
    };
    let wait = Command::SetPending {
        on: PendingOn::Customer,
    };
    for command in [escalate, wait, Command::Resume] {
        given::<Case>([opened(), resolved()])
            .when(command)
            .then_rejected(Rejection::Resolved);
    }
}

#[test]
fn a_closed_case_accepts_only_reopen() {
    let after = closed_case;
    after()
        .at("2026-03-20T09:00:00+08:00")
        .when(reply(Author::Agent))
        .then_rejected(Rejection::Closed);
    after()
        .at("2026-03-20T09:00:00+08:00")
        .when(resolve("repaired"))
        .then_rejected(Rejection::Closed);
    after()
        .at("2026-03-20T09:00:00+08:00")
        .when(reopen())
        .then([Event::Reopened {
            reason: "noise is back".into(),
            from: Status::Closed,
            ended_at: moment("2026-03-12T09:00:00+08:00"),
        }]);
}

#[test]
fn a_case_is_reopened_within_thirty_days() {
    let resolved_case = || given::<Case>([opened(), resolved()]);
    resolved_case()
        .effective("2026-04-01T09:00:00+08:00")
        .when(reopen())
        .then([Event::Reopened {
            reason: "noise is back".into(),
            from: Status::Resolved,
            ended_at: moment(RESOLVED_AT),
        }]);
    resolved_case()
        .effective("2026-04-01T09:00:01+08:00")
        .when(reopen())
        .then_rejected(Rejection::TooLateToReopen);
    // The days count from the closing, when there was one.
    closed_case()
        .effective("2026-04-11T09:00:00+08:00")
        .when(reopen())
        .then([Event::Reopened {
            reason: "noise is back".into(),
            from: Status::Closed,
            ended_at: moment("2026-03-12T09:00:00+08:00"),
        }]);
}

#[test]
fn an_escalation_counts_again_once_somebody_else_had_it() {
    let escalate = Command::Escalate {
        reason: "no answer".into(),
    };
    let escalated = |agent: Option<&str>, group: Option<&str>| Event::Escalated {
        reason: "no answer".into(),
        agent: agent.map(str::to_owned),
        group: group.map(str::to_owned),
    };
    given::<Case>([opened(), escalated(None, None)])
        .when(escalate.clone())
        .then_nothing();
    given::<Case>([opened(), escalated(None, None), assigned()])
        .when(escalate)
        .then([escalated(Some("mei"), Some("hotline"))]);
}

const NINE: &str = "2026-11-02T09:00:00+08:00";
const ELEVEN: &str = "2026-11-02T11:00:00+08:00";
const A_LITTLE_EARLIER: &str = "2026-11-02T10:58:00+08:00";
const NOON: &str = "2026-11-02T12:00:00+08:00";

fn reopened() -> Event {
    Event::Reopened {
        reason: "noise is back".into(),
        from: Status::Resolved,
        ended_at: moment(ELEVEN),
    }
}

#[test]
fn a_reopening_is_not_before_the_resolve_that_it_reopens() {
    let skewed = given_at::<Case>([(NINE, opened()), (ELEVEN, resolved()), (A_LITTLE_EARLIER, reopened())]);
    // It is open, and can be resolved again.
    skewed.effective(NOON).when(resolve("repaired")).then([Event::Resolved {
        code: "repaired".into(),
        note: None,
        agent: None,
        group: None,
        from: Status::Open,
        at: moment(NOON),
    }]);
    given_at::<Case>([(NINE, opened()), (ELEVEN, resolved())])
        .effective(A_LITTLE_EARLIER)
        .when(reopen())
        .then([reopened()]);
}

#[test]
fn resolved_and_closed_in_one_instant_it_was_resolved_then() {
    let case = State::default()
        .record(&opened(), moment(NINE))
        .record(&resolved(), moment(ELEVEN))
        .record(&reopened(), moment(ELEVEN))
        .record(&resolved(), moment(NOON))
        .record(&closed(), moment(NOON));
    assert_eq!(
        (case.first_resolved_at, case.resolved_at),
        (Some(moment(ELEVEN)), Some(moment(NOON)))
    );
    assert_eq!(
        (case.status, case.closed_at, case.reopens),
        (Status::Closed, Some(moment(NOON)), 1)
    );
}

#[test]
fn what_is_said_late_is_decided_on_the_case_as_it_stood_then() {
    let case = || given_at::<Case>([(NINE, opened()), (NOON, resolved())]);
    let wait = || Command::SetPending {
        on: PendingOn::Customer,
    };
    case().effective(ELEVEN).when(wait()).then([pending()]);
    case().effective(NOON).when(wait()).then_rejected(Rejection::Resolved);
    case()
        .effective(ELEVEN)
        .when(resolve("repaired"))
        .then_rejected(Rejection::OnlySince("resolved", moment(NOON)));
    case().effective(NOON).when(resolve("repaired")).then_nothing();
}

#[test]
fn a_wait_that_was_planned_for_after_the_end_changes_nothing_of_the_end() {
    let case = State::default()
        .record(&opened(), moment(NINE))
        .record(&pending(), moment(NOON))
        .record(&resolved(), moment(ELEVEN));
    assert_eq!(case.status, Status::Resolved);
}

#[test]
fn a_case_that_is_opened_again_names_what_differs() {
    given::<Case>([opened(), resolved()]).when(open()).then_nothing();
    let other = Command::Open {
        customer: neighbour("a"),
        subject: "主軸異音".into(),
        kind: Kind::Incident,
        priority: Priority::Urgent,
        channel: Channel::Email,
        about: vec![],
    };
    given::<Case>([opened()])
        .when(other)
        .then_rejected(Rejection::AlreadyOpened(Differing(vec![
            "channel".into(),
            "priority".into(),
        ])));
}

#[test]
fn another_note_on_a_resolved_case_is_not_dropped_in_silence() {
    let noted = |note: &str| Command::Resolve {
        code: "repaired".into(),
        note: Some(note.into()),
    };
    given::<Case>([opened(), resolved()])
        .when(noted("new bearing"))
        .then_rejected(Rejection::ResolvedWithAnotherNote);
    given::<Case>([opened()]).same_intent_twice(noted("new bearing"));
}

#[test]
fn only_the_first_reply_of_a_person_is_remembered() {
    let mut replies = State::default().record(&opened(), moment(NINE));
    replies = replies.record(&replied(Author::Bot), moment(NINE));
    replies = replies.record(&replied(Author::Agent), moment(NOON));
    let first = replies.clone();
    replies = replies.record(&replied(Author::Agent), moment("2026-11-02T13:00:00+08:00"));
    assert_eq!(*replies, *first);
    // One that is entered late was the first after all.
    replies = replies.record(&replied(Author::Agent), moment(ELEVEN));
    assert_eq!(replies.first_response_at, Some(moment(ELEVEN)));
    assert!(!serde_json::to_string(&replies).unwrap().contains("已收到"));
}

#[test]
fn the_same_intent_twice_gives_nothing_the_second_time() {
    given::<Case>([])
        .with(neighbour::<Customer>("a"), active())
        .same_intent_twice(open());
    let intents = [
        Command::Classify {
            category: "spindle".into(),
            priority: Some(Priority::High),
            reason: Some("line is down".into()),
        },
        Command::Assign {
            agent: Some("mei".into()),
            group: None,
        },
        Command::Assign {
            agent: None,
            group: Some("hotline".into()),
        },
        Command::SetPending {
            on: PendingOn::ThirdParty,
        },
        Command::Escalate {
            reason: "no answer".into(),
        },
        resolve("repaired"),
    ];
    for intent in intents {
        given::<Case>([opened()]).same_intent_twice(intent);
    }
    given::<Case>([opened(), pending()]).same_intent_twice(Command::Resume);
    given::<Case>([opened(), resolved()]).same_intent_twice(Command::Close);
    given::<Case>([opened(), resolved()]).same_intent_twice(reopen());
}
