//! Looking after machines: inspections, breakdowns, jobs, and the cases of those who call.

use domain::case::{self, Author, Case, PendingOn, Priority};
use domain::customer::Customer;
use domain::equipment::{self, Equipment};
use domain::inspection::{self, Inspection};
use domain::interaction::{Channel, Direction};
use domain::job::{self, Job};
use domain::{Id, StreamRef};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::book::{Book, Story};
use super::calendar::{LAST_DAY, at, day_of, later, minutes, office_day, office_time, plus_days};
use super::luck::Luck;
use super::sales::{Contact, Organisation, Sold, meet};
use super::words::{self, AGENTS, Item, Machine, Reading, SERVICE_LEAD, TECHNICIANS};

const PLANNER: &str = "system:planner";

/// A machine at its place.
struct Standing<'a> {
    id: Id<Equipment>,
    kind: &'static Machine,
    organisation: &'a Organisation,
    since: Timestamp,
    /// Nothing is planned for it after this day.
    ends_on: Date,
}

/// How it ends with a machine.
#[derive(Clone, Copy)]
enum End {
    Retired,
    SoldOn,
    Open,
}

/// A machine's life from the day it stands there. Now and then one is sold on to another of the customers.
pub fn look_after(book: &mut Book, organisation: &Organisation, sold: Sold, customers: &[Id<Customer>]) {
    if sold.at > at(LAST_DAY, 23, 59) {
        return;
    }
    let serial = book.new_serial(sold.kind.model);
    let mut luck = Luck::of(&[book.company(), "machine", &serial]);
    let mut story = organisation.story(sold.since);
    let technician = luck.pick(&TECHNICIANS);
    let is_new = !organisation.is_old || sold.at > organisation.since + SignedDuration::from_hours(48);
    let installer = if is_new { technician.1 } else { "integration:erp" };
    let installed_on = day_of(sold.at);
    let warranty_days = if is_new { 730 } else { luck.between(-900, 500) };
    let install = equipment::Command::Install {
        customer: organisation.id,
        maker: sold.kind.maker.into(),
        serial,
        model: format!("{} {}", sold.kind.model, sold.kind.name),
        site: words::address(organisation.region, &mut luck).into(),
        warranty_until: Some(plus_days(installed_on, warranty_days)),
    };
    let id = story.begin(book, installer, sold.at, install);
    let every_days = sold.kind.every_days;
    let first_due = match is_new {
        true => plus_days(installed_on, i64::from(every_days)),
        false => plus_days(installed_on, luck.between(15, i64::from(every_days))),
    };
    let plan = equipment::Command::PlanInspections {
        checklist: sold.kind.checklist.into(),
        every_days,
        first_due,
    };
    story.tell(book, PLANNER, sold.at + minutes(5), id, plan);
    let others: Vec<_> = customers.iter().filter(|other| **other != organisation.id).collect();
    let end = luck.weighted(&[(End::Retired, 4), (End::SoldOn, 3), (End::Open, 93)]);
    let ends_on = match end {
        End::Retired | End::SoldOn => office_day(plus_days(installed_on, luck.between(250, 700))),
        End::Open => plus_days(LAST_DAY, 365),
    };
    let machine = Standing {
        id,
        kind: sold.kind,
        organisation,
        since: story.entered_at,
        ends_on,
    };
    inspect(book, &mut luck, &machine, first_due);
    break_down(book, &mut luck, &machine, story, sold.at);
    let mut story = organisation.story(machine.since);
    if luck.percent(5) {
        let days = luck.between(60, 500);
        let moved_at = later(sold.at, days, &mut luck);
        if day_of(moved_at) < ends_on {
            let site = words::address(organisation.region, &mut luck).into();
            story.tell(book, technician.1, moved_at, id, equipment::Command::Move { site });
        }
    }
    let ended_at = office_time(ends_on, &mut luck);
    match end {
        End::Retired => story.tell(book, technician.1, ended_at, id, equipment::Command::Retire),
        End::SoldOn if !others.is_empty() => {
            let transfer = equipment::Command::TransferOwner {
                to: **luck.pick(&others),
                reason: "二手轉售".into(),
            };
            story.tell(book, organisation.rep.actor, ended_at, id, transfer);
        }
        End::SoldOn | End::Open => {}
    }
}

/// One inspection for each day on which one is due.
fn inspect(book: &mut Book, luck: &mut Luck, machine: &Standing<'_>, first_due: Date) {
    let mut due = first_due;
    while due <= plus_days(LAST_DAY, 14) && plus_days(due, 35) < machine.ends_on {
        inspection(book, luck, machine, due);
        due = plus_days(due, i64::from(machine.kind.every_days));
    }
}

