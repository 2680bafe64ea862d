//! Bad input: each gets its 4xx with a clear sentence, and nothing is stored.

use std::time::Duration;

use axum::body::Body;
use serde_json::{Value, json};

use super::world::{CannedRows, World, made_at_ms, now_ms};
use crate::views::{QUESTIONS_MAX, WAITING_MAX};

/// A request that is refused.
struct Bad {
    what: &'static str,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    /// The member `at`.
    at: Option<&'static str>,
    /// What the sentence says, among other things.
    says: &'static str,
}

impl Bad {
    fn status(mut self, status: u16, says: &'static str) -> Bad {
        (self.status, self.says) = (status, says);
        self
    }

    /// A 400 that names the field, header or parameter.
    fn at(mut self, at: &'static str, says: &'static str) -> Bad {
        self.at = Some(at);
        self.status(400, says)
    }

    fn header(mut self, name: &'static str, value: impl ToString) -> Bad {
        self.headers
            .retain(|(known, _)| *known != name || name != "content-type");
        self.headers.push((name, value.to_string()));
        self
    }

    fn without(mut self, name: &str) -> Bad {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    fn method(mut self, method: &'static str) -> Bad {
        self.method = method;
        self
    }
}

fn bytes(what: &'static str, path: &str, body: impl Into<Vec<u8>>) -> Bad {
    Bad {
        what,
        method: "POST",
        path: path.to_owned(),
        headers: vec![("content-type", "application/json".to_owned())],
        body: body.into(),
        status: 0,
        at: None,
        says: "",
    }
}

fn bad(what: &'static str, path: &str, body: Value) -> Bad {
    bytes(what, path, body.to_string())
}

fn register() -> Value {
    json!({"type": "register", "kind": "person", "name": "王小明"})
}

/// A deal, with some fields put in or in the place of others; null leaves one out.
fn open(fields: Value) -> Value {
    let mut command = json!({"type": "open", "name": "五軸加工機", "close_date": "2026-06-30", "owner": "mei",
        "amount": {"minor": 500, "currency": "TWD"}});
    for (name, value) in fields.as_object().unwrap() {
        command[name] = value.clone();
    }
    command.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    command
}

struct Ids {
    customer: String,
    deal: String,
    account: String,
    used: String,
    used_on: String,
}

fn the_form(ids: &Ids) -> Vec<Bad> {
    let deal = format!("/api/opportunity/{}", ids.deal);
    let customer = &ids.customer;
    let nested = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = format!(r#"{{"type": "rename", "name": {}}}"#, "{\"a\":".repeat(500));
    vec![
        bytes("no body", "/api/customer", "").at(".", "the body is empty"),
        bytes("no JSON", "/api/customer", "register me").at(".", "no JSON"),
        bytes("half of it", "/api/customer", r#"{"type": "register", "name": "#).at("name", "EOF"),
        bytes("a comma too many", "/api/customer", r#"{"type": "close",}"#).at(".", "trailing comma"),
        bytes("single quotes", "/api/customer", "{'type': 'close'}").at(".", "key must be a string"),
        bytes(
            "more than one value",
            "/api/customer",
            r#"{"type": "close"} {"type": "close"}"#,
        )
        .at(".", "more in the body"),
        bytes("garbage behind", "/api/customer", r#"{"type": "close"}x"#).at(".", "more in the body"),
        bytes(
            "no UTF-8",
            "/api/customer",
            b"{\"type\": \"rename\", \"name\": \"\xff\"}".to_vec(),
        )
        .at(".", "not UTF-8"),
        bytes(
            "half a surrogate",
            "/api/customer",
            r#"{"type": "rename", "name": "\ud800"}"#,
        )
        .at("name", "hex escape"),
        bytes("no number", "/api/customer", r#"{"type": "rename", "name": NaN}"#).at("name", "expected"),
        bytes(
            "a number beyond all",
            "/api/customer",
            r#"{"type": "rename", "name": 1e999}"#,
        )
        .at("name", "number out of range"),
        bytes(
            "a field twice",
            &deal,
            r#"{"type": "set-amount", "amount": {"minor": 1, "minor": 2, "currency": "TWD"}}"#,
        )
        .at("amount.minor", "given twice"),
        bytes(
            "a type twice",
            "/api/customer",
            r#"{"type": "close", "type": "reopen"}"#,
        )
        .at("type", "given twice"),
        bytes("nested without end", "/api/customer", nested).at_start("recursion limit"),
        bytes("objects without end", "/api/customer", deep).at_start("recursion limit"),
        bad("a list", "/api/customer", json!([register()])).at(".", "a command is a JSON object"),
        bad("a text", "/api/customer", json!("register")).at(".", "a command is a JSON object"),
        bad("null", "/api/customer", Value::Null).at(".", "a command is a JSON object"),
        bad("no type", "/api/customer", json!({"name": "王小明"})).at(".", "no type"),
        bad("a type that is no text", "/api/customer", json!({"type": 7})).at("type", "is a text"),
        bad("an unknown type", "/api/customer", json!({"type": "delete"}))
            .at("type", "expected one of: register, rename"),
        bad(
            "another stream's type",
            "/api/customer",
            json!({"type": "change-stage", "to": "proposal"}),
        )
        .at("type", "unknown command"),
        bad("a type in capitals", "/api/customer", json!({"type": "Register"})).at("type", "unknown command"),
        bad("serde's own form", "/api/customer", json!({"close": {}})).at(".", "no type"),
        bad(
            "an unknown field",
            "/api/customer",
            json!({"type": "rename", "name": "x", "nick": "y"}),
        )
        .at("nick", "unknown field `nick`"),
        bad(
            "a field where there is none",
            &deal,
            json!({"type": "qualify", "why": 1}),
        )
        .at("type", "unknown command"),
        bad("a missing field", "/api/customer", json!({"type": "rename"})).at(".", "missing field `name`"),
        bad(
            "null for a text",
            "/api/customer",
            json!({"type": "rename", "name": null}),
        )
        .at("name", "null"),
        bad(
            "a number for a text",
            "/api/customer",
            json!({"type": "rename", "name": 7}),
        )
        .at("name", "expected a string"),
        bad(
            "an unknown word",
            "/api/customer",
            json!({"type": "register", "kind": "robot", "name": "x"}),
        )
        .at("kind", "expected `organisation` or `person`"),
        bad(
            "a text for a number",
            &deal,
            json!({"type": "set-amount", "amount": {"minor": "5", "currency": "TWD"}}),
        )
        .at("amount.minor", "expected i64"),
        bad(
            "a fraction of a cent",
            &deal,
            json!({"type": "set-amount", "amount": {"minor": 5.5, "currency": "TWD"}}),
        )
        .at("amount.minor", "expected i64"),
        bytes(
            "more cents than there are",
            &deal,
            r#"{"type": "set-amount", "amount": {"minor": 99999999999999999999, "currency": "TWD"}}"#,
        )
        .at("amount.minor", "expected i64"),
        bad(
            "a currency that is none",
            &deal,
            json!({"type": "set-amount", "amount": {"minor": 5, "currency": "NTD"}}),
        )
        .at("amount.currency", "\"NTD\" is not an ISO 4217 currency code"),
        bad(
            "an unknown field of an amount",
            &deal,
            json!({"type": "set-amount", "amount": {"minor": 5, "currency": "TWD", "tax": 1}}),
        )
        .at("amount.tax", "unknown field `tax`"),
        bad(
            "a day that is none",
            "/api/opportunity",
            open(json!({"customer": customer, "close_date": "2026-02-30"})),
        )
        .at("close_date", "day"),
        bad(
            "a day in another form",
            "/api/opportunity",
            open(json!({"customer": customer, "close_date": "30/6/2026"})),
        )
        .at("close_date", ""),
        bad(
            "a day before all days",
            "/api/opportunity",
            open(json!({"customer": customer, "close_date": "-004800-01-01"})),
        )
        .at("close_date", "year"),
        bad(
            "a day with a time and an offset",
            "/api/opportunity",
            open(json!({"customer": customer, "close_date": "2026-10-31T17:30:00+00:00"})),
        )
        .at("close_date", "written YYYY-MM-DD"),
        bad(
            "a year of two digits",
            "/api/opportunity",
            open(json!({"customer": customer, "close_date": "0026-10-31"})),
        )
        .at("close_date", "outside of 1900-01-01 to 2200-12-31"),
        bad(
            "a day that stands for never",
            "/api/opportunity",
            open(json!({"customer": customer, "close_date": "9999-12-31"})),
        )
        .at("close_date", "outside of 1900-01-01 to 2200-12-31"),
        bad(
            "an id that is none",
            "/api/opportunity",
            open(json!({"customer": "C-12"})),
        )
        .at("customer", "UUID"),
        bad(
            "a key of one part",
            "/api/opportunity",
            open(json!({"customer": {"key": ["erp"]}})),
        )
        .at("customer", "expected an id"),
        bad(
            "a key that is empty",
            "/api/opportunity",
            open(json!({"customer": {"key": ["erp", ""]}})),
        )
        .at("customer", "expected an id"),
        bad(
            "a text with a NUL",
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "a\u{0}b"}),
        )
        .at("name", "NUL"),
        bad(
            "a text that a terminal obeys",
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "王\u{1b}[2J"}),
        )
        .at("name", "U+001B"),
        bad(
            "a name that turns the text behind it",
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "\u{202e}王"}),
        )
        .at("name", "U+202E"),
        bad(
            "a name with nothing to see",
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "\u{200b}\u{3164}"}),
        )
        .at("name", "no visible character"),
        bad(
            "a name of two lines",
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "王\r\n小明"}),
        )
        .at("name", "one line"),
        bad(
            "an outside key with a control character",
            "/api/customer",
            json!({"type": "register", "kind": "person", "name": "王",
                "external": [{"source": "erp", "key": "1"}, {"source": "erp", "key": "2\u{9b}"}]}),
        )
        .at("external[1].key", "U+009B"),
        bad(
            "a key in the place of an id with a control character",
            "/api/opportunity",
            open(json!({"customer": {"key": ["erp", "C\u{7f}"]}})),
        )
        .at("customer", "U+007F"),
        bad(
            "a key in the path with a line break",
            "/api/customer/key:erp:C%0A1",
            register(),
        )
        .at("id", "one line"),
        bad(
            "points that are no number",
            &format!("/api/loyalty/{}", ids.account),
            json!({"type": "earn", "points": "ten", "source": "r1"}),
        )
        .at("points", "expected i64"),
    ]
}

