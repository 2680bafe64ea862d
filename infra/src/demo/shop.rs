//! Three shops for tools: members, receipts, returns, points.

use std::any::Any;
use std::collections::HashMap;

use domain::case::{self, Priority};
use domain::customer::{self, ContactKind, Customer};
use domain::interaction::Channel;
use domain::loyalty::{self, Loyalty};
use domain::purchase::{self, Purchase, RungLine, Tender};
use domain::{Calendar, Companions, Currency, Id, Moment, Stream, StreamRef, id_from_key};
use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::Scale;
use super::book::{Book, Story};
use super::calendar::{FIRST_DAY, LAST_DAY, at, day_of, days_between, later, minutes, plus_days};
use super::luck::Luck;
use super::service::{Call, handle};
use super::words::{self, GOODS};

/// A shop, its tills, and how many receipts it writes on a day, in hundredths.
const STORES: [(&str, i64, i64); 3] = [("台北", 2, 550), ("台中", 1, 380), ("高雄", 1, 330)];

const PROGRAM: &str = "會員點數";
const POS: &str = "integration:pos";
/// A point for every hundred New Taiwan dollars; it is worth one.
const DOLLARS_PER_POINT: i64 = 100;

struct Member {
    id: Id<Customer>,
    /// The day of the last receipt that they will ever have.
    leaves_on: Date,
    /// How keen: 1, 4 or 12.
    weight: i64,
    account: Id<Loyalty>,
    points: loyalty::State,
    /// When something of theirs was entered last.
    since: Timestamp,
}

/// What was sold and may come back, or be claimed by its customer.
struct Receipt {
    id: Id<Purchase>,
    store: usize,
    number: String,
    day: Date,
    member: Option<usize>,
    lines: Vec<RungLine>,
    tenders: Vec<Tender>,
    total: i64,
    /// What points were earned and spent under.
    reference: String,
}

struct Shops<'b> {
    book: &'b mut Book,
    luck: Luck,
    source: String,
    members: Vec<Member>,
    /// By store, in the order in which they joined.
    at_store: [Vec<usize>; 3],
    /// What comes back on a later day.
    returns: HashMap<Date, Vec<Receipt>>,
    /// Whose owner shows the card on a later day.
    claims: HashMap<Date, Vec<(Receipt, usize)>>,
    /// Who gets points for a complaint, on a later day.
    goodwill: HashMap<Date, Vec<usize>>,
    /// Receipts so far, by store, till and day: the till counts from 1 every day.
    numbers: HashMap<(usize, i64, Date), u32>,
}

/// Two years of trade, day by day.
pub fn trade(book: &mut Book, scale: Scale) {
    let members_total = scale.of(1_800);
    let luck = Luck::of(&[book.company(), "shops"]);
    let source = format!("{}-pos", book.company());
    let mut shops = Shops {
        book,
        luck,
        source,
        members: Vec::new(),
        at_store: Default::default(),
        returns: HashMap::new(),
        claims: HashMap::new(),
        goodwill: HashMap::new(),
        numbers: HashMap::new(),
    };
    let days = days_between(FIRST_DAY, LAST_DAY) + 1;
    let mut day = FIRST_DAY;
    for passed in 1..=days {
        // Many join when the program begins, then it goes on evenly.
        let wanted = members_total * (passed + 60).min(days + 60) / (days + 60);
        while (shops.members.len() as i64) < wanted {
            shops.enrol(day);
        }
        if day.day() == 1 {
            shops.expire(day);
        }
        for n in shops.goodwill.remove(&day).unwrap_or_default() {
            let reason = "商品瑕疵補償".to_owned();
            let adjust = loyalty::Command::Adjust {
                points: 50,
                reference: None,
                shortfall: loyalty::Shortfall::Refused,
                reason,
            };
            shops.loyalty(n, adjust, at(day, 9, 30));
        }
        for receipt in shops.returns.remove(&day).unwrap_or_default() {
            shops.take_back(receipt, day);
        }
        for (receipt, member) in shops.claims.remove(&day).unwrap_or_default() {
            shops.claim(receipt, member, day);
        }
        for store in 0..STORES.len() {
            let receipts = receipts_on(&mut shops.luck, scale, store, day);
            let mut times: Vec<_> = (0..receipts).map(|_| shops.luck.between(0, 659)).collect();
            times.sort_unstable();
            for time in times {
                shops.sell(store, day, at(day, 10, 0) + minutes(time));
            }
        }
        day = plus_days(day, 1);
    }
}

