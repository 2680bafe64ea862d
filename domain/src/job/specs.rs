use super::*;
use crate::spec::{given, moment, neighbour, stranger};

fn press() -> Id<Equipment> {
    neighbour("press")
}

fn create_on(equipment: Option<Id<Equipment>>, customer: Id<Customer>) -> Command {
    Command::Create {
        customer,
        equipment,
        origin: Some("case/0192f0c1-0000-8000-8000-000000000001".into()),
        summary: "主軸異音".into(),
    }
}

fn created_on(equipment: Option<Id<Equipment>>, customer: Id<Customer>) -> Event {
    Event::Created {
        customer,
        equipment,
        origin: Some("case/0192f0c1-0000-8000-8000-000000000001".into()),
        summary: "主軸異音".into(),
    }
}

fn created() -> Event {
    created_on(Some(press()), stranger("a"))
}

fn tuesday(technician: &str) -> Appointment {
    Appointment {
        start: moment("2026-03-03T09:00:00+08:00"),
        end: moment("2026-03-03T12:00:00+08:00"),
        technician: technician.into(),
    }
}

fn schedule(technician: &str) -> Command {
    let Appointment { start, end, technician } = tuesday(technician);
    Command::Schedule { start, end, technician }
}

fn scheduled(from: Status, technician: &str, replaces: Option<Appointment>) -> Event {
    let Appointment { start, end, technician } = tuesday(technician);
    Event::Scheduled {
        from,
        equipment: Some(press()),
        start,
        end,
        technician,
        replaces,
    }
}

fn dispatched() -> Event {
    Event::Dispatched {
        from: Status::Scheduled,
        equipment: Some(press()),
        technician: "wen".into(),
    }
}

fn started(from: Status) -> Event {
    Event::Started {
        from,
        equipment: Some(press()),
        technician: "wen".into(),
    }
}

fn hold(reason: &str) -> Command {
    Command::Hold { reason: reason.into() }
}

fn held(from: Status) -> Event {
    Event::Held {
        from,
        equipment: Some(press()),
        reason: "waiting for parts".into(),
    }
}

fn bearing() -> Vec<Part> {
    vec![Part {
        sku: "BRG-7014".into(),
        quantity: 2,
    }]
}

fn complete(parts: Vec<Part>, labour_minutes: u32) -> Command {
    Command::Complete {
        resolution: "更換主軸軸承".into(),
        parts,
        labour_minutes,
    }
}

fn completed() -> Event {
    Event::Completed {
        from: Status::InProgress,
        equipment: Some(press()),
        technician: "wen".into(),
        resolution: "更換主軸軸承".into(),
        parts: bearing(),
        labour_minutes: 150,
    }
}

fn sign_off(by: &str) -> Command {
    Command::SignOff { by: by.into() }
}

fn signed_off() -> Event {
    Event::SignedOff {
        from: Status::Completed,
        equipment: Some(press()),
        by: "陳廠長".into(),
    }
}

fn closed() -> Event {
    Event::Closed {
        from: Status::SignedOff,
        equipment: Some(press()),
    }
}

fn cancel() -> Command {
    Command::Cancel {
        reason: "repaired themselves".into(),
    }
}

fn cancelled(from: Status) -> Event {
    Event::Cancelled {
        from,
        equipment: Some(press()),
        reason: "repaired themselves".into(),
    }
}

/// The whole course of a job; a spec takes as much of it as it needs.
fn course() -> [Event; 7] {
    [
        created(),
        scheduled(Status::New, "wen", None),
        dispatched(),
        started(Status::Dispatched),
        completed(),
        signed_off(),
        closed(),
    ]
}

fn after(events: usize) -> crate::spec::Given<Job> {
    given(course().into_iter().take(events))
}

const CREATED: usize = 1;
const SCHEDULED: usize = 2;
const DISPATCHED: usize = 3;
const IN_PROGRESS: usize = 4;
const COMPLETED: usize = 5;
const SIGNED_OFF: usize = 6;
const CLOSED: usize = 7;

fn machine(status: equipment::Status) -> equipment::State {
    let card = equipment::Card {
        status,
        ..Default::default()
    };
    card.into()
}