fn inspection(book: &mut Book, luck: &mut Luck, machine: &Standing<'_>, due: Date) {
    let scheduled_at = at(plus_days(due, -14), 6, 0).max(machine.since);
    let mut story = machine.organisation.story(scheduled_at);
    let schedule = inspection::Command::Schedule {
        equipment: machine.id,
        due,
        checklist: machine.kind.checklist.into(),
    };
    let id: Id<Inspection> = story.begin(book, PLANNER, scheduled_at, schedule);
    let (name, technician) = *luck.pick(&TECHNICIANS);
    let shift = match luck.percent(7) {
        true => luck.between(8, 25),
        false => luck.between(-4, 2),
    };
    let mut at = office_time(office_day(plus_days(due, shift)), luck).max(scheduled_at);
    if luck.percent(2) {
        let reason = luck.pick(&["客戶停工", "與維修合併", "重複排程"]);
        let void = inspection::Command::Void {
            reason: (*reason).into(),
        };
        story.tell(book, PLANNER, at, id, void);
        return;
    }
    story.tell(book, technician, at, id, inspection::Command::Start);
    let mut failed = Vec::new();
    for item in machine.kind.items {
        at += minutes(luck.between(4, 15));
        let passes = !luck.percent(3);
        story.tell(book, technician, at, id, reading(luck, item, passes));
        if !passes && luck.percent(40) {
            // Put right on the spot and read again.
            at += minutes(luck.between(10, 30));
            story.tell(book, technician, at, id, reading(luck, item, true));
        } else if !passes {
            failed.push(item.name);
        }
    }
    at += minutes(luck.between(5, 20));
    story.tell(book, technician, at, id, inspection::Command::Finish);
    if failed.is_empty() {
        return;
    }
    let work = Work {
        customer: machine.organisation.id,
        equipment: Some(machine.id),
        origin: StreamRef::of(id).to_string(),
        summary: format!("檢驗不合格：{}", failed.join("、")),
        technician: (name, technician),
        parts: machine.kind.parts,
        days: luck.between(2, 9),
    };
    let since = story.entered_at;
    do_job(book, luck, machine.organisation.key(), since, at + minutes(30), work);
}

fn reading(luck: &mut Luck, item: &Item, passes: bool) -> inspection::Command {
    let (value, unit) = match item.reading {
        Reading::Seen if passes => ("正常".to_owned(), None),
        Reading::Seen => ("異常".to_owned(), None),
        Reading::Measured(unit, low, high) => {
            let tenths = match passes {
                true => luck.between(low, high),
                false => high + 1 + (high - low) * luck.between(1, 6) / 10,
            };
            let sign = if tenths < 0 { "-" } else { "" };
            let value = format!("{sign}{}.{}", tenths.abs() / 10, tenths.abs() % 10);
            (value, (!unit.is_empty()).then(|| unit.to_owned()))
        }
    };
    inspection::Command::RecordReading {
        item: item.name.into(),
        value,
        unit,
        pass: passes,
    }
}

/// Breakdowns, each with a case and a job. Those at night are entered in the morning.
fn break_down(book: &mut Book, luck: &mut Luck, machine: &Standing<'_>, mut story: Story, from: Timestamp) {
    let mut day = day_of(from);
    loop {
        day = plus_days(day, 40 + luck.skewed(430));
        if day > LAST_DAY || plus_days(day, 45) > machine.ends_on {
            return;
        }
        let down_at = at(day, luck.between(0, 23) as i8, luck.between(0, 59) as i8);
        let called_at = match (office_day(day) == day, hour_of(down_at, day)) {
            (true, 9..18) => down_at + minutes(luck.between(3, 40)),
            (true, ..9) => at(day, 9, 0) + minutes(luck.between(0, 50)),
            _ => at(office_day(plus_days(day, 1)), 9, 0) + minutes(luck.between(0, 50)),
        };
        let symptom = *luck.pick(machine.kind.faults);
        let delay = called_at.duration_since(down_at);
        let report = equipment::Command::ReportDown {
            symptom: symptom.into(),
        };
        story.tell_late(book, "user:yun", down_at, delay, machine.id, report);
        let called_at = story.entered_at;
        let Some(restored_at) = mend(book, luck, machine, called_at, symptom) else {
            return;
        };
        story.tell(book, "user:yun", restored_at, machine.id, equipment::Command::Restore);
        day = day_of(restored_at);
    }
}