fn receipts_on(luck: &mut Luck, scale: Scale, store: usize, day: Date) -> i64 {
    let weekday = match day.weekday() {
        Weekday::Saturday | Weekday::Sunday => 140,
        Weekday::Monday => 75,
        _ => 90,
    };
    let season = match day.month() {
        1 | 12 => 120,
        11 => 130,
        2 | 7 | 8 => 88,
        _ => 97,
    };
    let growth = 100 + days_between(FIRST_DAY, day) / 50;
    // Hundredths of a receipt, of a weekday, of a season, of growth.
    let expected = scale.of(STORES[store].2 * weekday * season * growth / 10_000);
    let spread = luck.between(60, 140) * expected / 100;
    // `expected` is in hundredths of a hundredth.
    spread / 10_000 + i64::from(luck.between(0, 9_999) < spread % 10_000)
}

impl Shops<'_> {
    fn enrol(&mut self, day: Date) {
        let n = self.members.len();
        let company = self.book.company();
        let card = format!("M{:06}", n + 1);
        let mut luck = Luck::of(&[company, "member", &card]);
        let store = luck.weighted(&[(0, 45), (1, 30), (2, 25)]);
        let joined_at = at(day, 10, 30) + minutes(luck.between(0, 600));
        let cards = format!("{company}-member");
        let id = Id::new(id_from_key("customer", &cards, &card));
        let mut story = Story::new(id.uuid(), joined_at);
        let book = &mut *self.book;
        let register = customer::Command::Register {
            kind: customer::Kind::Person,
            name: words::person(&mut luck).into(),
            country: Some("TW".into()),
            locale: Some("zh-TW".into()),
            external: vec![domain::ExternalKey {
                source: cards,
                key: card.clone(),
            }],
        };
        story.tell(book, POS, joined_at, id, register);
        let contact = |kind, value: String| customer::Command::SetContactPoint {
            kind,
            value: value.into(),
            primary: true,
        };
        story.tell(
            book,
            POS,
            joined_at,
            id,
            contact(ContactKind::Phone, words::phone(100_000 + n)),
        );
        if luck.percent(35) {
            let email = format!("{}@members.example", card.to_ascii_lowercase());
            story.tell(book, POS, joined_at, id, contact(ContactKind::Email, email));
        }
        if luck.percent(40) {
            let line = format!("line-{}", card.to_ascii_lowercase());
            story.tell(book, POS, joined_at, id, contact(ContactKind::Line, line));
        }
        let enrol = loyalty::Command::Enrol {
            customer: id,
            program: PROGRAM.into(),
        };
        let account = story.begin(book, POS, joined_at + minutes(1), enrol.clone());
        let leaves_on = match luck.percent(35) {
            true => plus_days(day, luck.skewed(150)),
            false => LAST_DAY,
        };
        self.members.push(Member {
            id,
            leaves_on,
            weight: luck.weighted(&[(1, 60), (4, 30), (12, 10)]),
            account,
            points: loyalty::State::default(),
            since: story.entered_at,
        });
        let events = decide(&self.members[n], enrol, joined_at);
        self.members[n].keep(&events, joined_at);
        self.at_store[store].push(n);
    }

    /// Somebody who has joined and still comes, the keen ones more often.
    fn member(&mut self, store: usize, day: Date) -> Option<usize> {
        let known = &self.at_store[store];
        if known.is_empty() || !self.luck.percent(58) {
            return None;
        }
        for _ in 0..40 {
            let n = *self.luck.pick(known);
            let member = &self.members[n];
            let joined_before = day_of(member.since) < day || member.since < at(day, 10, 0);
            if joined_before && member.leaves_on >= day && self.luck.between(1, 12) <= member.weight {
                return Some(n);
            }
        }
        None
    }

    fn sell(&mut self, store: usize, day: Date, sold_at: Timestamp) {
        let member = self.member(store, day);
        let mut lines = Vec::new();
        let mut total = 0;
        for _ in 0..self.luck.weighted(&[(1, 35), (2, 30), (3, 20), (4, 10), (6, 5)]) {
            let goods: Vec<_> = GOODS.iter().map(|goods| (goods, goods.3)).collect();
            let (sku, name, price, _) = self.luck.weighted(&goods);
            if lines.iter().any(|line: &RungLine| line.sku == *sku) {
                continue;
            }
            let quantity = if *price > 1_000 {
                1
            } else {
                self.luck.weighted(&[(1, 65), (2, 22), (3, 8), (5, 5)])
            };
            let price = if self.luck.percent(12) { price * 9 / 10 } else { *price };
            total += price * quantity;
            lines.push(line(sku, name, quantity, price));
        }
        let number = self.number(store, day);
        let reference = format!("{}/{}/{day}/{}", STORES[store].0, number.0, number.1);
        let points_spent = member.map_or(0, |n| self.points_to_spend(n, total, sold_at));
        let tenders = pay(&mut self.luck, total, points_spent);
        // A till without a line sends its receipts when it has one again; members are not known without a line.
        let delay = match member.is_none() && self.luck.percent(2) {
            true => minutes(self.luck.between(300, 3_000)),
            false => minutes(0),
        };
        let receipt = Receipt {
            id: Id::new(Uuid::nil()),
            store,
            number: number.1.clone(),
            day,
            member,
            lines,
            tenders,
            total,
            reference,
        };
        let receipt = self.record(purchase::Kind::Sale, receipt, number.0, None, sold_at, delay);
        if let Some(n) = member {
            if points_spent > 0 {
                let redeem = loyalty::Command::Redeem {
                    points: points_spent,
                    reference: receipt.reference.clone(),
                };
                self.loyalty(n, redeem, sold_at);
            }
            self.earn(n, &receipt, points_spent, sold_at);
        }
        self.afterwards(receipt, sold_at, delay == minutes(0));
    }

    /// Points go in hundreds, and pay at most half.
    fn points_to_spend(&mut self, n: usize, total: i64, at: Timestamp) -> i64 {
        let available = self.members[n].points.available(at, &Calendar::taipei());
        let spent = available.min(total / 2) / 50 * 50;
        if spent >= 50 && self.luck.percent(40) { spent } else { 0 }
    }

    fn earn(&mut self, n: usize, receipt: &Receipt, points_spent: i64, at: Timestamp) {
        let points = (receipt.total - points_spent) / DOLLARS_PER_POINT;
        if points == 0 {
            return;
        }
        let earn = loyalty::Command::Earn {
            points,
            source: receipt.reference.clone(),
            // The first day of the month a year and a month on.
            expires_on: Some(first_of_month(plus_days(day_of(at), 395))),
        };
        self.loyalty(n, earn, at);
    }

    /// What may still become of a receipt.
    fn afterwards(&mut self, receipt: Receipt, sold_at: Timestamp, is_on_line: bool) {
        let back_on = |luck: &mut Luck| plus_days(receipt.day, luck.between(1, 7));
        match (receipt.member, is_on_line) {
            (Some(n), _) if self.luck.percent(4) => {
                let day = back_on(&mut self.luck);
                self.members[n].leaves_on = self.members[n].leaves_on.max(day);
                self.returns.entry(day).or_default().push(receipt);
            }
            (Some(n), _) if self.luck.percent(9) => self.ask(n, receipt.id, sold_at),
            (Some(_), _) => {}
            (None, true) if self.luck.percent(4) => {
                let day = back_on(&mut self.luck);
                self.returns.entry(day).or_default().push(receipt);
            }
            (None, true) if self.luck.percent(3) => {
                let known = &self.at_store[receipt.store];
                if let Some(n) = (!known.is_empty()).then(|| *self.luck.pick(known)) {
                    let day = plus_days(receipt.day, self.luck.between(1, 3));
                    self.claims.entry(day).or_default().push((receipt, n));
                }
            }
            (None, true) if self.luck.percent(1) => {
                let reason = "收銀員教學".to_owned();
                let mut story = Story::new(receipt.id.uuid(), sold_at);
                let at = sold_at + minutes(6);
                story.tell(self.book, POS, at, receipt.id, purchase::Command::Void { reason });
            }
            (None, _) => {}
        }
    }

    /// The whole receipt comes back, or one line of it when nobody's points hang on it.
    fn take_back(&mut self, sale: Receipt, day: Date) {
        let returned_at = at(day, 11, 0) + minutes(self.luck.between(0, 540));
        let kept = if sale.member.is_none() && sale.lines.len() > 1 {
            1
        } else {
            sale.lines.len()
        };
        let mut lines = Vec::new();
        let mut total = Decimal::ZERO;
        for line in &sale.lines[..kept] {
            total -= line.quantity * line.unit_price;
            lines.push(RungLine {
                quantity: -line.quantity,
                ..line.clone()
            });
        }
        let total = i64::try_from(total).expect("whole dollars");
        let tenders = match kept == sale.lines.len() {
            true => sale.tenders.iter().map(negative).collect(),
            false => pay(&mut self.luck, total, 0),
        };
        let (till, number) = self.number(sale.store, day);
        let receipt = Receipt {
            id: sale.id,
            store: sale.store,
            number,
            day,
            member: sale.member,
            lines,
            tenders,
            total,
            reference: sale.reference.clone(),
        };
        self.record(
            purchase::Kind::Return,
            receipt,
            till,
            Some(sale.number),
            returned_at,
            minutes(0),
        );
        if let Some(n) = sale.member
            && self.members[n].has_moved(&sale.reference)
        {
            let reverse = loyalty::Command::Reverse {
                of: sale.reference,
                points: None,
                what: None,
                reference: None,
                reason: "退貨".into(),
            };
            self.loyalty(n, reverse, returned_at);
        }
    }

    /// The card was at home.
    fn claim(&mut self, receipt: Receipt, n: usize, day: Date) {
        let claimed_at = at(day, 12, 0) + minutes(self.luck.between(0, 400));
        let mut story = Story::new(self.members[n].id.uuid(), self.members[n].since);
        let attach = purchase::Command::AttachCustomer {
            customer: self.members[n].id,
        };
        story.tell(self.book, POS, claimed_at, receipt.id, attach);
        self.members[n].since = story.entered_at;
        self.earn(n, &receipt, 0, claimed_at);
    }

    /// The number of the next receipt, and its till.
    fn number(&mut self, store: usize, day: Date) -> (i64, String) {
        let till = self.luck.between(1, STORES[store].1);
        let number = self.numbers.entry((store, till, day)).or_default();
        *number += 1;
        (till, format!("{:04}", *number))
    }

    fn record(
        &mut self,
        kind: purchase::Kind,
        receipt: Receipt,
        till: i64,
        of: Option<String>,
        at: Timestamp,
        delay: jiff::SignedDuration,
    ) -> Receipt {
        let total = receipt.total;
        let record = purchase::Command::Record {
            kind,
            source: self.source.clone(),
            store: Some(STORES[receipt.store].0.into()),
            till: Some(till.to_string()),
            receipt: receipt.number.clone(),
            business_date: receipt.day,
            currency: Currency::TWD,
            lines: receipt.lines.clone(),
            // Five per cent are in the price; a half is rounded up.
            tax_minor: Some((total * 2 + 21).div_euclid(42) * 100),
            tenders: receipt.tenders.clone(),
            customer: receipt.member.map(|n| self.members[n].id),
            of,
        };
        let id = self.book.new_id::<Purchase>(&record);
        let (key, since) = match receipt.member {
            Some(n) => (self.members[n].id.uuid(), self.members[n].since),
            None => (id.uuid(), at),
        };
        let mut story = Story::new(key, since);
        story.tell_late(self.book, POS, at, delay, id, record);
        if let Some(n) = receipt.member {
            self.members[n].since = story.entered_at;
        }
        Receipt { id, ..receipt }
    }

    /// Moves points, in the order in which it is told.
    fn loyalty(&mut self, n: usize, command: loyalty::Command, at: Timestamp) {
        let events = decide(&self.members[n], command.clone(), at);
        if events.is_empty() {
            return;
        }
        let member = &mut self.members[n];
        member.keep(&events, at);
        let mut story = Story::new(member.id.uuid(), member.since);
        story.tell(self.book, POS, at, member.account, command);
        member.since = story.entered_at;
    }

    /// Takes out what is no longer good, for everybody, in the night.
    fn expire(&mut self, day: Date) {
        for n in 0..self.members.len() {
            self.loyalty(n, loyalty::Command::Expire { on: day }, at(day, 0, 10));
        }
    }

    /// A member has a question about what they bought; a complaint may be made good with points.
    fn ask(&mut self, n: usize, purchase: Id<Purchase>, sold_at: Timestamp) {
        let mut luck = Luck::of(&[self.book.company(), "asks", &purchase.to_string()]);
        let days = luck.between(1, 6);
        let asked_at = later(sold_at, days, &mut luck);
        let (subject, kind, category, code) = luck.weighted(&[
            (("詢問使用方式", case::Kind::Question, "商品", "answered"), 40),
            (("點數沒有入帳", case::Kind::Request, "會員點數", "corrected"), 20),
            (("想換尺寸", case::Kind::Request, "退換貨", "exchanged"), 20),
            (("商品瑕疵", case::Kind::Complaint, "商品", "replaced"), 20),
        ]);
        let call = Call {
            customer: self.members[n].id,
            since: self.members[n].since,
            at: asked_at,
            subject: subject.into(),
            kind,
            priority: Priority::Normal,
            channel: luck.weighted(&[
                (Channel::Line, 45),
                (Channel::Phone, 25),
                (Channel::Store, 20),
                (Channel::Web, 10),
            ]),
            category,
            group: "門市客服",
            about: Some(purchase.uuid()),
        };
        handle(self.book, &mut luck, call, code);
        if kind == case::Kind::Complaint && luck.percent(50) {
            let day = plus_days(day_of(asked_at), 1);
            self.goodwill.entry(day).or_default().push(n);
        }
    }
}