fn the_envelope(ids: &Ids) -> Vec<Bad> {
    let used_on = format!("/api/opportunity/{}", ids.used_on);
    let deal = format!("/api/opportunity/{}", ids.deal);
    let lose = || json!({"type": "lose", "reason": "price"});
    // A minute beyond each bound.
    let old = made_at_ms(now_ms() - 30 * 86_400_000 - 60_000, 9);
    let future = made_at_ms(now_ms() + 6 * 60_000, 9);
    let elsewhere = "01979e04-0000-7abc-8000-000000000001";
    vec![
        bad("an empty key", &deal, lose())
            .header("idempotency-key", "")
            .at("Idempotency-Key", "1 to 255 visible characters"),
        bad("a key that is too long", &deal, lose())
            .header("idempotency-key", "x".repeat(domain::IDEMPOTENCY_KEY_MAX + 1))
            .at("Idempotency-Key", "1 to 255 visible characters"),
        bad("an id of last month", &deal, lose())
            .header("idempotency-key", old)
            .at("Idempotency-Key", "older than 30 days"),
        bad("an id of tomorrow", &deal, lose())
            .header("idempotency-key", future)
            .at("Idempotency-Key", "future"),
        bad("two ids", &deal, lose())
            .header("idempotency-key", ids.used.clone())
            .header("idempotency-key", ids.used.clone())
            .at("Idempotency-Key", "given twice"),
        bad("an id that was used", &used_on, lose())
            .header("idempotency-key", ids.used.clone())
            .status(422, "used before with another content"),
        bad("a version that is none", &deal, lose())
            .header("if-match", "latest")
            .at("If-Match", "is no version"),
        bad("a version below all", &deal, lose())
            .header("if-match", "-1")
            .at("If-Match", "is no version"),
        bad("a signed version", &deal, lose())
            .header("if-match", "\"+1\"")
            .at("If-Match", "is no version"),
        bad("a weak version", &deal, lose())
            .header("if-match", "W/\"1\"")
            .at("If-Match", "is no version"),
        bad("another version", &deal, lose())
            .header("if-match", "\"7\"")
            .status(409, "is at version 1, not 7"),
        bad("a version of something new", "/api/customer", register())
            .header("if-match", "\"1\"")
            .status(409, "is at version 0, not 1"),
        bad("nobody", &deal, lose())
            .header("x-actor", "mei")
            .at("X-Actor", "no actor"),
        bad("a name", &deal, lose())
            .header("x-actor", "user:Mei Lin")
            .at("X-Actor", "no actor"),
        bad("an address", &deal, lose())
            .header("x-actor", "user:mei@example.com")
            .at("X-Actor", "no actor"),
        bad("on behalf of nobody", &deal, lose())
            .header("x-on-behalf-of", "boss")
            .at("X-On-Behalf-Of", "no actor"),
        bad("an undertaking with spaces", &deal, lose())
            .header("x-correlation-id", "my import")
            .at("X-Correlation-Id", "visible ASCII"),
        bad("a cause without end", &deal, lose())
            .header("x-causation-id", "x".repeat(201))
            .at("X-Causation-Id", "1 to 200"),
        bad("a lane that there is not", &deal, lose())
            .header("x-lane", "fast")
            .at("X-Lane", "no lane"),
        bad(
            "a day that is none",
            &format!("{deal}?effective_at=2026-02-30T09:00:00Z"),
            lose(),
        )
        .at("effective_at", "no time"),
        bad(
            "an hour that is none",
            &format!("{deal}?effective_at=2026-02-03T25:00:00Z"),
            lose(),
        )
        .at("effective_at", "no time"),
        bad(
            "a time without offset",
            &format!("{deal}?effective_at=2026-02-03T09:00:00"),
            lose(),
        )
        .at("effective_at", "no time"),
        bad("a day without time", &format!("{deal}?effective_at=2026-02-03"), lose()).at("effective_at", "no time"),
        bad("yesterday", &format!("{deal}?effective_at=yesterday"), lose()).at("effective_at", "no time"),
        bad(
            "the future",
            &format!("{deal}?effective_at=2999-01-01T00:00:00Z"),
            lose(),
        )
        .at("effective_at", "future"),
        bad(
            "before all days",
            &format!("{deal}?effective_at=-004800-01-01T00:00:00Z"),
            lose(),
        )
        .at("effective_at", "year"),
        bad(
            "a year of two digits in a time",
            &format!("{deal}?effective_at=0026-02-03T09:00:00Z"),
            lose(),
        )
        .at("effective_at", "outside of 1900-01-01"),
        bad(
            "two times",
            &format!("{deal}?effective_at=2026-02-03T09:00:00Z&effective_at=2026-02-04T09:00:00Z"),
            lose(),
        )
        .at("effective_at", "given twice"),
        bad(
            "an unknown parameter",
            &format!("{deal}?effectiveat=2026-02-03T09:00:00Z"),
            lose(),
        )
        .at("effectiveat", "there is no parameter"),
        bad("a form", &deal, lose())
            .header("content-type", "application/x-www-form-urlencoded")
            .status(415, "Content-Type: application/json"),
        bad("plain text", &deal, lose())
            .header("content-type", "text/plain; charset=utf-8")
            .status(415, "Content-Type: application/json"),
        bad("no content type", &deal, lose())
            .without("content-type")
            .status(415, "Content-Type: application/json"),
        bad("an id that is no id", "/api/opportunity/4711", lose()).at("id", "no id"),
        bad("half a key", "/api/opportunity/key:erp", lose()).at("id", "no id"),
        bad("a path that is no UTF-8", "/api/opportunity/%ff", lose()).at("path", "UTF-8"),
        bad(
            "another slot",
            &format!("/api/opportunity/{elsewhere}"),
            open(json!({"customer": ids.customer})),
        )
        .at("id", "slot"),
        bad("an unknown stream", "/api/deal", lose()).status(404, "there is no stream \"deal\""),
        bad("a read model", "/api/customers", register()).status(405, "POST is not allowed here"),
        bad(
            "an unknown stream with an id",
            &format!("/api/deal/{}", ids.deal),
            lose(),
        )
        .status(404, "there is no stream"),
        bad("nowhere", "/api/opportunity/a/b", lose()).status(404, "there is nothing here"),
        bad("nowhere at all", "/login", lose()).status(404, "there is nothing here"),
        bad("another method", &deal, lose())
            .method("PUT")
            .status(405, "PUT is not allowed here"),
        bad("a deletion", &deal, lose())
            .method("DELETE")
            .status(405, "DELETE is not allowed here"),
        bad("a bundle that is asked for", "/api/bundle", lose())
            .method("GET")
            .status(405, "GET is not allowed here"),
    ]
}

