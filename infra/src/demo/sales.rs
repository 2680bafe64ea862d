//! Selling machines: leads, the companies that they become, and their deals.

use domain::customer::{self, ContactKind, Customer};
use domain::interaction::{self, Channel, Direction, Interaction};
use domain::lead::{self, Lead};
use domain::opportunity::{self, ForecastCategory, Opportunity};
use domain::pipeline::STAGES;
use domain::{Currency, Id, Money, id_from_key};
use jiff::civil::{Date, date};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::Scale;
use super::book::{Book, Story};
use super::calendar::{
    FIRST_DAY, LAST_DAY, at, day_of, days_between, later, minutes, office_day, office_time, plus_days,
};
use super::luck::Luck;
use super::words::{self, ABROAD, MACHINES, Machine, REPS, Rep, SALES_LEAD};

/// Jun leaves; Ling takes over from this day.
const JUN_LEFT: Date = date(2026, 4, 1);

/// A customer who buys machines.
pub struct Organisation {
    pub id: Id<Customer>,
    /// What people call it.
    pub short: String,
    pub region: &'static str,
    pub rep: &'static Rep,
    pub currency: Currency,
    /// It was a customer before the tale begins, and has machines.
    pub is_old: bool,
    /// When it was entered here.
    pub since: Timestamp,
    /// The deal with which a lead was converted.
    first_deal: Option<Deal>,
}

/// A machine that was sold, or stood there before.
pub struct Sold {
    pub kind: &'static Machine,
    pub at: Timestamp,
    pub since: Timestamp,
}

struct Deal {
    id: Id<Opportunity>,
    at: Timestamp,
    since: Timestamp,
    kind: &'static Machine,
    quantity: i64,
    amount: i64,
    close_date: Date,
    /// Where in the pipeline it begins.
    first_stage: usize,
}

impl Organisation {
    pub fn key(&self) -> Uuid {
        self.id.uuid()
    }

    pub fn story(&self, since: Timestamp) -> Story {
        Story::new(self.key(), since.max(self.since))
    }

    /// Who looks after it on this day.
    pub fn rep_on(&self, day: Date) -> &'static Rep {
        rep_on(self.rep, day)
    }
}

