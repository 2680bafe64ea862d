//! Examples of commands, for the API's description. A spec reads each of them as the command it shows.

/// The example of a stream: how one is begun.
pub fn of_stream(name: &str) -> Option<&'static str> {
    EXAMPLES
        .iter()
        .find(|(stream, _)| *stream == name)
        .map(|(_, json)| *json)
}

/// A bundle: a person of the shop becomes a customer with a deal and a loyalty account.
pub const BUNDLE: &str = r#"{"commands": [
    {"stream": "customer", "command": {"type": "register", "kind": "organisation", "name": "宏達精密", "country": "TW"}},
    {"stream": "opportunity", "command": {"type": "open", "customer": {"item": 0}, "name": "五軸加工機 2 台",
        "amount": {"minor": 120000000, "currency": "TWD"}, "close_date": "2026-06-30", "owner": "mei"}},
    {"stream": "loyalty", "command": {"type": "enrol", "customer": {"item": 0}, "program": "points"}}
]}"#;

const EXAMPLES: &[(&str, &str)] = &[
    (
        "customer",
        r#"{"type": "register", "kind": "organisation", "name": "宏達精密", "country": "TW", "locale": "zh-TW",
            "external": [{"source": "erp", "key": "C-12"}]}"#,
    ),
    (
        "lead",
        r#"{"type": "capture", "source": "fair", "name": "王小明", "company": "宏達精密",
            "contact_points": [{"kind": "email", "value": "ming@example.com"}]}"#,
    ),
    (
        "opportunity",
        r#"{"type": "open", "customer": {"key": ["erp", "C-12"]}, "name": "五軸加工機 2 台",
            "amount": {"minor": 120000000, "currency": "TWD"}, "close_date": "2026-06-30", "owner": "mei"}"#,
    ),
    (
        "interaction",
        r#"{"type": "record", "customer": {"key": ["erp", "C-12"]}, "channel": "phone", "direction": "in",
            "subject": "詢問交期"}"#,
    ),
    (
        "case",
        r#"{"type": "open", "customer": {"key": ["erp", "C-12"]}, "subject": "主軸異音", "kind": "incident",
            "priority": "high", "channel": "line"}"#,
    ),
    (
        "equipment",
        r#"{"type": "install", "customer": {"key": ["erp", "C-12"]}, "maker": "永進機械", "serial": "MV-2024-0017",
            "model": "MV106A", "site": "台中一廠", "warranty_until": "2027-03-31"}"#,
    ),
    (
        "inspection",
        r#"{"type": "schedule", "equipment": "01979e04-0000-8abc-8000-000000000001", "due": "2026-04-01",
            "checklist": "quarterly"}"#,
    ),
    (
        "job",
        r#"{"type": "create", "customer": {"key": ["erp", "C-12"]}, "summary": "更換主軸軸承"}"#,
    ),
    (
        "purchase",
        r#"{"type": "record", "kind": "sale", "source": "pos", "store": "taipei-1", "till": "2", "receipt": "000123",
            "business_date": "2026-03-01", "currency": "TWD",
            "lines": [{"sku": "A-100", "name": "切削油 1L", "quantity": 2, "unit_price": "350.00", "amount_minor": 70000}],
            "tenders": [{"type": "cash", "amount_minor": 70000}]}"#,
    ),
    (
        "loyalty",
        r#"{"type": "enrol", "customer": {"key": ["erp", "C-12"]}, "program": "points"}"#,
    ),
    (
        "link",
        r#"{"type": "link", "source": "erp", "key": "C-12", "customer": "01979e04-0000-8abc-8000-000000000001"}"#,
    ),
];
