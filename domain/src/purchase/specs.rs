use jiff::civil::date;
use proptest::prelude::{prop_assert_eq, proptest};
use serde_json::json;

use super::*;
use crate::spec::{given, neighbour, stranger};
use crate::{command_from_json, command_to_json, decode_event, encode_event, id_from_key};

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn rung(sku: &str, quantity: &str, unit_price: &str) -> RungLine {
    RungLine {
        sku: sku.into(),
        name: None,
        quantity: decimal(quantity),
        unit_price: decimal(unit_price),
        amount_minor: None,
    }
}

fn sale(lines: Vec<RungLine>, customer: Option<Id<Customer>>) -> Command {
    receipt(Kind::Sale, lines, vec![], customer)
}

fn receipt(kind: Kind, lines: Vec<RungLine>, tenders: Vec<Tender>, customer: Option<Id<Customer>>) -> Command {
    Command::Record {
        kind,
        source: "online-retail".into(),
        store: None,
        till: None,
        receipt: "536365".into(),
        business_date: date(2010, 12, 1),
        currency: Currency::GBP,
        lines,
        tax_minor: None,
        tenders,
        customer,
        of: None,
    }
}

fn correction(lines: Vec<RungLine>, customer: Option<Id<Customer>>) -> Command {
    let mut json = command_to_json(&sale(lines, customer));
    json["type"] = "correct".into();
    command_from_json(json).unwrap()
}

fn reinstated(lines: Vec<RungLine>) -> Command {
    let mut json = command_to_json(&correction(lines, None));
    json["reinstate"] = true.into();
    command_from_json(json).unwrap()
}

/// The receipt of [`recorded_for`] with its first line only.
fn corrected(customer: Option<Id<Customer>>, was: Option<Was>) -> Event {
    let Event::Recorded {
        kind,
        source,
        receipt,
        business_date,
        currency,
        lines,
        ..
    } = recorded_for(None)
    else {
        panic!()
    };
    Event::Corrected {
        kind,
        source,
        store: None,
        till: None,
        receipt,
        business_date,
        currency,
        lines: lines[..1].to_vec(),
        total_minor: 2034,
        tax_minor: None,
        tenders: vec![],
        customer,
        of: None,
        was,
    }
}

fn was(customer: Option<Id<Customer>>) -> Was {
    Was {
        customer,
        kind: Kind::Sale,
        store: None,
        business_date: date(2010, 12, 1),
        currency: Currency::GBP,
        total_minor: 3564,
    }
}

fn lanterns() -> Vec<RungLine> {
    vec![rung("71053", "6", "3.39"), rung("22752", "2", "7.650")]
}

fn recorded_for(customer: Option<Id<Customer>>) -> Event {
    let line = |sku: &str, quantity: i64, unit_price: &str, amount_minor| Line {
        sku: sku.into(),
        name: None,
        quantity: quantity.into(),
        unit_price: decimal(unit_price),
        amount_minor,
    };
    Event::Recorded {
        kind: Kind::Sale,
        source: "online-retail".into(),
        store: None,
        till: None,
        receipt: "536365".into(),
        business_date: date(2010, 12, 1),
        currency: Currency::GBP,
        lines: vec![line("71053", 6, "3.39", 2034), line("22752", 2, "7.65", 1530)],
        total_minor: 3564,
        tax_minor: None,
        tenders: vec![],
        customer,
        of: None,
    }
}

fn attached(from: Option<Id<Customer>>, to: Id<Customer>) -> Event {
    Event::CustomerAttached {
        from,
        to,
        kind: Kind::Sale,
        source: "online-retail".into(),
        store: None,
        receipt: "536365".into(),
        business_date: date(2010, 12, 1),
        currency: Currency::GBP,
        total_minor: 3564,
    }
}

fn voided(customer: Option<Id<Customer>>) -> Event {
    Event::Voided {
        reason: "training".into(),
        customer,
        kind: Kind::Sale,
        source: "online-retail".into(),
        store: None,
        receipt: "536365".into(),
        business_date: date(2010, 12, 1),
        currency: Currency::GBP,
        total_minor: 3564,
    }
}