fn rep_on(rep: &'static Rep, day: Date) -> &'static Rep {
    match rep.name {
        "jun" if day >= JUN_LEFT => &REPS[3],
        _ => rep,
    }
}

/// Those who were customers before the CRM: they are taken over on the first day.
pub fn known_organisations(book: &mut Book, scale: Scale) -> Vec<Organisation> {
    let mut known = Vec::new();
    for n in 0..scale.of(120) as usize {
        let mut luck = Luck::of(&[book.company(), "organisation", &n.to_string()]);
        let at = at(FIRST_DAY, 9, 0) + SignedDuration::from_secs(7 * n as i64);
        let rep = luck.pick(&REPS);
        known.push(register(book, &mut luck, n, rep, at, true));
    }
    known
}

fn register(
    book: &mut Book,
    luck: &mut Luck,
    n: usize,
    rep: &'static Rep,
    at: Timestamp,
    is_old: bool,
) -> Organisation {
    let abroad = match n % 37 {
        5 => ABROAD.get(n / 37),
        _ => None,
    };
    let (name, short) = words::company(n);
    let (name, short, country, locale) = match abroad {
        Some((name, short, country)) => ((*name).to_owned(), (*short).to_owned(), *country, "en"),
        None => (name, short, "TW", "zh-TW"),
    };
    let (erp, number) = (format!("{}-erp", book.company()), format!("C{:05}", n + 1));
    let id = Id::new(id_from_key("customer", &erp, &number));
    let mut story = Story::new(id.uuid(), at);
    let actor = if is_old { "integration:erp" } else { rep.actor };
    let register = customer::Command::Register {
        kind: customer::Kind::Organisation,
        name: name.into(),
        country: Some(country.into()),
        locale: Some(locale.into()),
        external: vec![domain::ExternalKey {
            source: erp,
            key: number.clone(),
        }],
    };
    story.tell(book, actor, at, id, register);
    let owner = rep_on(rep, day_of(at)).name.to_owned();
    story.tell(book, actor, at, id, customer::Command::AssignOwner { owner });
    let set = |kind, value: String| customer::Command::SetContactPoint {
        kind,
        value: value.into(),
        primary: true,
    };
    let domain = number.to_ascii_lowercase();
    story.tell(
        book,
        actor,
        at,
        id,
        set(ContactKind::Email, format!("info@{domain}.example")),
    );
    story.tell(book, actor, at, id, set(ContactKind::Phone, words::phone(n)));
    if luck.percent(40) {
        let address = words::address(rep.region, luck);
        story.tell(book, actor, at, id, set(ContactKind::Address, address));
    }
    Organisation {
        id,
        short,
        region: rep.region,
        rep,
        currency: if abroad.is_some() { Currency::USD } else { Currency::TWD },
        is_old,
        since: story.entered_at,
        first_deal: None,
    }
}

/// Everybody who asked, and those of them who became customers. `known` companies are there already.
pub fn leads(book: &mut Book, scale: Scale, known: usize) -> Vec<Organisation> {
    let mut converted = Vec::new();
    for n in 0..scale.of(1_050) as usize {
        let mut luck = Luck::of(&[book.company(), "lead", &n.to_string()]);
        let day = office_day(plus_days(FIRST_DAY, luck.between(0, 728)));
        let at = office_time(day, &mut luck);
        converted.extend(lead(book, &mut luck, known + n, at));
    }
    converted.retain(|organisation| organisation.since <= at(LAST_DAY, 23, 59));
    converted
}

fn lead(book: &mut Book, luck: &mut Luck, n: usize, captured_at: Timestamp) -> Option<Organisation> {
    let (source, campaign, actor) = luck.weighted(&[
        (("web", None, "integration:website"), 35),
        (("fair", Some("工具機展"), SALES_LEAD), 22),
        (("referral", None, SALES_LEAD), 18),
        (("line", None, "integration:line"), 13),
        (("cold-call", None, SALES_LEAD), 12),
    ]);
    let rep = luck.pick(&REPS);
    let name = words::person(luck);
    let (_, short) = words::company(n);
    let capture = lead::Command::Capture {
        source: source.into(),
        name: name.as_str().into(),
        company: luck.percent(85).then(|| short.clone()),
        contact_points: vec![lead::ContactPoint {
            kind: ContactKind::Phone,
            value: words::phone(500_000 + n).into(),
        }],
        campaign: campaign.map(|fair| format!("{} {fair}", day_of(captured_at).year())),
    };
    let id = book.new_id::<Lead>(&capture);
    let mut story = Story::new(id.uuid(), captured_at);
    story.tell(book, actor, captured_at, id, capture);
    let days = luck.weighted(&[(0, 65), (1, 27), (3, 8)]);
    let mut at = later(captured_at, days, luck);
    for round in 0..2 {
        let rep = rep_on(rep, day_of(at));
        let owner = rep.name.to_owned();
        story.tell(book, SALES_LEAD, at, id, lead::Command::Assign { owner });
        for _ in 0..luck.between(1, 4) {
            let days = luck.skewed(2);
            at = later(at, days, luck);
            let channel = luck.weighted(&[(Channel::Phone, 60), (Channel::Email, 25), (Channel::Line, 15)]);
            let outcome = luck.weighted(&[("無人接聽", 30), ("請寄資料", 25), ("已約拜訪", 20), ("再聯絡", 25)]);
            let attempt = lead::Command::LogAttempt {
                channel,
                outcome: outcome.into(),
            };
            story.tell(book, rep.actor, at, id, attempt);
        }
        let days = luck.between(1, 6);
        at = later(at, days, luck);
        match luck.weighted(&[("convert", 33), ("no", 36), ("not now", 16), ("open", 15)]) {
            "convert" => {
                story.tell(book, rep.actor, at, id, lead::Command::Qualify);
                let days = luck.between(0, 9);
                at = later(at, days, luck);
                let at = at.max(story.entered_at);
                let organisation = become_customer(book, luck, n, rep, source, at);
                let convert = lead::Command::Convert {
                    customer: organisation.id,
                    opportunity: organisation.first_deal.as_ref().map(|deal| deal.id),
                };
                story.tell(book, rep.actor, at + minutes(5), id, convert);
                return Some(organisation);
            }
            "no" => {
                let reason = luck.weighted(&[
                    ("沒有預算", 35),
                    ("已向他人購買", 25),
                    ("聯絡不上", 25),
                    ("不是目標客戶", 15),
                ]);
                story.tell(
                    book,
                    rep.actor,
                    at,
                    id,
                    lead::Command::Disqualify { reason: reason.into() },
                );
                return None;
            }
            "not now" if round == 0 => {
                story.tell(book, rep.actor, at, id, lead::Command::Recycle);
                let days = luck.between(60, 150);
                at = later(at, days, luck);
            }
            _ => return None,
        }
    }
    None
}

fn become_customer(
    book: &mut Book,
    luck: &mut Luck,
    n: usize,
    rep: &'static Rep,
    source: &str,
    at: Timestamp,
) -> Organisation {
    let mut organisation = register(book, luck, n, rep, at, false);
    if luck.percent(92) {
        organisation.first_deal = Some(open(book, luck, &organisation, at + minutes(3), Some(source)));
    }
    organisation
}

/// All deals of an organisation, and the machines that came of them.
pub fn deals(book: &mut Book, organisation: &Organisation) -> Vec<Sold> {
    let mut luck = Luck::of(&[book.company(), "deals", &organisation.id.to_string()]);
    let mut machines = Vec::new();
    if organisation.is_old {
        for _ in 0..luck.between(1, 4) {
            machines.push(Sold {
                kind: luck.pick(&MACHINES),
                at: organisation.since + minutes(60 + luck.between(0, 600)),
                since: organisation.since,
            });
        }
    }
    let mut next = organisation.since;
    if let Some(deal) = &organisation.first_deal {
        next = deal.at;
        machines.extend(play(book, &mut luck, organisation, deal));
    }
    loop {
        let days = 30 + luck.skewed(190);
        next = later(next, days, &mut luck);
        if day_of(next) > LAST_DAY {
            return machines;
        }
        let source = luck.weighted(&[("existing-customer", 70), ("fair", 15), ("web", 15)]);
        let deal = open(book, &mut luck, organisation, next, Some(source));
        machines.extend(play(book, &mut luck, organisation, &deal));
    }
}

fn open(book: &mut Book, luck: &mut Luck, organisation: &Organisation, at: Timestamp, source: Option<&str>) -> Deal {
    let kind = luck.pick(&MACHINES);
    let quantity = luck.weighted(&[(1, 70), (2, 20), (3, 7), (5, 3)]);
    let price = match organisation.currency {
        Currency::USD => kind.price / 32,
        _ => kind.price,
    };
    let amount = round(price * quantity * luck.between(92, 108) / 100, organisation);
    let first_stage = usize::from(luck.percent(12));
    let close_date = plus_days(day_of(at), luck.between(35, 150));
    let open = opportunity::Command::Open {
        customer: organisation.id,
        name: format!("{} {} {quantity} 台", organisation.short, kind.name),
        pipeline: None,
        stage: (first_stage > 0).then(|| STAGES[first_stage].name.to_owned()),
        amount: luck.percent(80).then(|| money(amount, organisation)),
        close_date,
        owner: organisation.rep_on(day_of(at)).name.into(),
        source: source.map(str::to_owned),
    };
    let mut story = organisation.story(at);
    let id = story.begin(book, organisation.rep_on(day_of(at)).actor, at, open);
    Deal {
        id,
        at,
        since: story.entered_at,
        kind,
        quantity,
        amount,
        close_date,
        first_stage,
    }
}

/// A price that people would name.
fn round(major: i64, organisation: &Organisation) -> i64 {
    match organisation.currency {
        Currency::USD => major / 100 * 100,
        _ => major / 1_000 * 1_000,
    }
}

fn money(major: i64, organisation: &Organisation) -> Money {
    Money::new(major * 100, organisation.currency)
}

/// From stage to stage until it is won, lost or forgotten.
fn play(book: &mut Book, luck: &mut Luck, organisation: &Organisation, deal: &Deal) -> Vec<Sold> {
    let mut story = organisation.story(deal.since);
    let (id, mut at) = (deal.id, deal.at);
    let (mut amount, mut close_date) = (deal.amount, deal.close_date);
    let mut stages = (deal.first_stage..STAGES.len()).peekable();
    while let Some(place) = stages.next() {
        let mean_days = [9, 14, 20, 13][place];
        for _ in 0..luck.between(0, 2) {
            let days = luck.skewed(mean_days / 2);
            let met_at = later(at, days, luck);
            meet(book, luck, organisation, met_at, Some(id.uuid()));
        }
        let days = 1 + luck.skewed(mean_days);
        at = later(at, days, luck);
        let actor = organisation.rep_on(day_of(at)).actor;
        if day_of(at) > close_date {
            close_date = plus_days(day_of(at), luck.between(14, 60));
            story.tell(book, actor, at, id, opportunity::Command::SetCloseDate { close_date });
        }
        if luck.percent([20, 18, 20, 16][place]) {
            return lose(book, luck, organisation, story, deal, amount, at);
        }
        if luck.percent(4) {
            return vec![];
        }
        let Some(next) = stages.peek() else { break };
        // Reps enter the week on Friday evening, some of them.
        let delay = match luck.percent(7) {
            true => SignedDuration::from_hours(24 * luck.between(1, 6)),
            false => SignedDuration::ZERO,
        };
        let to_next = change_stage(STAGES[*next].name, None);
        story.tell_late(book, actor, at, delay, id, to_next);
        match *next {
            2 => {
                let before = amount;
                amount = round(amount * luck.between(90, 115) / 100, organisation);
                if amount != before {
                    let amount = money(amount, organisation);
                    story.tell(
                        book,
                        actor,
                        at + minutes(10),
                        id,
                        opportunity::Command::SetAmount { amount },
                    );
                }
            }
            3 => {
                let category = luck.weighted(&[(ForecastCategory::BestCase, 60), (ForecastCategory::Commit, 40)]);
                let set = opportunity::Command::SetForecastCategory { category };
                story.tell(book, actor, at + minutes(10), id, set);
                if luck.percent(8) {
                    let (basis_points, reason) =
                        luck.weighted(&[((9_000, "已口頭承諾"), 60), ((6_000, "採購換人"), 40)]);
                    let reason = reason.into();
                    let set = opportunity::Command::OverrideProbability { basis_points, reason };
                    story.tell(book, actor, at + minutes(15), id, set);
                }
                if luck.percent(7) {
                    at = later(at, 4, luck);
                    let back = change_stage(STAGES[2].name, Some("客戶要求重新報價"));
                    story.tell(book, actor, at, id, back);
                    at = later(at, 6, luck);
                    story.tell(book, actor, at, id, change_stage(STAGES[3].name, None));
                }
            }
            _ => {}
        }
    }
    win(book, luck, organisation, story, deal, amount, at)
}

fn change_stage(to: &str, reason: Option<&str>) -> opportunity::Command {
    opportunity::Command::ChangeStage {
        to: to.into(),
        reason: reason.map(str::to_owned),
    }
}

fn win(
    book: &mut Book,
    luck: &mut Luck,
    organisation: &Organisation,
    mut story: Story,
    deal: &Deal,
    amount: i64,
    at: Timestamp,
) -> Vec<Sold> {
    let discounted = luck
        .percent(35)
        .then(|| round(amount * luck.between(93, 98) / 100, organisation));
    let win = opportunity::Command::Win {
        amount: Some(money(discounted.unwrap_or(amount), organisation)),
        reason: Some(
            luck.weighted(&[("價格", 25), ("交期", 20), ("服務", 35), ("規格", 20)])
                .into(),
        ),
    };
    story.tell(book, organisation.rep_on(day_of(at)).actor, at, deal.id, win);
    let mut machines = Vec::new();
    for _ in 0..deal.quantity {
        let days = luck.between(20, 45);
        machines.push(Sold {
            kind: deal.kind,
            at: later(at, days, luck),
            since: story.entered_at,
        });
    }
    machines
}

fn lose(
    book: &mut Book,
    luck: &mut Luck,
    organisation: &Organisation,
    mut story: Story,
    deal: &Deal,
    amount: i64,
    mut at: Timestamp,
) -> Vec<Sold> {
    let competitor = luck.weighted(&[
        (Some("北辰機械"), 30),
        (Some("東曜工業"), 25),
        (Some("自由貿易商"), 10),
        (None, 35),
    ]);
    let lose = opportunity::Command::Lose {
        reason: luck
            .weighted(&[("價格", 40), ("預算取消", 25), ("交期", 15), ("規格不符", 20)])
            .into(),
        competitor: competitor.map(str::to_owned),
    };
    story.tell(book, organisation.rep_on(day_of(at)).actor, at, deal.id, lose);
    if !luck.percent(6) {
        return vec![];
    }
    let days = luck.between(15, 60);
    at = later(at, days, luck);
    let reopen = opportunity::Command::Reopen {
        reason: "客戶重新詢價".into(),
    };
    story.tell(book, organisation.rep_on(day_of(at)).actor, at, deal.id, reopen);
    let close_date = plus_days(day_of(at), 30);
    let actor = organisation.rep_on(day_of(at)).actor;
    story.tell(
        book,
        actor,
        at,
        deal.id,
        opportunity::Command::SetCloseDate { close_date },
    );
    if luck.percent(50) {
        let days = luck.between(7, 25);
        at = later(at, days, luck);
        return win(book, luck, organisation, story, deal, amount, at);
    }
    vec![]
}

/// A contact about something, recorded at once or, after a visit, when the rep is back at the desk some day.
pub fn meet(book: &mut Book, luck: &mut Luck, organisation: &Organisation, at: Timestamp, about: Option<Uuid>) {
    let (channel, direction, subject) = luck.weighted(&[
        ((Channel::Phone, Direction::Out, "電話追蹤進度"), 22),
        ((Channel::Phone, Direction::In, "來電詢問"), 14),
        ((Channel::Email, Direction::Out, "寄送報價與型錄"), 18),
        ((Channel::Email, Direction::In, "來信詢問規格"), 12),
        ((Channel::Line, Direction::In, "LINE 訊息"), 10),
        ((Channel::Line, Direction::Out, "LINE 回覆"), 8),
        ((Channel::Face, Direction::Out, "現場拜訪"), 16),
    ]);
    let delay = match channel == Channel::Face && luck.percent(35) {
        true => SignedDuration::from_hours(luck.between(18, 120)),
        false => SignedDuration::ZERO,
    };
    let body = luck.pick(&[
        "請下週再聯絡",
        "需要兩份報價比較",
        "希望提早交貨",
        "已轉給採購",
        "約好看現場",
        "詢問保固內容",
    ]);
    let contact = Contact {
        customer: organisation.id,
        actor: organisation.rep_on(day_of(at)).actor,
        channel,
        direction,
        subject,
        body: luck.percent(60).then_some(*body),
        about,
        at,
        delay,
    };
    contact.tell(book, luck);
}

/// A call, a message, a visit.
pub struct Contact {
    pub customer: Id<Customer>,
    pub actor: &'static str,
    pub channel: Channel,
    pub direction: Direction,
    pub subject: &'static str,
    pub body: Option<&'static str>,
    pub about: Option<Uuid>,
    pub at: Timestamp,
    /// So much later it is entered.
    pub delay: SignedDuration,
}

impl Contact {
    /// Messages have the number that their carrier gave them.
    pub fn tell(self, book: &mut Book, luck: &mut Luck) {
        let has_number = matches!(self.channel, Channel::Line | Channel::Email);
        let number = format!("{}-{}", self.at.as_second(), luck.between(100_000, 999_999));
        let record = interaction::Command::Record {
            customer: self.customer,
            channel: self.channel,
            direction: self.direction,
            subject: self.subject.into(),
            body: self.body.map(Into::into),
            provider_id: has_number.then_some(number),
            about: self.about.into_iter().collect(),
        };
        let id: Id<Interaction> = book.new_id::<Interaction>(&record);
        let mut story = Story::new(self.customer.uuid(), self.at);
        story.tell_late(book, self.actor, self.at, self.delay, id, record);
        if luck.percent(1) {
            let correct = interaction::Command::Correct {
                fields: interaction::Fields {
                    subject: Some(format!("{}（更正）", self.subject).into()),
                    ..interaction::Fields::default()
                },
                reason: "主旨寫錯".into(),
            };
            story.tell(book, self.actor, self.at + self.delay + minutes(45), id, correct);
        }
    }
}

/// What happens to customers from above: grades every January, Jun's portfolio to Ling, a new name, an end.
pub fn reviews(book: &mut Book, organisations: &[Organisation]) {
    let last = book.last_entered();
    for organisation in organisations {
        let mut luck = Luck::of(&[book.company(), "review", &organisation.id.to_string()]);
        let id = organisation.id;
        let mut story = organisation.story(organisation.since);
        let mut last_grade = None;
        for year in [2025, 2026] {
            let at = office_time(date(year, 1, 8), &mut luck);
            let grade = luck.weighted(&[("A", 15), ("B", 35), ("C", 50)]);
            if at > organisation.since && last_grade != Some(grade) {
                last_grade = Some(grade);
                let (grade, reason) = (grade.to_owned(), Some("年度檢討".to_owned()));
                story.tell(book, SALES_LEAD, at, id, customer::Command::SetGrade { grade, reason });
            }
        }
        let handed_over_at = office_time(JUN_LEFT, &mut luck);
        if organisation.rep.name == "jun" && organisation.since < at(JUN_LEFT, 0, 0) {
            let owner = "ling".to_owned();
            story.tell(
                book,
                SALES_LEAD,
                handed_over_at,
                id,
                customer::Command::AssignOwner { owner },
            );
        }
        let renamed_at = office_time(office_day(date(2026, 6, 1)), &mut luck);
        if luck.percent(2) && renamed_at > organisation.since && organisation.currency == Currency::TWD {
            let name = format!("{}實業股份有限公司", organisation.short).into();
            story.tell(book, SALES_LEAD, renamed_at, id, customer::Command::Rename { name });
        }
        let closed_at = office_time(office_day(date(2026, 9, 30)), &mut luck);
        let quiet_days = days_between(day_of(last[&organisation.key()]), day_of(closed_at));
        if quiet_days > 150 && luck.percent(50) {
            story.tell(book, SALES_LEAD, closed_at, id, customer::Command::Close);
        }
    }
}