#[test]
fn a_job_goes_from_the_call_to_the_signature() {
    let commands = [
        create_on(Some(press()), stranger("a")),
        schedule("wen"),
        Command::Dispatch,
        Command::Start,
        complete(bearing(), 150),
        sign_off("陳廠長"),
        Command::Close,
    ];
    for (events, command) in commands.into_iter().enumerate() {
        after(events)
            .with(press(), machine(equipment::Status::Down))
            .when(command)
            .then([course()[events].clone()]);
    }
}

#[test]
fn a_job_lives_with_its_machine_or_else_with_its_customer() {
    let customer = stranger("a");
    assert_eq!(
        Job::home(&create_on(Some(press()), customer)),
        Home::With(press().uuid())
    );
    assert_eq!(Job::home(&create_on(None, customer)), Home::With(customer.uuid()));
}

#[test]
fn a_job_is_created_for_an_open_customer_and_a_machine_that_is_not_retired() {
    given::<Job>([])
        .when(create_on(None, neighbour("a")))
        .then_rejected(customer::Unavailable::NotRegistered(neighbour("a")).into());
    given::<Job>([])
        .when(create_on(Some(press()), stranger("a")))
        .then_rejected(equipment::Unavailable::NotInstalled(press()).into());
    given::<Job>([])
        .with(press(), machine(equipment::Status::Retired))
        .when(create_on(Some(press()), stranger("a")))
        .then_rejected(equipment::Unavailable::Retired(press()).into());
    after(CREATED)
        .when(create_on(None, stranger("a")))
        .then_rejected(Rejection::AlreadyCreated(Differing(vec!["equipment".into()])));
}

#[test]
fn a_new_job_is_scheduled_before_it_is_started() {
    for command in [Command::Start, Command::Dispatch] {
        after(CREATED).when(command).then_rejected(Rejection::NotScheduled);
    }
    given::<Job>([created(), held(Status::New)])
        .when(Command::Start)
        .then_rejected(Rejection::NotScheduled);
    after(SCHEDULED).when(Command::Start).then([started(Status::Scheduled)]);
}

#[test]
fn a_job_may_be_scheduled_again_until_work_begins() {
    after(SCHEDULED).when(schedule("wen")).then_nothing();
    after(DISPATCHED).when(schedule("wen")).then_nothing();
    after(DISPATCHED)
        .when(schedule("kai"))
        .then([scheduled(Status::Dispatched, "kai", Some(tuesday("wen")))]);
    after(IN_PROGRESS)
        .when(schedule("kai"))
        .then_rejected(Rejection::InProgress);
    let on_hold = course().into_iter().take(IN_PROGRESS).chain([held(Status::InProgress)]);
    given::<Job>(on_hold)
        .when(schedule("wen"))
        .then([scheduled(Status::OnHold, "wen", Some(tuesday("wen")))]);
}

#[test]
fn an_appointment_ends_after_it_starts() {
    let start = moment("2026-03-03T09:00:00+08:00");
    after(CREATED)
        .when(Command::Schedule {
            start,
            end: start,
            technician: "wen".into(),
        })
        .then_rejected(Rejection::EndsBeforeStart);
}

#[test]
fn work_goes_on_after_it_was_on_hold() {
    after(IN_PROGRESS)
        .when(hold("waiting for parts"))
        .then([held(Status::InProgress)]);
    let on_hold = || given::<Job>(course().into_iter().take(IN_PROGRESS).chain([held(Status::InProgress)]));
    on_hold()
        .when(complete(bearing(), 150))
        .then_rejected(Rejection::NotStarted);
    on_hold().when(Command::Start).then([started(Status::OnHold)]);
    on_hold().when(hold("customer is away")).then([Event::Held {
        from: Status::OnHold,
        equipment: Some(press()),
        reason: "customer is away".into(),
    }]);
}

#[test]
fn a_job_is_signed_off_before_it_is_closed() {
    after(COMPLETED)
        .when(Command::Close)
        .then_rejected(Rejection::NotSignedOff);
    after(IN_PROGRESS)
        .when(Command::Close)
        .then_rejected(Rejection::NotCompleted);
    after(IN_PROGRESS)
        .when(sign_off("陳廠長"))
        .then_rejected(Rejection::NotCompleted);
    after(SIGNED_OFF)
        .when(sign_off("林小姐"))
        .then_rejected(Rejection::AlreadySignedOff);
}