fn hour_of(time: Timestamp, day: Date) -> i64 {
    time.duration_since(at(day, 0, 0)).as_hours()
}

/// The case and the job of a breakdown; when the machine ran again.
fn mend(
    book: &mut Book,
    luck: &mut Luck,
    machine: &Standing<'_>,
    called_at: Timestamp,
    symptom: &str,
) -> Option<Timestamp> {
    let organisation = machine.organisation;
    let call = Call {
        customer: organisation.id,
        since: called_at,
        at: called_at + minutes(2),
        subject: format!("{} {symptom}", machine.kind.name),
        kind: case::Kind::Incident,
        priority: luck.weighted(&[(Priority::Urgent, 25), (Priority::High, 50), (Priority::Normal, 25)]),
        channel: luck.weighted(&[(Channel::Phone, 70), (Channel::Line, 25), (Channel::Email, 5)]),
        category: "設備故障",
        group: "現場服務",
        about: Some(machine.id.uuid()),
    };
    let mut open = open_case(book, luck, call);
    let technician = *luck.pick(&TECHNICIANS);
    let work = Work {
        customer: organisation.id,
        equipment: Some(machine.id),
        origin: StreamRef::of(open.id).to_string(),
        summary: format!("{} {symptom}", machine.kind.name),
        technician,
        parts: machine.kind.parts,
        days: luck.between(0, 3),
    };
    let (since, begun_at) = (open.story.entered_at, open.at + minutes(15));
    let done = do_job(book, luck, organisation.key(), since, begun_at, work);
    let Some(done_at) = done else {
        finish_case(
            book,
            luck,
            &mut open,
            begun_at + SignedDuration::from_hours(30),
            "self-restored",
        );
        return Some(begun_at + SignedDuration::from_hours(30));
    };
    if done_at > begun_at + SignedDuration::from_hours(72) {
        let on = case::Command::SetPending {
            on: PendingOn::ThirdParty,
        };
        open.story.tell(book, open.agent.1, begun_at + minutes(60), open.id, on);
        let resumed_at = done_at - minutes(20);
        open.story
            .tell(book, open.agent.1, resumed_at, open.id, case::Command::Resume);
    }
    finish_case(book, luck, &mut open, done_at + minutes(25), "repaired");
    Some(done_at)
}

/// What a job is about.
struct Work {
    customer: Id<Customer>,
    equipment: Option<Id<Equipment>>,
    origin: String,
    summary: String,
    technician: (&'static str, &'static str),
    parts: &'static [&'static str],
    /// Days until somebody comes.
    days: i64,
}

/// A job from call to signature; when it was completed, unless it was cancelled.
fn do_job(
    book: &mut Book,
    luck: &mut Luck,
    key: Uuid,
    since: Timestamp,
    created_at: Timestamp,
    work: Work,
) -> Option<Timestamp> {
    let dispatcher = "user:pei";
    let mut story = Story::new(key, since);
    let create = job::Command::Create {
        customer: work.customer,
        equipment: work.equipment,
        origin: Some(work.origin),
        summary: work.summary.into(),
    };
    let id: Id<Job> = story.begin(book, dispatcher, created_at, create);
    let (name, technician) = work.technician;
    let appointment = |start: Timestamp| job::Command::Schedule {
        start,
        end: start + minutes(120),
        technician: name.into(),
    };
    let mut start = later(created_at + minutes(90), work.days, luck);
    story.tell(book, dispatcher, created_at + minutes(20), id, appointment(start));
    if luck.percent(4) {
        let reason = luck.pick(&["客戶自行排除", "客戶取消", "重複派工"]);
        let cancel = job::Command::Cancel {
            reason: (*reason).into(),
        };
        story.tell(book, dispatcher, created_at + minutes(60), id, cancel);
        return None;
    }
    if luck.percent(12) {
        let asked_at = created_at + minutes(75);
        start = later(start, 1, luck);
        story.tell(book, dispatcher, asked_at, id, appointment(start));
    }
    story.tell(book, dispatcher, start - minutes(40), id, job::Command::Dispatch);
    let mut begun_at = start + minutes(luck.between(-10, 25));
    story.tell(book, technician, begun_at, id, job::Command::Start);
    if luck.percent(10) {
        let reason = "等待料件".to_owned();
        story.tell(
            book,
            technician,
            begun_at + minutes(50),
            id,
            job::Command::Hold { reason },
        );
        let days = luck.between(2, 12);
        begun_at = later(begun_at, days, luck);
        if luck.percent(50) {
            story.tell(book, dispatcher, begun_at - minutes(120), id, appointment(begun_at));
            story.tell(book, dispatcher, begun_at - minutes(40), id, job::Command::Dispatch);
        }
        story.tell(book, technician, begun_at, id, job::Command::Start);
    }
    let labour = luck.between(3, 20) * 10;
    let done_at = begun_at + minutes(labour);
    let resolution = luck.weighted(&[("更換零件後正常", 50), ("調整後正常", 30), ("清潔保養後正常", 20)]);
    let mut parts = Vec::new();
    if resolution.starts_with("更換") {
        parts.push(job::Part {
            sku: (*luck.pick(work.parts)).into(),
            quantity: luck.between(1, 3) as u32,
        });
    }
    let complete = job::Command::Complete {
        resolution: resolution.into(),
        parts,
        labour_minutes: labour as u32,
    };
    // Without a signal in the basement, it is entered in the evening.
    let delay = match luck.percent(10) {
        true => minutes(luck.between(60, 400)),
        false => SignedDuration::ZERO,
    };
    story.tell_late(book, technician, done_at, delay, id, complete);
    let by = words::person(luck).into();
    let signed_at = story.entered_at + minutes(5);
    story.tell(book, technician, signed_at, id, job::Command::SignOff { by });
    if luck.percent(95) {
        let closed_at = later(signed_at, 1, luck);
        story.tell(book, dispatcher, closed_at, id, job::Command::Close);
    }
    Some(done_at)
}