fn the_business(ids: &Ids) -> Vec<Bad> {
    let deal = format!("/api/opportunity/{}", ids.deal);
    let account = format!("/api/loyalty/{}", ids.account);
    let customer = &ids.customer;
    let stranger = domain::derived_in(domain::slot_of(customer.parse().unwrap()), &["nobody"]).to_string();
    vec![
        bad(
            "a customer that is not there",
            "/api/opportunity",
            open(json!({"customer": stranger})),
        )
        .status(422, "there is no customer"),
        bad(
            "a deal that is not there",
            "/api/opportunity",
            json!({"type": "change-stage", "to": "proposal"}),
        )
        .status(422, "no such opportunity"),
        bad(
            "another currency",
            &deal,
            json!({"type": "set-amount", "amount": {"minor": 5, "currency": "USD"}}),
        )
        .status(422, "is in TWD, an amount in USD"),
        bad(
            "another currency at the end",
            &deal,
            json!({"type": "win", "amount": {"minor": 5, "currency": "USD"}}),
        )
        .status(422, "is in TWD, an amount in USD"),
        bad(
            "an amount below nothing",
            &deal,
            json!({"type": "set-amount", "amount": {"minor": -5, "currency": "TWD"}}),
        )
        .status(422, "not negative"),
        bad(
            "an unknown stage",
            &deal,
            json!({"type": "change-stage", "to": "closing"}),
        )
        .status(422, "no stage \"closing\""),
        bad(
            "more than certain",
            &deal,
            json!({"type": "override-probability", "basis_points": 10_001, "reason": "sure"}),
        )
        .status(422, "between 0 and 10000"),
        bad("no reason", &deal, json!({"type": "lose", "reason": " "})).status(422, "reason"),
        bad(
            "no name",
            "/api/opportunity",
            open(json!({"customer": customer, "name": ""})),
        )
        .status(422, "needs a name"),
        bad(
            "a redemption below nothing",
            &account,
            json!({"type": "redeem", "points": -5, "for": "mug"}),
        )
        .status(422, "point"),
        bad(
            "a redemption of nothing",
            &account,
            json!({"type": "redeem", "points": 0, "for": "mug"}),
        )
        .status(422, "point"),
        bad(
            "more points than there are",
            &account,
            json!({"type": "redeem", "points": 11, "for": "mug"}),
        )
        .status(422, "point"),
        bad(
            "points below nothing",
            &account,
            json!({"type": "earn", "points": -1, "source": "r2"}),
        )
        .status(422, "point"),
        bad(
            "a machine of nobody",
            "/api/equipment",
            json!({"type": "install", "customer": stranger, "maker": "", "serial": "", "model": "m", "site": "s"}),
        )
        .status(422, ""),
    ]
}