impl Member {
    fn keep(&mut self, events: &[loyalty::Event], at: Timestamp) {
        for event in events {
            self.points = Loyalty::evolve(std::mem::take(&mut self.points), event, at);
        }
    }

    /// Were points earned or spent under this name?
    fn has_moved(&self, reference: &str) -> bool {
        self.points.lots.contains_key(reference) || self.points.redemptions.contains_key(reference)
    }
}

/// What the account will say: the till shows the points before the receipt is printed.
fn decide(member: &Member, command: loyalty::Command, at: Timestamp) -> Vec<loyalty::Event> {
    struct Nobody;
    impl Companions for Nobody {
        fn find(&self, _: StreamRef) -> Option<&dyn Any> {
            None
        }
    }
    let calendar = Calendar::taipei();
    let moment = Moment::new(member.account.uuid(), at, at, &calendar, &Nobody);
    Loyalty::decide(&member.points, command, &moment).expect("the till asks for what there is")
}

fn line(sku: &str, name: &str, quantity: i64, price: i64) -> RungLine {
    RungLine {
        sku: sku.into(),
        name: Some(name.into()),
        quantity: quantity.into(),
        unit_price: price.into(),
        amount_minor: None,
    }
}

fn pay(luck: &mut Luck, total: i64, points: i64) -> Vec<Tender> {
    let tender = |kind: &str, dollars: i64| Tender {
        kind: kind.into(),
        amount_minor: dollars * 100,
    };
    let kind = luck.weighted(&[("cash", 40), ("card", 38), ("line-pay", 22)]);
    let mut tenders = vec![tender(kind, total - points)];
    if points > 0 {
        tenders.push(tender("points", points));
    }
    tenders
}

fn negative(tender: &Tender) -> Tender {
    Tender {
        kind: tender.kind.clone(),
        amount_minor: -tender.amount_minor,
    }
}

fn first_of_month(day: Date) -> Date {
    day.first_of_month()
}