/// Somebody calls or writes.
pub struct Call {
    pub customer: Id<Customer>,
    pub since: Timestamp,
    pub at: Timestamp,
    pub subject: String,
    pub kind: case::Kind,
    pub priority: Priority,
    pub channel: Channel,
    pub category: &'static str,
    pub group: &'static str,
    pub about: Option<Uuid>,
}

struct OpenCase {
    id: Id<Case>,
    story: Story,
    at: Timestamp,
    agent: (&'static str, &'static str),
    customer: Id<Customer>,
    channel: Channel,
}

/// The call, and the first answer.
fn open_case(book: &mut Book, luck: &mut Luck, call: Call) -> OpenCase {
    let agent = *luck.pick(&AGENTS);
    let mut story = Story::new(call.customer.uuid(), call.since);
    let at = call.at;
    let open = case::Command::Open {
        customer: call.customer,
        subject: call.subject.into(),
        kind: call.kind,
        priority: call.priority,
        channel: call.channel,
        about: call.about.into_iter().collect(),
    };
    let by = match call.channel {
        Channel::Line => "integration:line",
        Channel::Email | Channel::Web => "integration:website",
        _ => agent.1,
    };
    let id = story.begin(book, by, at, open);
    if call.channel == Channel::Line {
        let welcome = reply(Author::Bot, "您好，已收到您的訊息，專員將盡快回覆");
        story.tell(book, "agent:helper", at + minutes(1), id, welcome);
    }
    let classify = case::Command::Classify {
        category: call.category.into(),
        priority: None,
        reason: None,
    };
    story.tell(book, agent.1, at + minutes(luck.between(2, 6)), id, classify);
    let assign = case::Command::Assign {
        agent: luck.percent(80).then(|| agent.0.to_owned()),
        group: Some(call.group.into()),
    };
    story.tell(book, agent.1, at + minutes(7), id, assign);
    let answered_at = at + minutes(8 + luck.skewed(75));
    story.tell(book, agent.1, answered_at, id, reply(Author::Agent, "已為您登記處理"));
    OpenCase {
        id,
        story,
        at: answered_at,
        agent,
        customer: call.customer,
        channel: call.channel,
    }
}

fn reply(author: Author, text: &str) -> case::Command {
    case::Command::Reply {
        author,
        public: true,
        text: Some(text.into()),
    }
}

/// Resolved, closed some days later, and now and then not over yet.
fn finish_case(book: &mut Book, luck: &mut Luck, open: &mut OpenCase, at: Timestamp, code: &str) {
    let (id, agent) = (open.id, open.agent.1);
    let resolve = |code: &str| case::Command::Resolve {
        code: code.into(),
        note: None,
    };
    open.story.tell(book, agent, at, id, resolve(code));
    let mut resolved_at = at;
    if luck.percent(6) {
        let days = luck.between(1, 3);
        let again_at = later(at, days, luck);
        let reason = luck.pick(&["問題再次發生", "客戶不滿意處理結果", "漏了一項"]);
        let reopen = case::Command::Reopen {
            reason: (*reason).into(),
        };
        open.story.tell(book, agent, again_at, id, reopen);
        let answer = reply(Author::Agent, "抱歉造成不便，馬上處理");
        open.story
            .tell(book, agent, again_at + minutes(luck.between(5, 90)), id, answer);
        let days = luck.between(0, 4);
        resolved_at = later(again_at + minutes(100), days, luck);
        open.story.tell(book, agent, resolved_at, id, resolve(code));
    }
    let closed_at = at_night(plus_days(day_of(resolved_at), luck.between(4, 7)));
    open.story
        .tell(book, "system:desk", closed_at, id, case::Command::Close);
}