fn bundles(ids: &Ids) -> Vec<Bad> {
    let bundle = |what, body| bad(what, "/api/bundle", body);
    let rename = json!({"type": "rename", "name": "x"});
    let many: Vec<Value> = (0..101)
        .map(|_| json!({"stream": "customer", "command": register()}))
        .collect();
    vec![
        bundle("no object", json!([])).at(".", "a bundle is a JSON object"),
        bundle("nothing in it", json!({})).at(".", "no commands"),
        bundle("no list", json!({"commands": register()})).at("commands", "a list"),
        bundle("an empty list", json!({"commands": []})).at(".", "1 to 100 commands"),
        bundle("too many", json!({"commands": many})).at(".", "1 to 100 commands"),
        bundle("something else in it", json!({"commands": [], "atomic": true})).at("atomic", "unknown field"),
        bundle("an item that is none", json!({"commands": ["register"]})).at("commands[0]", "an item of a bundle is an object"),
        bundle("no stream", json!({"commands": [{"command": register()}]})).at("commands[0]", "no stream"),
        bundle("an unknown stream", json!({"commands": [{"stream": "deal", "command": register()}]})).at("commands[0].stream", "no stream \"deal\""),
        bundle("no command", json!({"commands": [{"stream": "customer"}]})).at("commands[0]", "no command"),
        bundle("something else in an item", json!({"commands": [{"stream": "customer", "command": register(), "if_match": 1}]}))
            .at("commands[0].if_match", "unknown field"),
        bundle("a version that is none", json!({"commands": [{"stream": "customer", "command": register(), "expected_version": -1}]}))
            .at("commands[0].expected_version", "whole number"),
        bundle("an id that is none", json!({"commands": [{"stream": "customer", "id": "4711", "command": register()}]})).at("commands[0].id", "expected an id"),
        bundle("a customer that is none", json!({"commands": [{"stream": "case", "customer": 7, "command": {}}]})).at("commands[0].customer", "expected an id"),
        bundle("a bad field of the only one", json!({"commands": [{"stream": "customer", "command": {"type": "rename", "name": 7}}]}))
            .at("commands[0].command.name", "expected a string"),
        bundle("a bad field of the second", json!({"commands": [
            {"stream": "customer", "id": ids.customer, "command": rename}, {"stream": "customer", "id": ids.customer, "command": {"type": "rename"}}
        ]}))
            .at("commands[1].command", "missing field `name`"),
        bundle("an item to come", json!({"commands": [{"stream": "opportunity", "command": open(json!({"customer": {"item": 1}}))}]}))
            .at("commands[0].command.customer", "no earlier item 1"),
        bundle("a refusal at the end", json!({"commands": [
            {"stream": "customer", "id": ids.customer, "command": rename},
            {"stream": "opportunity", "id": ids.deal, "command": {"type": "change-stage", "to": "closing"}}
        ]}))
            .status(422, "no stage \"closing\""),
        bundle("an old version at the end", json!({"commands": [
            {"stream": "customer", "id": ids.customer, "command": rename},
            {"stream": "opportunity", "id": ids.deal, "command": {"type": "lose", "reason": "price"}, "expected_version": 9}
        ]}))
            .status(409, "is at version 1, not 9"),
        bundle("one version for all", json!({"commands": [{"stream": "customer", "command": register()}]})).header("if-match", "\"0\"")
            .at("If-Match", "expected_version"),
        bundle("a bad id", json!({"commands": [{"stream": "customer", "command": register()}]})).header("idempotency-key", "x\ty").at("Idempotency-Key", "visible"),
    ]
}