fn void() -> Command {
    Command::Void {
        reason: "training".into(),
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
fn a_receipt_is_of_tomorrow_at_the_latest() {
    let command = || sale(lanterns(), None);
    given::<Purchase>([])
        .at("2010-11-30T00:00:00+08:00")
        .when(command())
        .then([recorded_for(None)]);
    given::<Purchase>([])
        .at("2010-11-29T23:59:59+08:00")
        .when(command())
        .then_rejected(Rejection::StillToCome {
            business_date: date(2010, 12, 1),
            today: date(2010, 11, 29),
        });
    // It is the company's tomorrow, wherever that is.
    for (time_zone, at, is_taken) in [
        ("Europe/Berlin", "2010-11-29T23:00:00Z", true),
        ("Europe/Berlin", "2010-11-29T22:59:59Z", false),
        ("America/Los_Angeles", "2010-11-30T08:00:00Z", true),
        ("America/Los_Angeles", "2010-11-30T07:59:59Z", false),
    ] {
        let decided = given::<Purchase>([]).in_zone(time_zone).at(at).decide(command());
        assert_eq!(decided.is_ok(), is_taken, "{time_zone} at {at}");
    }
    // What is recorded already, from before there was this rule, is still the same receipt.
    given::<Purchase>([recorded_for(None)])
        .at("2010-11-29T23:59:59+08:00")
        .when(command())
        .then_nothing();
}

#[test]
fn a_receipt_is_recorded_with_its_amounts_and_total() {
    given::<Purchase>([])
        .when(sale(lanterns(), None))
        .then([recorded_for(None)]);
    given::<Purchase>([])
        .when(sale(lanterns(), Some(stranger("a"))))
        .then([recorded_for(Some(stranger("a")))]);
}

#[test]
fn a_receipt_that_comes_again_is_the_same_receipt() {
    given::<Purchase>([recorded_for(None)])
        .when(sale(lanterns(), None))
        .then_nothing();
    given::<Purchase>([recorded_for(None), voided(None)])
        .when(sale(lanterns(), None))
        .then_nothing();
    given::<Purchase>([recorded_for(Some(stranger("a")))])
        .when(sale(lanterns(), None))
        .then_nothing();
}

#[test]
fn how_a_number_is_written_makes_no_other_receipt() {
    let mut lines = vec![rung("71053", "6.0", "3.390"), rung("22752", "2", "7.65")];
    lines[0].amount_minor = Some(2034);
    given::<Purchase>([recorded_for(None)])
        .when(sale(lines, None))
        .then_nothing();
}

#[test]
fn the_order_of_lines_makes_no_other_receipt() {
    let mut lines = lanterns();
    lines.reverse();
    let recorded = || given::<Purchase>([recorded_for(None)]);
    recorded().when(sale(lines.clone(), None)).then_nothing();
    recorded().when(correction(lines, None)).then_nothing();
}

#[test]
fn a_till_that_resends_does_not_restate_and_is_told_what_differs() {
    let refused = |command| {
        let given = given::<Purchase>([recorded_for(None)]);
        given.decide(command).unwrap_err().to_string()
    };
    assert_eq!(
        refused(sale(vec![rung("71053", "6", "3.39")], None)),
        "this receipt is already recorded with other content (total GBP 35.64, now GBP 20.34, lines); send `correct` to \
         replace it"
    );
    let Command::Record { mut lines, .. } = sale(lanterns(), None) else {
        panic!()
    };
    lines[0].name = Some("Lantern".into());
    assert!(refused(sale(lines, None)).contains("(lines)"));
}

#[test]
fn a_corrected_receipt_says_what_leaves_the_sums_and_what_comes() {
    let a = stranger("a");
    given::<Purchase>([recorded_for(Some(a))])
        .when(correction(vec![rung("71053", "6", "3.39")], None))
        .then([corrected(Some(a), Some(was(Some(a))))]);
    given::<Purchase>([recorded_for(None)]).same_intent_twice(correction(vec![rung("71053", "6", "3.39")], Some(a)));
    given::<Purchase>([])
        .when(correction(lanterns(), None))
        .then([recorded_for(None)]);
}

#[test]
fn a_correction_names_the_customer_and_a_file_does_not_take_them_back() {
    let (a, b) = (stranger("a"), stranger("b"));
    given::<Purchase>([recorded_for(None)])
        .when(correction(lanterns(), Some(a)))
        .then([attached(None, a)]);
    given::<Purchase>([recorded_for(Some(a))])
        .when(correction(vec![rung("71053", "6", "3.39")], Some(b)))
        .then([corrected(Some(b), Some(was(Some(a))))]);
    let moved = || given::<Purchase>([recorded_for(Some(a)), attached(Some(a), b)]);
    moved().when(correction(lanterns(), Some(a))).then_nothing();
    moved()
        .when(correction(vec![rung("71053", "6", "3.39")], Some(a)))
        .then([corrected(Some(b), Some(was(Some(b))))]);
    given::<Purchase>([recorded_for(None)])
        .when(correction(vec![rung("71053", "6", "3.39")], Some(neighbour("n"))))
        .then_rejected(Rejection::from(customer::Unavailable::NotRegistered(neighbour("n"))));
}

#[test]
fn what_was_void_counts_again_with_other_content_or_when_it_is_said() {
    let voided = || given::<Purchase>([recorded_for(None), voided(None)]);
    voided()
        .when(correction(vec![rung("71053", "6", "3.39")], None))
        .then([corrected(None, None)]);
    voided()
        .when(correction(lanterns(), None))
        .then_rejected(Rejection::StaysVoid);
    voided().same_intent_twice(reinstated(lanterns()));
}

#[test]
fn an_old_file_that_comes_again_is_no_correction() {
    let corrected = || given::<Purchase>([recorded_for(None), corrected(None, Some(was(None)))]);
    corrected()
        .when(correction(lanterns(), None))
        .then_rejected(Rejection::Superseded);
    corrected().same_intent_twice(reinstated(lanterns()));
}

#[test]
fn a_receipt_is_corrected_a_hundred_times_and_no_more() {
    let mut events = vec![recorded_for(None)];
    let version = |n: usize| vec![rung("71053", &n.to_string(), "3.39")];
    for n in 1..=VERSIONS_MAX {
        let next = given::<Purchase>(events.clone())
            .decide(correction(version(n), None))
            .unwrap();
        events.extend(next);
    }
    given::<Purchase>(events)
        .when(correction(version(VERSIONS_MAX + 1), None))
        .then_rejected(Rejection::TooManyVersions);
}

#[test]
fn a_correction_does_not_make_another_receipt_of_it() {
    let mut other = correction(lanterns(), None);
    if let Command::Correct { receipt, .. } = &mut other {
        *receipt = "536366".into();
    }
    let rejection = Rejection::AnotherReceipt {
        system: "online-retail".into(),
        known: "536365".into(),
    };
    given::<Purchase>([recorded_for(None)])
        .when(other)
        .then_rejected(rejection);
}

#[test]
fn tax_is_a_part_of_the_total() {
    let taxed = |kind, lines, tax| {
        let mut command = receipt(kind, lines, vec![], None);
        if let Command::Record { tax_minor, .. } = &mut command {
            *tax_minor = Some(tax);
        }
        command
    };
    let outcome = |kind, lines, tax| given::<Purchase>([]).decide(taxed(kind, lines, tax)).err();
    let refused = |tax_minor, total_minor| Some(Rejection::TaxAboveTotal { tax_minor, total_minor });
    let (sold, back) = (vec![rung("A", "1", "10")], vec![rung("A", "-1", "10")]);
    assert_eq!(outcome(Kind::Sale, sold.clone(), 1_000), None);
    assert_eq!(outcome(Kind::Sale, sold.clone(), 1_001), refused(1_001, 1_000));
    assert_eq!(outcome(Kind::Sale, sold.clone(), -1), refused(-1, 1_000));
    assert_eq!(outcome(Kind::Return, back.clone(), -48), None);
    assert_eq!(outcome(Kind::Return, back.clone(), 48), refused(48, -1_000));
    assert_eq!(outcome(Kind::Return, back.clone(), -1_001), refused(-1_001, -1_000));
    let exchange = [sold, back].concat();
    assert_eq!(outcome(Kind::Sale, exchange, 48), None);
}

#[test]
fn a_return_of_nothing_is_none() {
    let nothing = receipt(Kind::Return, vec![rung("A", "0", "2")], vec![], None);
    given::<Purchase>([])
        .when(nothing)
        .then_rejected(Rejection::NothingReturned);
}

#[test]
fn a_receipt_that_comes_again_with_its_customer_gets_the_customer() {
    given::<Purchase>([recorded_for(None)])
        .when(sale(lanterns(), Some(stranger("a"))))
        .then([attached(None, stranger("a"))]);
}

#[test]
fn a_till_that_resends_does_not_take_a_purchase_back_from_its_customer() {
    let (a, b) = (stranger("a"), stranger("b"));
    let moved = || given::<Purchase>([recorded_for(Some(a)), attached(Some(a), b)]);
    moved().when(sale(lanterns(), Some(a))).then_nothing();
    moved()
        .when(sale(lanterns(), Some(stranger("c"))))
        .then_rejected(Rejection::BelongsTo(b));
}

#[test]
fn a_purchase_moves_from_one_customer_to_another() {
    let (a, b) = (stranger("a"), stranger("b"));
    given::<Purchase>([recorded_for(Some(a))])
        .when(Command::AttachCustomer { customer: b })
        .then([attached(Some(a), b)]);
}

#[test]
fn a_customer_of_the_same_slot_must_exist_and_be_open() {
    let customer = neighbour("a");
    let missing = || Rejection::from(customer::Unavailable::NotRegistered(customer));
    given::<Purchase>([])
        .when(sale(lanterns(), Some(customer)))
        .then_rejected(missing());
    given::<Purchase>([recorded_for(None)])
        .when(Command::AttachCustomer { customer })
        .then_rejected(missing());
    given::<Purchase>([])
        .with(customer, active())
        .when(sale(lanterns(), Some(customer)))
        .then([recorded_for(Some(customer))]);
}

#[test]
fn a_voided_purchase_says_what_leaves_the_sums_and_gets_no_customer() {
    let a = stranger("a");
    given::<Purchase>([recorded_for(Some(a))])
        .when(void())
        .then([voided(Some(a))]);
    given::<Purchase>([recorded_for(None), voided(None)])
        .when(Command::AttachCustomer { customer: a })
        .then_rejected(Rejection::Voided);
    given::<Purchase>([recorded_for(None), voided(None)])
        .when(sale(lanterns(), Some(a)))
        .then_rejected(Rejection::Voided);
    given::<Purchase>([recorded_for(None)])
        .when(Command::Void { reason: " ".into() })
        .then_rejected(Rejection::ReasonMissing);
}

#[test]
fn nothing_happens_to_a_purchase_that_nobody_recorded() {
    given::<Purchase>([]).when(void()).then_rejected(Rejection::NotRecorded);
}

#[test]
fn a_line_rounds_half_even_to_the_minor_unit() {
    let minor = |quantity, unit_price, currency| amount(decimal(quantity), decimal(unit_price), currency);
    assert_eq!(minor("0.5", "0.25", Currency::GBP), Some(12));
    assert_eq!(minor("0.5", "0.27", Currency::GBP), Some(14));
    assert_eq!(minor("-0.5", "0.25", Currency::GBP), Some(-12));
    assert_eq!(minor("54", "36.301724", Currency::USD), Some(196_029));
    assert_eq!(minor("3", "33.5", Currency::JPY), Some(100));
}

#[test]
fn a_line_that_cannot_be_calculated_exactly_is_refused() {
    let digits = "1.2345678901234567890123";
    given::<Purchase>([])
        .when(sale(vec![rung("A", "1", "2"), rung("B", digits, digits)], None))
        .then_rejected(Rejection::AmountTooLarge(2));
    given::<Purchase>([])
        .when(sale(vec![rung("A", "1000000000000", "1000000000000")], None))
        .then_rejected(Rejection::AmountTooLarge(1));
    let large = || rung("A", "1", "9000000000000");
    given::<Purchase>([])
        .when(sale(vec![large(), large()], None))
        .then_rejected(Rejection::TotalTooLarge);
}

#[test]
fn a_wrong_amount_is_named_with_its_line() {
    let mut lines = lanterns();
    lines[1].amount_minor = Some(1531);
    let rejection = Rejection::WrongAmount {
        line: 2,
        given_minor: 1531,
        computed_minor: 1530,
    };
    assert_eq!(
        rejection.to_string(),
        "line 2: the amount is 1531, quantity times unit price gives 1530 (minor units)"
    );
    given::<Purchase>([]).when(sale(lines, None)).then_rejected(rejection);
}

#[test]
fn a_return_gives_back_and_takes_nothing() {
    let back = |quantity, unit_price| {
        receipt(
            Kind::Return,
            vec![rung("A", "-1", "2"), rung("B", quantity, unit_price)],
            vec![],
            None,
        )
    };
    given::<Purchase>([])
        .when(back("1", "2"))
        .then_rejected(Rejection::PositiveQuantityInReturn(2));
    given::<Purchase>([])
        .when(back("-1", "-2"))
        .then_rejected(Rejection::PositiveAmountInReturn(2));
    let events = given::<Purchase>([]).when(back("-2", "0"));
    let Event::Recorded { lines, .. } = recorded_for(None) else {
        panic!()
    };
    let line = |sku: &str, quantity: i64, unit_price: i64, amount_minor| Line {
        sku: sku.into(),
        quantity: quantity.into(),
        unit_price: unit_price.into(),
        amount_minor,
        ..lines[0].clone()
    };
    events.then([Event::Recorded {
        kind: Kind::Return,
        source: "online-retail".into(),
        store: None,
        till: None,
        receipt: "536365".into(),
        business_date: date(2010, 12, 1),
        currency: Currency::GBP,
        lines: vec![line("A", -1, 2, -200), line("B", -2, 0, 0)],
        total_minor: -200,
        tax_minor: None,
        tenders: vec![],
        customer: None,
        of: None,
    }]);
}

#[test]
fn a_sale_may_have_discounts_and_adjustments() {
    let lines = vec![
        rung("A", "2", "10"),
        rung("DISCOUNT", "-1", "1.50"),
        rung("ADJUST", "-3", "0"),
    ];
    given::<Purchase>([]).same_intent_twice(sale(lines, None));
}

#[test]
fn tenders_sum_to_the_lines() {
    let paid = |cash, card| {
        let tender = |kind: &str, amount_minor| Tender {
            kind: kind.into(),
            amount_minor,
        };
        receipt(
            Kind::Sale,
            lanterns(),
            vec![tender("cash", cash), tender("card", card)],
            None,
        )
    };
    given::<Purchase>([])
        .when(paid(2000, 1500))
        .then_rejected(Rejection::TendersDiffer {
            tendered_minor: 3500,
            total_minor: 3564,
        });
    given::<Purchase>([]).same_intent_twice(paid(2000, 1564));
}

#[test]
fn a_receipt_has_a_source_a_number_lines_and_skus() {
    let refused = |command, rejection| given::<Purchase>([]).when(command).then_rejected(rejection);
    refused(sale(vec![], None), Rejection::NoLines);
    refused(
        sale(vec![rung("A", "1", "1"), rung(" ", "1", "1")], None),
        Rejection::SkuMissing(2),
    );
    let many = vec![rung("A", "1", "1"); LINES_MAX + 1];
    refused(sale(many, None), Rejection::TooManyLines(10_001));
    let Command::Record { lines, .. } = sale(lanterns(), None) else {
        panic!()
    };
    let numberless = Command::Record {
        kind: Kind::Sale,
        source: "online-retail".into(),
        store: None,
        till: None,
        receipt: " ".into(),
        business_date: date(2010, 12, 1),
        currency: Currency::GBP,
        lines,
        tax_minor: None,
        tenders: vec![],
        customer: None,
        of: None,
    };
    refused(numberless, Rejection::Empty("receipt"));
}

#[test]
fn a_receipt_number_is_unique_in_its_source_or_in_the_day_of_its_till() {
    let day = date(2026, 3, 2);
    let bare = purchase_id("erp", None, None, day, "17");
    assert_eq!(bare.uuid(), id_from_key("purchase", "erp", "17"));
    assert_eq!(bare, purchase_id("erp", None, None, date(2026, 3, 3), "17"));
    let till = purchase_id("pos", Some("taipei-101"), Some("3"), day, "17");
    assert_eq!(
        till.uuid(),
        id_from_key("purchase", "pos", "taipei-101/3/2026-03-02/17")
    );
    assert_ne!(
        till,
        purchase_id("pos", Some("taipei-101"), Some("3"), date(2026, 3, 3), "17")
    );
}

#[test]
fn a_receipt_of_a_market_has_the_key_of_its_source() {
    let day = date(2010, 12, 1);
    let id = |store, till| purchase_id("online-retail", store, till, day, "536365").uuid();
    let by_key = crate::id_from_key("purchase", "online-retail", "536365");
    assert_eq!(id(None, None), by_key);
    assert_eq!(id(Some("country:France"), None), by_key);
    assert_ne!(id(Some("France"), None), by_key);
    assert_ne!(id(Some("country:France"), Some("1")), by_key);
}

#[test]
fn two_tills_whose_names_hold_the_separator_are_two() {
    let day = date(2026, 3, 2);
    let id = |store, till, receipt| purchase_id("pos", Some(store), Some(till), day, receipt);
    assert_ne!(id("A/B", "C", "7"), id("A", "B/C", "7"));
    assert_ne!(
        id("A", "B", "7"),
        purchase_id("pos", None, None, day, "A/B/2026-03-02/7")
    );
    // A receipt number is the last part: a slash in it was never ambiguous, and its receipts keep their ids.
    assert_eq!(
        id("A", "B", "7/1").uuid(),
        id_from_key("purchase", "pos", "A/B/2026-03-02/7/1")
    );
    let bare = purchase_id("erp", None, None, day, "INV/2026/03/17");
    assert_eq!(bare.uuid(), id_from_key("purchase", "erp", "INV/2026/03/17"));
}

#[test]
fn a_receipt_that_was_recorded_under_an_ambiguous_id_is_met_again() {
    let at = |store: &str, till: &str, customer| {
        let Command::Record {
            kind,
            source,
            receipt,
            business_date,
            currency,
            lines,
            ..
        } = sale(lanterns(), customer)
        else {
            unreachable!()
        };
        Command::Record {
            kind,
            source,
            store: Some(store.into()),
            till: Some(till.into()),
            receipt,
            business_date,
            currency,
            lines,
            tax_minor: None,
            tenders: vec![],
            customer,
            of: None,
        }
    };
    let (one, other) = (at("A/B", "C", None), at("A", "B/C", None));
    let event = content(one.clone()).unwrap();
    let before = crate::spec::folded::<Purchase>([&event]);
    let former = Id::<Purchase>::new(identity_of(&one).unwrap().former.unwrap());
    let resent = |command: Command| {
        let own = Id::new(identity_of(&command).unwrap().id);
        given::<Purchase>([])
            .under(own)
            .with(former, before.clone())
            .when(command)
    };
    resent(one).then_nothing();
    resent(other.clone()).then([content(other).unwrap()]);
    resent(at("A/B", "C", Some(stranger("a")))).then_rejected(Rejection::RecordedAs(former));
}

#[test]
fn quantities_are_integers_or_text_and_prices_are_text() {
    let command = |quantity: serde_json::Value, unit_price: serde_json::Value| {
        command_from_json::<Command>(json!({
            "type": "record", "kind": "sale", "source": "pos", "receipt": "1", "business_date": "2026-03-02",
            "currency": "TWD", "lines": [{"sku": "A", "quantity": quantity, "unit_price": unit_price}],
        }))
        .map(|_| ())
        .map_err(|error| error.to_string())
    };
    assert_eq!(command(json!(3), json!("2.55")), Ok(()));
    assert_eq!(command(json!("-0.350"), json!("2.55")), Ok(()));
    let error = command(json!(0.35), json!("2.55")).unwrap_err();
    assert!(error.starts_with("lines[0].quantity: "), "{error}");
    assert!(
        error.contains("expected an integer, or a decimal as text such as \"2.55\""),
        "{error}"
    );
    let error = command(json!(1), json!(255)).unwrap_err();
    assert!(error.contains("expected a decimal as text"), "{error}");
    let error = command(json!(1), json!("12,50")).unwrap_err();
    assert!(error.contains("\"12,50\" is no decimal"), "{error}");
}

#[test]
fn a_stored_receipt_is_read_as_it_was_written() {
    let (kind, body) = encode_event::<Purchase>(&recorded_for(Some(stranger("a"))));
    assert_eq!(kind.to_string(), "crm.purchase.recorded.v1");
    assert_eq!(
        decode_event::<Purchase>(&kind, &body).unwrap(),
        recorded_for(Some(stranger("a")))
    );
    assert!(String::from_utf8(body).unwrap().contains(r#""unit_price":"3.39""#));
}

#[test]
fn the_same_intent_twice_gives_nothing_the_second_time() {
    let customer = neighbour("a");
    given::<Purchase>([]).same_intent_twice(sale(lanterns(), None));
    given::<Purchase>([])
        .with(customer, active())
        .same_intent_twice(sale(lanterns(), Some(customer)));
    given::<Purchase>([recorded_for(None)]).same_intent_twice(sale(lanterns(), Some(stranger("a"))));
    given::<Purchase>([recorded_for(None)]).same_intent_twice(Command::AttachCustomer {
        customer: stranger("a"),
    });
    given::<Purchase>([recorded_for(None)]).same_intent_twice(void());
}

proptest! {
    #[test]
    fn an_amount_is_the_nearest_minor_unit_and_even_between_two(
        thousandths in -1_000_000_i64..1_000_000, price in -10_000_000_i64..10_000_000, price_decimals in 0_u32..6,
    ) {
        let computed = amount(Decimal::new(thousandths, 3), Decimal::new(price, price_decimals), Currency::GBP);
        let divisor = 10_i128.pow(3 + price_decimals);
        let hundredths = i128::from(thousandths) * i128::from(price) * 100;
        let (floor, rest) = (hundredths.div_euclid(divisor), hundredths.rem_euclid(divisor));
        let is_up = rest * 2 > divisor || (rest * 2 == divisor && floor % 2 != 0);
        prop_assert_eq!(computed.map(i128::from), Some(floor + i128::from(is_up)));
    }
}

/// A return of the receipt of [`recorded_for`], with its own number.
fn return_of(sale: &str, currency: &str, lines: &[(&str, &str, &str)]) -> Command {
    let lines: Vec<_> = lines
        .iter()
        .map(|(sku, quantity, price)| json!({"sku": sku, "quantity": quantity, "unit_price": price}))
        .collect();
    command_from_json(
        json!({"type": "record", "kind": "return", "source": "online-retail", "receipt": "C1",
        "business_date": "2010-12-05", "currency": currency, "lines": lines, "of": sale}),
    )
    .unwrap()
}

fn original() -> Id<Purchase> {
    purchase_id("online-retail", None, None, date(2010, 12, 1), "536365")
}

#[test]
fn a_return_fits_the_sale_that_it_names() {
    let one_back = || return_of("536365", "GBP", &[("71053", "-6", "3.39")]);
    let beside = |events: &[Event]| given::<Purchase>([]).with(original(), crate::spec::folded::<Purchase>(events));
    let sold = recorded_for(None);
    assert_eq!(Purchase::companions(&one_back()), vec![StreamRef::of(original())]);
    assert!(beside(std::slice::from_ref(&sold)).decide(one_back()).is_ok());
    // The sale comes later, or is not known here.
    assert!(beside(&[]).decide(one_back()).is_ok());
    assert!(given::<Purchase>([]).decide(one_back()).is_ok());

    beside(&[sold.clone(), voided(None)])
        .when(one_back())
        .then_rejected(Rejection::SaleVoided("536365".into()));
    beside(std::slice::from_ref(&sold))
        .when(return_of("536365", "TWD", &[("71053", "-6", "3")]))
        .then_rejected(Rejection::AnotherCurrency {
            sale: "536365".into(),
            sold: Currency::GBP,
            returned: Currency::TWD,
        });
    beside(std::slice::from_ref(&sold))
        .when(return_of("536365", "GBP", &[("71053", "-11", "3.39")]))
        .then_rejected(Rejection::MoreThanSold {
            sale: "536365".into(),
            sold_minor: 3564,
            returned_minor: 3729,
        });
    let Event::Recorded { lines, .. } = &sold else { panic!() };
    let all = lines
        .iter()
        .map(|line| (line.sku.clone(), -line.quantity, line.unit_price));
    let all: Vec<_> = all
        .map(|(sku, quantity, price)| (sku, quantity.to_string(), price.to_string()))
        .collect();
    let all: Vec<_> = all
        .iter()
        .map(|(sku, q, p)| (sku.as_str(), q.as_str(), p.as_str()))
        .collect();
    assert!(
        beside(std::slice::from_ref(&sold))
            .decide(return_of("536365", "GBP", &all))
            .is_ok()
    );

    let mut back = sold;
    if let Event::Recorded { kind, .. } = &mut back {
        *kind = Kind::Return;
    }
    beside(&[back])
        .when(one_back())
        .then_rejected(Rejection::NoSale("536365".into()));
}

#[test]
fn where_receipts_count_by_day_the_sale_of_a_return_cannot_be_looked_up() {
    let mut json = command_to_json(&return_of("17", "GBP", &[("71053", "-1", "3.39")]));
    assert!(sale_of(&command_from_json(json.clone()).unwrap()).is_some());
    for (field, value, is_known) in [
        ("store", "country:Japan", true),
        ("store", "taipei", false),
        ("till", "1", false),
    ] {
        let before = json.clone();
        json[field] = value.into();
        assert_eq!(
            sale_of(&command_from_json(json).unwrap()).is_some(),
            is_known,
            "{field} {value}"
        );
        json = before;
    }
}

#[test]
fn a_correction_fits_the_sale_too() {
    let given_return = given::<Purchase>([])
        .decide(return_of("536365", "GBP", &[("71053", "-6", "3.39")]))
        .unwrap();
    let mut more = command_to_json(&return_of("536365", "GBP", &[("71053", "-60", "3.39")]));
    more["type"] = "correct".into();
    given::<Purchase>(given_return)
        .with(original(), crate::spec::folded::<Purchase>(&[recorded_for(None)]))
        .when(command_from_json(more).unwrap())
        .then_rejected(Rejection::MoreThanSold {
            sale: "536365".into(),
            sold_minor: 3564,
            returned_minor: 20_340,
        });
}

#[test]
fn a_return_gives_back_no_more_pieces_than_were_sold() {
    let sold = |lines| given::<Purchase>([]).decide(sale(lines, None)).unwrap();
    let two_and_a_half_kilos = vec![
        rung("A", "2", "100"),
        rung("tea", "1.25", "8"),
        rung("tea", "1.25", "8"),
        rung("tea", "-0.5", "8"),
    ];
    let state = crate::spec::folded::<Purchase>(&sold(two_and_a_half_kilos));
    let decide = |lines: &[_]| {
        let beside = given::<Purchase>([]).with(original(), state.clone());
        beside
            .decide(return_of("536365", "GBP", lines))
            .map(|events| events.len())
    };
    let more = |sku: &str, sold: &str, returned: &str| {
        Err(Rejection::MorePiecesThanSold {
            sale: "536365".into(),
            sku: sku.into(),
            sold: decimal(sold),
            returned: decimal(returned),
        })
    };
    assert_eq!(decide(&[("A", "-3", "60")]), more("A", "2", "3"));
    assert_eq!(
        decide(&[("A", "-1", "60"), ("A", "-1.001", "60")]),
        more("A", "2", "2.001")
    );
    assert_eq!(decide(&[("tea", "-2.01", "8")]), more("tea", "2", "2.01"));
    assert_eq!(decide(&[("A", "-2", "60"), ("tea", "-2.000", "8")]), Ok(1));
}

#[test]
fn a_return_gives_back_only_what_the_sale_has() {
    let state = crate::spec::folded::<Purchase>(&[recorded_for(None)]);
    let decide = |lines: &[_]| {
        let beside = given::<Purchase>([]).with(original(), state.clone());
        beside
            .decide(return_of("536365", "GBP", lines))
            .map(|events| events.len())
    };
    let refused = Rejection::NeverSold {
        sale: "536365".into(),
        sku: "B".into(),
    };
    assert_eq!(
        refused.to_string(),
        "receipt \"536365\" has no \"B\", and this return gives some back"
    );
    assert_eq!(
        decide(&[("71053", "-1", "3.39"), ("B", "-1", "1")]),
        Err(refused.clone())
    );
    // It is named even when the money is too much as well.
    assert_eq!(decide(&[("B", "-1", "1000")]), Err(refused));
    // Of nothing, nothing comes back.
    assert_eq!(decide(&[("71053", "-1", "3.39"), ("B", "0", "1")]), Ok(1));
}

#[test]
fn a_return_fits_the_sale_as_it_was_corrected() {
    let events = [recorded_for(None), corrected(None, Some(was(None)))];
    given::<Purchase>([])
        .with(original(), crate::spec::folded::<Purchase>(&events))
        .when(return_of("536365", "GBP", &[("22752", "-1", "7.65")]))
        .then_rejected(Rejection::NeverSold {
            sale: "536365".into(),
            sku: "22752".into(),
        });
}

#[test]
fn nothing_comes_back_before_it_is_sold() {
    let on = |day: &str| {
        let mut json = command_to_json(&return_of("536365", "GBP", &[("71053", "-1", "3.39")]));
        json["business_date"] = day.into();
        command_from_json::<Command>(json).unwrap()
    };
    let beside = || {
        let state = crate::spec::folded::<Purchase>(&[recorded_for(None)]);
        given::<Purchase>([]).with(original(), state)
    };
    beside().when(on("2010-11-30")).then_rejected(Rejection::BeforeSale {
        sale: "536365".into(),
        sold_on: date(2010, 12, 1),
        returned_on: date(2010, 11, 30),
    });
    assert!(beside().decide(on("2010-12-01")).is_ok());
}

#[test]
fn what_was_sold_is_kept_only_where_a_return_can_find_it() {
    let kept = |store: Option<&str>, kind| {
        let mut command = receipt(
            kind,
            vec![rung("A", if kind == Kind::Sale { "2" } else { "-2" }, "1")],
            vec![],
            None,
        );
        if let Command::Record { store: of, .. } = &mut command {
            *of = store.map(str::to_owned);
        }
        let state = crate::spec::folded::<Purchase>(&given::<Purchase>([]).decide(command).unwrap());
        serde_json::to_value(state).unwrap()["pieces"].clone()
    };
    assert_eq!(kept(None, Kind::Sale), json!({"A": "2"}));
    assert_eq!(kept(Some("country:Japan"), Kind::Sale), json!({"A": "2"}));
    assert_eq!(kept(Some("taipei"), Kind::Sale), json!(null));
    assert_eq!(kept(None, Kind::Return), json!(null));
}