fn at_night(day: Date) -> Timestamp {
    at(day, 2, 0)
}

/// A case that is answered without anybody driving out.
pub fn handle(book: &mut Book, luck: &mut Luck, call: Call, code: &str) {
    let mut open = open_case(book, luck, call);
    let (id, agent) = (open.id, open.agent);
    let mut at = open.at;
    if luck.percent(7) {
        at += minutes(luck.between(60, 600));
        let reason = luck.pick(&["客戶要求主管回電", "超過承諾時間", "金額較大"]);
        let escalate = case::Command::Escalate {
            reason: (*reason).into(),
        };
        open.story.tell(book, agent.1, at, id, escalate);
        let to_lead = case::Command::Assign {
            agent: Some(SERVICE_LEAD.0.into()),
            group: None,
        };
        open.story.tell(book, SERVICE_LEAD.1, at + minutes(20), id, to_lead);
        open.agent = SERVICE_LEAD;
    }
    for _ in 0..luck.weighted(&[(0, 55), (1, 35), (2, 10)]) {
        at += minutes(luck.between(30, 400));
        let on = luck.weighted(&[(PendingOn::Customer, 75), (PendingOn::ThirdParty, 25)]);
        open.story
            .tell(book, open.agent.1, at, id, case::Command::SetPending { on });
        let days = luck.between(0, 4);
        at = later(at, days, luck);
        if on == PendingOn::Customer {
            let contact = Contact {
                customer: open.customer,
                actor: open.agent.1,
                channel: open.channel,
                direction: Direction::In,
                subject: "補充說明",
                body: None,
                about: Some(id.uuid()),
                at,
                delay: SignedDuration::ZERO,
            };
            contact.tell(book, luck);
        }
        open.story
            .tell(book, open.agent.1, at + minutes(2), id, case::Command::Resume);
        open.story.tell(
            book,
            open.agent.1,
            at + minutes(15),
            id,
            reply(Author::Agent, "謝謝您的補充，說明如下"),
        );
        at += minutes(15);
    }
    let days = luck.skewed(2);
    let resolved_at = later(at, days, luck);
    if luck.percent(2) {
        // Nobody ever comes back to it.
        return;
    }
    finish_case(book, luck, &mut open, resolved_at, code);
}

/// What an organisation asks, and the calls of its rep between the deals.
pub fn questions(book: &mut Book, organisation: &Organisation) {
    let mut luck = Luck::of(&[book.company(), "questions", &organisation.id.to_string()]);
    let mut at = organisation.since;
    loop {
        let days = 10 + luck.skewed(200);
        at = later(at, days, &mut luck);
        if day_of(at) > LAST_DAY {
            break;
        }
        let (subject, kind, category, code) = luck.weighted(&[
            (("詢問耗材規格", case::Kind::Question, "零件", "answered"), 30),
            (("索取發票副本", case::Kind::Request, "帳務", "sent"), 20),
            (("申請操作訓練", case::Kind::Request, "訓練", "arranged"), 15),
            (("保固內容疑問", case::Kind::Question, "保固", "answered"), 20),
            (("交貨延遲", case::Kind::Complaint, "物流", "apologised"), 8),
            (("維修品質不佳", case::Kind::Complaint, "服務品質", "compensated"), 7),
        ]);
        let call = Call {
            customer: organisation.id,
            since: organisation.since,
            at,
            subject: subject.into(),
            kind,
            priority: luck.weighted(&[(Priority::Low, 20), (Priority::Normal, 65), (Priority::High, 15)]),
            channel: luck.weighted(&[
                (Channel::Phone, 45),
                (Channel::Email, 30),
                (Channel::Line, 20),
                (Channel::Fax, 5),
            ]),
            category,
            group: "客服",
            about: None,
        };
        handle(book, &mut luck, call, code);
    }
    let mut at = organisation.since;
    loop {
        let days = 3 + luck.skewed(38);
        at = later(at, days, &mut luck);
        if day_of(at) > LAST_DAY {
            break;
        }
        meet(book, &mut luck, organisation, at, None);
    }
}