fn what_is_too_large(ids: &Ids) -> Vec<Bad> {
    let body = |bytes: usize| {
        let command = json!({"type": "rename", "name": "x".repeat(bytes)});
        command.to_string()
    };
    let customer = format!("/api/customer/{}", ids.customer);
    let item = json!({"stream": "customer", "id": ids.customer, "command": {"type": "rename", "name": "x".repeat(4 * 1024 * 1024)}});
    vec![
        bytes("a command", &customer, body(1024 * 1024)).status(413, "1048576 bytes at most"),
        bytes("no JSON, without end", &customer, "[".repeat(8 * 1024 * 1024)).status(413, "1048576 bytes at most"),
        bad("a bundle", "/api/bundle", json!({"commands": [item]})).status(413, "4194304 bytes at most"),
        bytes("a text", &customer, body(1000 * 1024)).at("name", "100000 at most"),
    ]
}

impl Bad {
    /// A 400 somewhere in a body that is too deep to name the place.
    fn at_start(self, says: &'static str) -> Bad {
        self.status(400, says)
    }

    async fn check(&self, world: &World) -> Result<(), String> {
        let before = world.events();
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = world
            .request(self.method, &self.path, &headers, Body::from(self.body.clone()))
            .await;
        let wrong = |why: &str| {
            Err(format!(
                "{} ({} {}): {why}: {} {}",
                self.what, self.method, self.path, answer.status, answer.text
            ))
        };
        if answer.status != self.status {
            return wrong(&format!("expected {}", self.status));
        }
        if world.events() != before {
            return wrong("something was stored");
        }
        if answer.header("content-type") != Some("application/problem+json") {
            return wrong("it is no problem");
        }
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap_or_default();
        if problem["status"] != self.status || problem["title"].as_str().is_none() || problem["type"].as_str().is_none()
        {
            return wrong("the problem is not complete");
        }
        if detail.is_empty() || !detail.contains(self.says) {
            return wrong(&format!("it does not say {:?}", self.says));
        }
        if self.at.is_some_and(|at| problem["at"] != at) {
            return wrong(&format!("not at {:?}", self.at));
        }
        Ok(())
    }
}