#[test]
fn a_completed_job_is_not_cancelled_or_completed_otherwise() {
    for events in [COMPLETED, SIGNED_OFF] {
        after(events).when(cancel()).then_rejected(Rejection::AlreadyCompleted);
    }
    after(CLOSED).when(cancel()).then_rejected(Rejection::AlreadyClosed);
    after(CLOSED)
        .when(Command::Start)
        .then_rejected(Rejection::AlreadyClosed);
    after(COMPLETED)
        .when(complete(bearing(), 151))
        .then_rejected(Rejection::AlreadyCompleted);
    after(CLOSED).when(complete(bearing(), 150)).then_nothing();
}

#[test]
fn a_cancelled_job_stays_cancelled() {
    after(IN_PROGRESS).when(cancel()).then([cancelled(Status::InProgress)]);
    let past = || given::<Job>([created(), cancelled(Status::New)]);
    for command in [
        schedule("wen"),
        Command::Dispatch,
        Command::Start,
        hold("x"),
        complete(bearing(), 150),
        sign_off("陳廠長"),
        Command::Close,
    ] {
        past().when(command).then_rejected(Rejection::Cancelled);
    }
}

#[test]
fn the_work_has_limits_and_its_parts_have_names_and_quantities() {
    let part = |sku: &str, quantity| Part {
        sku: sku.into(),
        quantity,
    };
    let refused = |command, rejection| after(IN_PROGRESS).when(command).then_rejected(rejection);
    refused(complete(bearing(), 100_001), Rejection::TooMuchLabour(100_001));
    refused(complete(vec![part("A", 1), part("", 1)], 1), Rejection::SkuMissing(2));
    refused(complete(vec![part("A", 0)], 1), Rejection::QuantityMissing(1));
    refused(
        complete(vec![part("A", 1); PARTS_MAX + 1], 1),
        Rejection::TooManyParts(1_001),
    );
}

#[test]
fn nothing_happens_to_a_job_that_nobody_created() {
    after(0).when(Command::Start).then_rejected(Rejection::NotCreated);
}

#[test]
fn the_same_intent_twice_gives_nothing_the_second_time() {
    given::<Job>([])
        .with(press(), machine(equipment::Status::InService))
        .same_intent_twice(create_on(Some(press()), stranger("a")));
    after(CREATED).same_intent_twice(schedule("wen"));
    after(SCHEDULED).same_intent_twice(Command::Dispatch);
    after(DISPATCHED).same_intent_twice(Command::Start);
    after(IN_PROGRESS).same_intent_twice(hold("waiting for parts"));
    after(IN_PROGRESS).same_intent_twice(complete(bearing(), 150));
    after(COMPLETED).same_intent_twice(sign_off("陳廠長"));
    after(SIGNED_OFF).same_intent_twice(Command::Close);
    after(CREATED).same_intent_twice(cancel());
}

#[test]
fn a_job_that_is_created_again_names_what_differs() {
    let again = |summary: &str| Command::Create {
        customer: stranger("a"),
        equipment: Some(press()),
        origin: Some("case/0192f0c1-0000-8000-8000-000000000001".into()),
        summary: summary.into(),
    };
    after(CLOSED).when(again("主軸異音")).then_nothing();
    after(CREATED)
        .when(again("漏油"))
        .then_rejected(Rejection::AlreadyCreated(Differing(vec!["summary".into()])));
}

#[test]
fn another_reason_for_a_cancelled_job_is_not_dropped_in_silence() {
    let job = || given::<Job>([created_on(Some(press()), stranger("a")), cancelled(Status::New)]);
    job().when(cancel()).then_nothing();
    job()
        .when(Command::Cancel {
            reason: "too expensive".into(),
        })
        .then_rejected(Rejection::CancelledOtherwise("repaired themselves".into()));
}

#[test]
fn already_closed_is_not_already_closed_at_an_earlier_time() {
    let closed_at = moment("2026-03-02T09:00:00+08:00");
    after(CLOSED).when(Command::Close).then_nothing();
    after(CLOSED)
        .effective("2026-03-01T09:00:00+08:00")
        .when(Command::Close)
        .then_rejected(Rejection::OnlySince(closed_at));
}

#[test]
fn no_step_of_a_job_is_before_the_step_that_caused_it() {
    let (morning, noon) = (moment("2026-03-02T09:00:00+08:00"), moment("2026-03-02T12:00:00+08:00"));
    let job = Job::evolve(State::default(), &created_on(None, stranger("a")), noon);
    let job = Job::evolve(job, &cancelled(Status::New), morning);
    assert_eq!(job.changed_at, noon);
}