#[tokio::test]
async fn bad_input_gets_its_4xx_with_a_sentence_and_nothing_is_stored() {
    let world = World::new().await;
    let customer = world.begun("/api/customer", register()).await;
    let deal = world
        .begun("/api/opportunity", open(json!({"customer": customer})))
        .await;
    let account = world
        .begun(
            "/api/loyalty",
            json!({"type": "enrol", "customer": customer, "program": "points"}),
        )
        .await;
    let earned = world
        .post(
            &format!("/api/loyalty/{account}"),
            json!({"type": "earn", "points": 10, "source": "r1"}),
        )
        .await;
    assert_eq!(earned.status, 200, "{}", earned.text);
    let used = made_at_ms(now_ms(), 7).to_string();
    let path = format!("/api/opportunity/{deal}");
    let other = world
        .begun("/api/opportunity", open(json!({"customer": customer})))
        .await;
    assert_ne!(deal, other);
    let done = world
        .post_with(
            &format!("/api/opportunity/{other}"),
            &[("idempotency-key", &used)],
            json!({"type": "change-stage", "to": "proposal"}),
        )
        .await;
    assert_eq!(done.status, 200, "{path}: {}", done.text);
    let ids = Ids {
        customer,
        deal,
        account,
        used,
        used_on: other,
    };

    let lists = [
        the_form(&ids),
        the_envelope(&ids),
        the_business(&ids),
        bundles(&ids),
        what_is_too_large(&ids),
    ];
    let mut wrong = Vec::new();
    for bad in lists.iter().flatten() {
        if let Err(why) = bad.check(&world).await {
            wrong.push(why);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} are not refused as they should be:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let world = World::new().await;
    for path in [
        "/api/customer/01979e04-0000-8abc-8000-000000000001",
        "/api/customer/key:erp:C-1",
        "/api/nothing",
        "/nothing",
        "/api/deal/x",
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}

/// The sender is told, and the connection is free again.
#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_a_408() {
    let world = World::new().await;
    let never = axum::body::Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let json = [("content-type", "application/json")];
    let answer = world.request("POST", "/api/customer", &json, never).await;
    assert_eq!(answer.status, 408, "{}", answer.text);
    assert!(answer.text.contains("within 30 seconds"), "{}", answer.text);
}

/// The read model never gets there: the query is answered all the same.
#[tokio::test(start_paused = true)]
async fn a_query_for_a_position_waits_so_long_and_no_longer() {
    let world = World::with(behind()).await;
    let before = tokio::time::Instant::now();
    let answer = world.get("/api/customers?at_least=0:0").await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.json()["lag"].as_u64().unwrap() > 0, "{}", answer.text);
    assert_eq!(before.elapsed().as_secs(), 10);
}

fn behind() -> CannedRows {
    CannedRows {
        is_behind: true,
        ..CannedRows::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_position_beyond_the_end_of_the_log_is_refused_at_once() {
    let world = World::new().await;
    let before = tokio::time::Instant::now();
    let answer = world.get("/api/customers?at_least=0:999999").await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(answer.json()["at"], "at_least");
    assert!(answer.text.contains("beyond the end of the log"), "{}", answer.text);
    assert!(before.elapsed() < Duration::from_secs(1));
}

/// One caller with any number of questions that wait keeps nobody from asking, and nobody from waiting.
#[tokio::test(start_paused = true)]
async fn so_many_questions_wait_and_then_the_one_that_has_waited_for_longest_is_told() {
    let world = World::with(behind()).await;
    let ask = || Box::pin(world.get("/api/customers?at_least=0:0"));
    let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| ask()).collect();
    for question in &mut waiting {
        assert!(futures::poll!(question.as_mut()).is_pending());
    }
    let mut one_more = ask();
    assert!(futures::poll!(one_more.as_mut()).is_pending());
    let told: Vec<bool> = waiting
        .iter_mut()
        .map(|question| futures::FutureExt::now_or_never(question.as_mut()).is_some_and(|answer| answer.status == 503))
        .collect();
    assert_eq!(told.iter().position(|told| *told), Some(0));
    assert_eq!(told.iter().filter(|told| **told).count(), 1);
    assert_eq!(
        world.get("/api/customers").await.status,
        200,
        "who need not wait is answered"
    );
}

#[tokio::test(start_paused = true)]
async fn so_many_questions_are_under_way_and_one_more_is_a_503_at_once() {
    let world = World::with(CannedRows {
        hangs: true,
        ..CannedRows::default()
    })
    .await;
    let mut under_way: Vec<_> = (0..QUESTIONS_MAX)
        .map(|_| Box::pin(world.get("/api/customers")))
        .collect();
    for question in &mut under_way {
        assert!(futures::poll!(question.as_mut()).is_pending());
    }
    let refused = world.get("/api/customers").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.text.contains("too many questions"), "{}", refused.text);
}
