//! Real files, read by the program as its users run it: a shop's tills, a service desk's log, and files of commands that are good,
//! bad, sent twice, or cut short.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use infra::log::sqlite::SqliteLog;
use serde_json::{Value, json};
use services::clock::{Clock, SystemClock};
use services::log::EventLog;
use tempfile::TempDir;
use tests::Crm;

/// Exit code of a command that ran, and found lines that came to nothing.
const FOUND_TROUBLE: i32 = 2;
/// How long an import may take until so many events are in the log.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn december_2010_comes_out_to_the_penny_in_any_order_of_days_and_with_a_day_sent_twice() {
    let Some(folder) = real_input("online-retail") else {
        return;
    };
    let shop = Shop::new();
    let output = shop.run(&["ingest", "online-retail", text(&folder)]);
    assert_eq!(
        said(&output),
        "2973 commands applied (2973 events), 0 unchanged, 0 rejected, 0 lines made no sense\n\
         20 files, 42481 lines read, 0 said nothing new\n"
    );
    let purchases = shop.ask(&["purchases", "--limit", "10000"]);
    let returns = purchases.iter().filter(|purchase| purchase["kind"] == "return").count();
    assert_eq!((purchases.len(), returns), (2_025, 326));
    assert_eq!(sum(&purchases, "total_minor"), 74_895_702);
    assert_eq!(sum(&purchases, "lines"), 42_481);
    let anonymous: Vec<Value> = purchases
        .iter()
        .filter(|it| it["customer"].is_null())
        .cloned()
        .collect();
    assert_eq!(sum(&anonymous, "lines"), 15_631);
    assert_eq!(shop.ask(&["customers", "--limit", "10000"]).len(), 948);
    let months = shop.ask(&["sales_by_month", "--limit", "10000"]);
    let currencies: Vec<&Value> = months.iter().map(|month| &month["currency"]).collect();
    assert!(currencies.iter().all(|currency| *currency == "GBP"), "{currencies:?}");
    assert_eq!(
        ["amount_minor", "receipts", "returns"].map(|column| sum(&months, column)),
        [74_895_702, 2_025, 326]
    );
    let once = shop.status();

    let shuffled = Shop::new();
    let days = shuffled_days(&folder);
    assert_eq!(days.len(), 20);
    for day in &days {
        assert_eq!(
            shuffled.run(&["ingest", "online-retail", text(day)]).status.code(),
            Some(0)
        );
    }
    assert_eq!(shuffled.status().checksums, once.checksums);
    let before_again = shuffled.status();
    let again = shuffled.run(&["ingest", "online-retail", text(&days[7])]);
    assert!(said(&again).starts_with("0 commands applied (0 events), "), "{again:?}");
    assert_eq!(shuffled.status().checksums, once.checksums);
    assert_eq!(shuffled.events(), shop.events());
    assert_eq!(before_again.checksums, once.checksums);
}

#[test]
fn a_damaged_file_is_reported_line_by_line_and_its_good_lines_go_in() {
    let Some(folder) = real_input("online-retail") else {
        return;
    };
    let day = std::fs::read(folder.join("2010-12-23.csv")).unwrap();
    let lines: Vec<&[u8]> = day.split_inclusive(|byte| *byte == b'\n').collect();
    let damage: [(&[u8], &str); 4] = [
        (b"\x01\x02 the printer was here\n", "1 columns instead of 8"),
        (
            b"539999,22423,REGENCY CAKESTAND,1,2010-13-45 25:61:00,12.75,17850.0,United Kingdom\n",
            "539999: the date is no time such as 2010-12-01 08:26:00",
        ),
        (
            b"539999,22423,REGENCY CAKESTAND,1,2010-12-23 10:00:00,12.75,17850.0\n",
            "539999: 7 columns instead of 8",
        ),
        (
            b"539999,22423,CAF\xc9 CAKESTAND,1,2010-12-23 10:00:00,12.75,17850.0,United Kingdom\n",
            "539999: not UTF-8",
        ),
    ];
    let mut damaged: Vec<u8> = Vec::new();
    let mut expected = String::new();
    let mut line_number = 0;
    for (place, line) in lines.iter().enumerate() {
        // After the 1st, the 11th, the 21st and the 31st line of the file.
        if place % 10 == 1
            && let Some((bad, reason)) = damage.get(place / 10)
        {
            damaged.extend(*bad);
            line_number += 1;
            expected += &format!("2010-12-23.csv, line {line_number}: {reason}\n");
        }
        damaged.extend(*line);
        line_number += 1;
    }
    expected += "2010-12-23.csv, line 13: 539999: the invoice is held back whole, for 2010-12-23.csv, line 13\n";
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join("2010-12-23.csv");
    std::fs::write(&file, damaged).unwrap();

    let whole = Shop::new();
    let undamaged = whole.run(&["ingest", "online-retail", text(&folder.join("2010-12-23.csv"))]);
    assert_eq!(undamaged.status.code(), Some(0));
    let shop = Shop::new();
    let output = shop.run(&["ingest", "online-retail", text(&file)]);
    assert_eq!(output.status.code(), Some(FOUND_TROUBLE));
    assert_eq!(complained(&output), expected);
    let counts = said(&output);
    assert!(
        counts.contains(", 0 rejected, 4 lines made no sense\n1 documents held back\n"),
        "{counts}"
    );
    assert!(
        counts.contains(&format!("1 files, {} lines read", lines.len() - 1 + 4)),
        "{counts}"
    );
    assert_eq!(shop.status().checksums, whole.status().checksums);
}

#[test]
fn two_thousand_incidents_end_closed_and_say_nothing_new_the_second_time() {
    let Some(folder) = real_input("incidents") else {
        return;
    };
    let log = folder.join("incident_event_log_first_2000.csv");
    let desk = Shop::new();
    let output = desk.run(&["ingest", "incidents", text(&log)]);
    assert_eq!(output.status.code(), Some(0));
    let counts = said(&output);
    assert!(
        counts.contains(", 0 unchanged, 0 rejected, 0 lines made no sense\n"),
        "{counts}"
    );
    assert!(counts.contains("1 files, 14041 lines read, "), "{counts}");

    let cases = desk.ask(&["cases", "--limit", "10000"]);
    let closed = cases.iter().filter(|case| case["status"] == "closed").count();
    let reopened = cases
        .iter()
        .filter(|case| case["reopens"].as_i64().unwrap() > 0)
        .count();
    assert_eq!((cases.len(), closed, reopened), (2_000, 2_000, 27));
    let mut open_cases = desk.ask(&["backlog", "--as-of", "2016-03-31"]);
    assert!(sum(&open_cases, "cases") > 0, "the desk had work in March");
    open_cases = desk.ask(&["backlog"]);
    assert_eq!(open_cases, Vec::<Value>::new());
    // A case that did not make its SLA was escalated for it.
    let misses = desk.ask(&[
        "timeline",
        "--limit",
        "10000",
        "--where",
        "event=escalated",
        "--where",
        "stream_kind=case",
    ]);
    let missed: std::collections::BTreeSet<&str> = misses.iter().map(|miss| miss["stream"].as_str().unwrap()).collect();
    assert_eq!(2_000 - missed.len(), 833);

    let (first, events) = (desk.status(), desk.events());
    let again = desk.run(&["ingest", "incidents", text(&log)]);
    assert_eq!(again.status.code(), Some(0));
    assert!(said(&again).starts_with("0 commands applied (0 events), "), "{again:?}");
    assert_eq!(desk.events(), events);
    assert_eq!(desk.status().checksums, first.checksums);
}

#[test]
fn a_case_that_comes_with_another_history_is_reported_and_stays_as_it_is() {
    let Some(folder) = real_input("incidents") else {
        return;
    };
    let whole = std::fs::read_to_string(folder.join("incident_event_log_first_2000.csv")).unwrap();
    let mut lines = whole.lines();
    let header = lines.next().unwrap();
    let columns: Vec<&str> = header.split(',').collect();
    let place = |name: &str| columns.iter().position(|column| *column == name).unwrap();
    let (number, state, updated) = (place("number"), place("ident_state"), place("sys_updated_at"));
    let first: Vec<&str> = lines.clone().next().unwrap().split(',').collect();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    let case: Vec<Vec<&str>> = rows.into_iter().filter(|row| row[number] == first[number]).collect();

    let desk = Shop::new();
    let file = desk.dir.path().join("desk.csv");
    let ingest = |rows: &[Vec<&str>]| {
        let rows: Vec<String> = rows.iter().map(|row| row.join(",")).collect();
        std::fs::write(&file, format!("{header}\n{}\n", rows.join("\n"))).unwrap();
        let report = desk.dir.path().join("report.json");
        let output = desk.run(&["ingest", "incidents", text(&file), "--report", text(&report)]);
        let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        (output.status.code(), report)
    };
    let mut backwards = case.clone();
    backwards.reverse();
    assert_eq!(ingest(&backwards).0, Some(0));
    assert_eq!(desk.ask(&["cases"])[0]["status"], "closed");
    let (checksums, events) = (desk.status().checksums, desk.events());
    assert_eq!(ingest(&case).0, Some(0));
    assert_eq!(desk.events(), events);

    // Resolved a minute later, and with another group at the same time.
    let resolved = case.iter().position(|row| row[state] == "Resolved").unwrap();
    let mut later = case.clone();
    let time = later[resolved][updated].to_owned();
    let (hour, minute) = time.rsplit_once(':').unwrap();
    let time = format!("{hour}:{:02}", (minute.parse::<u32>().unwrap() + 1) % 60);
    later[resolved][updated] = &time;
    let mut other = case.clone();
    let group = place("assignment_group");
    let assigned = case.iter().position(|row| row[group] != "?").unwrap();
    other[assigned][group] = "Group 99999";
    for (what, rows) in [("another time", later), ("another group", other)] {
        let (code, report) = ingest(&rows);
        assert_eq!(code, Some(FOUND_TROUBLE), "{what}: {report}");
        let count = |name: &str| report[name].as_u64().unwrap();
        assert!(count("differs") + count("refused") > 0, "{what}: {report}");
        assert_eq!(count("new"), 0, "{what}: {report}");
        let findings = report["findings"].as_array().unwrap();
        for finding in findings {
            assert_eq!(finding["document"], first[number], "{what}: {report}");
            assert!(
                !finding["reason"].as_str().unwrap().contains("command id"),
                "{what}: {report}"
            );
        }
        assert_eq!(
            (desk.events(), desk.status().checksums),
            (events, checksums.clone()),
            "{what}"
        );
    }
}

#[test]
fn a_file_of_commands_is_applied_once_and_each_bad_line_is_named_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("commands.jsonl");
    let register = |key: &str| {
        json!({"stream": "customer", "id": {"key": ["erp", key]},
               "command": {"type": "register", "kind": "organisation", "name": format!("Customer {key}")},
               "effective_at": "2025-03-01T09:00:00+08:00", "actor": "user:mei"})
    };
    let set_grade = |grade: &str, version: u64| {
        json!({"stream": "customer", "id": {"key": ["erp", "C-1"]}, "expected_version": version,
               "command": {"type": "set-grade", "grade": grade}, "effective_at": "2025-03-02T09:00:00+08:00"})
    };
    let lines = [
        register("C-1").to_string(),
        register("C-2").to_string(),
        // Its fields stand in another order, and it is another command: the customer is there already.
        r#"{"command": {"name": "Customer C-2", "kind": "organisation", "type": "register"}, "id": {"key": ["erp", "C-2"]}, "stream": "customer"}"#.to_owned(),
        String::new(),
        json!({"stream": "opportunity", "id": {"key": ["erp", "D-1"]}, "customer": {"key": ["erp", "C-1"]},
               "command": {"type": "open", "name": "Two lathes", "amount": {"minor": 120_000_000, "currency": "TWD"},
                           "close_date": "2025-12-31", "owner": "mei"},
               "effective_at": "2025-03-03T09:00:00+08:00", "command_id": "0195e3a0-1111-8222-9333-444455556666"})
            .to_string(),
        set_grade("A", 1).to_string(),
        set_grade("B", 1).to_string(),
        "this is no JSON".to_owned(),
        r#"["customer"]"#.to_owned(),
        json!({"stream": "shop", "command": {"type": "open"}}).to_string(),
        json!({"stream": "customer", "id": {"key": ["erp", "C-1"]}, "command": {"type": "promote"}}).to_string(),
        json!({"stream": "customer", "id": {"key": ["erp", "C-1"]}, "command": {"type": "rename", "name": "X"}, "effective_at": "2025-02-30T09:00:00+08:00"}).to_string(),
        json!({"stream": "customer", "id": {"key": ["erp", "C-3"]}, "command": {"type": "rename", "name": "X"}}).to_string(),
        json!({"stream": "customer", "id": {"key": ["erp", "C-1"]}, "command": {"type": "rename", "name": "X"}, "colour": "red"}).to_string(),
        json!({"stream": "customer", "id": {"key": ["erp", "C-1"]}, "command": {"type": "rename", "name": "X"}, "effective_at": "2099-01-01T00:00:00Z"}).to_string(),
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();

    let shop = Shop::new();
    let first = shop.run(&["import", text(&file)]);
    assert_eq!(
        said(&first),
        "4 commands applied (4 events), 1 unchanged, 4 rejected, 5 lines made no sense\n"
    );
    assert_eq!(first.status.code(), Some(FOUND_TROUBLE));
    let named = findings(&first);
    let numbers: Vec<u64> = named.keys().copied().collect();
    assert_eq!(numbers, [7, 8, 9, 10, 11, 12, 13, 14, 15]);
    let reason = |line: u64, part: &str| {
        assert!(
            named[&line].contains(part),
            "line {line}: {:?} says nothing of {part:?}",
            named[&line]
        );
    };
    reason(7, "at version 2, not 1");
    reason(8, "it is no JSON");
    reason(9, "a line is a JSON object");
    reason(10, "there is no stream \"shop\"");
    reason(11, "promote");
    reason(12, "\"2025-02-30T09:00:00+08:00\" is no time with an offset");
    reason(14, "it has an unknown field \"colour\"");
    reason(15, "lies in the future");

    let (status, events) = (shop.status(), shop.events());
    assert_eq!(events, 4);
    let second = shop.run(&["import", text(&file)]);
    assert_eq!(
        said(&second),
        "0 commands applied (0 events), 5 unchanged, 4 rejected, 5 lines made no sense\n4 applied before\n"
    );
    assert_eq!(findings(&second), named);
    assert_eq!(shop.events(), events);
    assert_eq!(shop.status().checksums, status.checksums);
    assert_eq!(shop.ask(&["customers", "--where", "grade=A"]).len(), 1);

    // The same file through a pipe, under the same name.
    let piped = shop.import_piped(&["import", "-", "--name", "commands.jsonl"], &lines.join("\n"));
    assert_eq!(
        said(&piped),
        "0 commands applied (0 events), 5 unchanged, 4 rejected, 5 lines made no sense\n4 applied before\n"
    );
    assert_eq!(shop.events(), events);
    let more = shop.import_piped(&["import", "-"], &register("C-4").to_string());
    assert_eq!(
        (said(&more), more.status.code()),
        (
            "1 commands applied (1 events), 0 unchanged, 0 rejected, 0 lines made no sense\n".to_owned(),
            Some(0)
        )
    );
}

#[tokio::test]
async fn an_import_that_is_killed_is_sent_again_and_comes_out_as_if_nothing_had_been() {
    const LINES: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.jsonl");
    let mut text_of_all = String::new();
    for n in 0..LINES {
        // Each customer is registered, renamed, and then regraded over and over.
        let (customer, step) = (n % 2_000, n / 2_000);
        let command = match step {
            0 => json!({"type": "register", "kind": "person", "name": format!("Customer {customer}")}),
            1 => json!({"type": "rename", "name": format!("Customer number {customer}")}),
            _ => json!({"type": "set-grade", "grade": format!("grade {step}"), "reason": "year's end"}),
        };
        let at = jiff::Timestamp::from_second(1_735_689_600 + n as i64 * 60).unwrap();
        let line = json!({"stream": "customer", "id": {"key": ["erp", customer.to_string()]}, "command": command,
                          "effective_at": at.to_string()});
        text_of_all += &format!("{line}\n");
    }
    std::fs::write(&file, &text_of_all).unwrap();

    let clean = Shop::new();
    let counts = said(&clean.run(&["import", text(&file)]));
    assert_eq!(
        counts,
        "20000 commands applied (20000 events), 0 unchanged, 0 rejected, 0 lines made no sense\n"
    );

    let cut = Shop::new();
    let mut before = 0;
    for goal in [4_000, 11_000] {
        let mut import = cut.command(&["import", text(&file)]).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while cut.records().await < goal {
            assert!(Instant::now() < deadline, "the import does not come to {goal} records");
            assert_eq!(
                import.try_wait().unwrap(),
                None,
                "the import was to be killed while it ran"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        import.kill().unwrap();
        import.wait().unwrap();
        let events = cut.events();
        println!("killed at {events} of {LINES} events");
        assert!(before < events && events < LINES, "{events} is not the middle");
        before = events;
    }
    let counts = said(&cut.run(&["import", text(&file)]));
    let rest = LINES - before;
    assert_eq!(
        counts,
        format!(
            "{rest} commands applied ({rest} events), {before} unchanged, 0 rejected, 0 lines made no sense\n\
             {before} applied before\n"
        )
    );
    assert_eq!(cut.events(), LINES);
    assert_eq!(cut.status().checksums, clean.status().checksums);
    let verified = cut.run(&["log", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
}

const TILL_HEADER: &str = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";

#[test]
fn an_invoice_with_a_bad_line_is_held_back_and_what_is_corrected_is_right_in_both_times() {
    let shop = Shop::new();
    let file = shop.dir.path().join("i.csv");
    let ingest = |lines: &[&str], more: &[&str]| {
        std::fs::write(&file, format!("{TILL_HEADER}\n{}\n", lines.join("\n"))).unwrap();
        let report = shop.dir.path().join("report.json");
        let args = [
            &["ingest", "online-retail", text(&file), "--report", text(&report)],
            more,
        ]
        .concat();
        let code = shop.run(&args).status.code();
        let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
        let count = |name: &str| report[name].as_u64().unwrap();
        let counts = ["new", "corrected", "unchanged", "held_back", "refused"].map(count);
        (counts, code, report)
    };
    let spain = || {
        sum(
            &shop.ask(&["sales_by_month", "--where", "country=Spain"]),
            "amount_minor",
        )
    };
    let (tea, cup) = (
        "539902,A,TEA,1,2010-12-01 08:26:00,2.00,,Spain",
        "539902,B,CUP,1,2010-12-01 08:27:00,3.00,,Spain",
    );
    let bad = cup.replace(",CUP,1,", ",CUP,one,");

    let (counts, code, report) = ingest(&[tea, &bad], &[]);
    assert_eq!((counts, code), ([0, 0, 0, 1, 0], Some(FOUND_TROUBLE)));
    let held_back = report["findings"].as_array().unwrap().iter();
    let held_back: Vec<_> = held_back.filter(|finding| finding["what"] == "held-back").collect();
    assert_eq!(
        held_back,
        [
            &json!({"what": "held-back", "file": "i.csv", "line": 2, "document": "539902",
                 "reason": "the invoice is held back whole, for i.csv, line 3"})
        ]
    );
    assert_eq!(spain(), 0);
    // It was short when it was sent, and nobody saw it.
    assert_eq!(ingest(&[tea], &[]).0, [1, 0, 0, 0, 0]);
    assert_eq!(spain(), 200);
    let reported = shop.ask(&["purchases"])[0]["at"].clone();
    assert!(reported.is_string());
    let then = SystemClock.now().to_string();
    assert_eq!(ingest(&[tea, cup], &["--corrections", "refuse"]).0, [0, 0, 0, 0, 1]);
    assert_eq!(ingest(&[tea, cup], &[]).0, [0, 1, 0, 0, 0]);
    assert_eq!(spain(), 500);
    let as_reported = shop.ask(&["sales_by_month", "--where", "country=Spain", "--known-at", &then]);
    assert_eq!(sum(&as_reported, "amount_minor"), 200);
    // Another order of lines is the same, and the old file is no correction.
    assert_eq!(ingest(&[cup, tea], &[]).0, [0, 0, 1, 0, 0]);
    let (counts, code, report) = ingest(&[tea], &[]);
    assert_eq!((counts, code), ([0, 0, 0, 0, 1], Some(FOUND_TROUBLE)));
    let why = report["findings"][0]["reason"].as_str().unwrap();
    assert!(why.contains("an earlier version of the receipt"), "{why}");

    let void = json!({"stream": "purchase", "id": {"key": ["online-retail", "539902"]},
                      "command": {"type": "void", "reason": "was incomplete"}});
    shop.import_piped(&["import", "-"], &void.to_string());
    assert_eq!(spain(), 0);
    // What was voided does not come back by itself; it does when it is said, or when the file says something else.
    assert_eq!(ingest(&[tea, cup], &[]).0, [0, 0, 0, 0, 1]);
    assert_eq!(ingest(&[tea, cup], &["--corrections", "reinstate"]).0, [0, 1, 0, 0, 0]);
    assert_eq!(spain(), 500);
    let verified = shop.run(&["log", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
}

#[test]
fn a_line_without_an_identity_is_neither_dropped_nor_doubled_in_silence() {
    let shop = Shop::new();
    let file = |name: &str, text: &str| {
        let path = shop.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let customer = json!({"stream": "customer", "id": {"key": ["erp", "B2"]},
                          "command": {"type": "register", "kind": "person", "name": "b"}});
    shop.import_piped(&["import", "-"], &customer.to_string());
    let call = json!({"stream": "interaction", "customer": {"key": ["erp", "B2"]},
                      "command": {"type": "record", "channel": "phone", "direction": "out", "subject": "no answer"}});
    let (monday, tuesday) = (
        file("monday.jsonl", &call.to_string()),
        file("tuesday.jsonl", &call.to_string()),
    );
    let calls = || shop.ask(&["timeline", "--where", "stream_kind=interaction"]).len();
    let applied = "1 commands applied (1 events), 0 unchanged, 0 rejected, 0 lines made no sense\n";
    let before = "0 commands applied (0 events), 1 unchanged, 0 rejected, 0 lines made no sense\n1 applied before\n";
    assert_eq!(said(&shop.run(&["import", text(&monday)])), applied);
    for file in [&monday, &tuesday] {
        let output = shop.run(&["import", text(file)]);
        assert_eq!((said(&output).as_str(), output.status.code()), (before, Some(0)));
        let complaint = complained(&output);
        assert!(
            complaint.contains(", line 1: applied before by import:monday.jsonl at 20"),
            "{complaint}"
        );
    }
    assert_eq!(calls(), 1);
    let again = ["import", text(&tuesday), "--again", "--name", "tuesday"];
    assert_eq!(said(&shop.run(&again)), applied);
    assert_eq!(said(&shop.run(&again)), before);
    assert_eq!(calls(), 2);

    // The same command id twice in a run is one command.
    let close = json!({"stream": "customer", "id": {"key": ["erp", "B2"]}, "command": {"type": "close"},
                       "command_id": "0195e3a0-1111-8222-9333-444455556666"});
    let twice = shop.import_piped(&["import", "-"], &format!("{close}\n{close}\n"));
    assert_eq!(
        said(&twice),
        "1 commands applied (1 events), 0 unchanged, 0 rejected, 0 lines made no sense\n1 doubles\n"
    );
}

/// Imports on the data themselves, through the server on them, and through that server from a machine that has neither.
#[test]
fn what_refers_to_nothing_is_counted_listed_and_refused_when_it_must_be_there() {
    let (shop, elsewhere) = (Shop::new(), Shop::new());
    let case = |n: u32, customer: &str| {
        json!({"stream": "case", "id": {"key": ["desk", format!("I-{n}")]}, "customer": {"key": ["erp", customer]},
               "command": {"type": "open", "subject": "leaks", "kind": "incident", "priority": "high", "channel": "phone"}})
        .to_string()
    };
    let register = |customer: &str| {
        json!({"stream": "customer", "id": {"key": ["erp", customer]},
               "command": {"type": "register", "kind": "person", "name": "a"}})
        .to_string()
    };
    let report = |output: &Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
    let json = ["import", "-", "--report", "-"];
    // Two customers that nobody registered; by chance a case may live beside its customer, where a shard refuses it itself.
    let lines: Vec<String> = (0..20).map(|n| case(n, if n % 2 == 0 { "P1" } else { "P2" })).collect();
    let first = report(&shop.import_piped(&json, &lines.join("\n")));
    assert_eq!(first["dangling"], json!({"things": 2, "more": false}), "{first}");
    let listed = shop.ask(&["dangling"]);
    assert_eq!(listed.len(), 2);
    assert_eq!(Value::from(sum(&listed, "streams")), first["new"]);
    let words = said(&shop.import_piped(&["import", "-"], &case(30, "P1")));
    assert!(words.contains("2 things (customers, machines, deals …)"), "{words}");
    let status = said(&shop.run(&["status"]));
    assert!(status.contains("2 things (customers, machines, deals …)"), "{status}");

    let strict = shop.import_piped(
        &[&json[..], &["--strict"]].concat(),
        &format!("{}\n{}", case(50, "P3"), register("P1")),
    );
    let strict = report(&strict);
    assert_eq!([&strict["refused"], &strict["new"]], [1, 1], "{strict}");
    assert!(
        strict["findings"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("there is no customer"),
        "{strict}"
    );
    assert_eq!(strict["dangling"]["things"], 1, "{strict}");

    let server = Crm::start(&["serve"], &shop.env());
    let url = server.url("");
    let through = [&json[..], &["--server", &url]].concat();
    let same = report(&elsewhere.import_piped(&through, &lines[0]));
    assert_eq!([&same["applied_before"], &same["new"]], [1, 0], "{same}");
    let refused = report(&elsewhere.import_piped(&[&through[..], &["--strict"]].concat(), &case(51, "P3")));
    assert_eq!(refused["refused"], 1, "{refused}");
    let settled = report(&elsewhere.import_piped(&through, &register("P2")));
    assert_eq!([&settled["new"], &settled["dangling"]["things"]], [1, 0], "{settled}");
    assert!(
        !elsewhere.dir.path().join("data").exists(),
        "it needed no log of its own"
    );
}

/// Yesterday's file and today's, of an ERP that sends all it has each day: on the data themselves, and through a server on them.
#[test]
fn a_changed_file_updates_what_is_there_when_it_is_said_and_the_report_tells_new_from_changed() {
    let shop = Shop::new();
    let file = |name: &str, lines: &[Value]| {
        let path = shop.dir.path().join(name);
        let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        path
    };
    let customer = |name: &str| json!({"stream": "customer", "id": {"key": ["erp", "C-1"]}, "command": {"type": "register", "kind": "organisation", "name": name}});
    let deal = |number: &str, amount: i64, close_date: &str, source: &str| {
        json!({"stream": "opportunity", "id": {"key": ["erp", number]}, "customer": {"key": ["erp", "C-1"]},
               "command": {"type": "open", "name": number, "amount": {"minor": amount, "currency": "TWD"},
                           "close_date": close_date, "owner": "mei", "source": source}})
    };
    let call = json!({"stream": "interaction", "customer": {"key": ["erp", "C-1"]},
                      "command": {"type": "record", "channel": "phone", "direction": "out", "subject": "no answer"}});
    let monday = [
        customer("Chen"),
        deal("D-1", 100, "2026-12-31", "fair"),
        deal("D-2", 100, "2026-12-31", "fair"),
        call.clone(),
    ];
    let tuesday = [
        customer("Chen & Co."),
        deal("D-1", 200, "2027-01-31", "fair"),
        deal("D-2", 100, "2026-12-31", "fair"),
        call,
        deal("D-3", 300, "2026-12-31", "fair"),
        deal("D-2", 900, "2026-12-31", "web"),
    ];
    let (monday, tuesday) = (file("monday.jsonl", &monday), file("tuesday.jsonl", &tuesday));
    let import = |file: &Path, more: &[&str]| {
        let output = shop.run(&[&["import", text(file), "--report", "-"], more].concat());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let counts = |report: &Value| {
        ["new", "updated", "events", "unchanged", "refused"].map(|name| report[name].as_i64().unwrap())
    };
    let amounts = || {
        let mut rows: Vec<(String, i64)> = shop
            .ask(&["pipeline"])
            .iter()
            .map(|row| {
                (
                    row["name"].as_str().unwrap().to_owned(),
                    row["amount_minor"].as_i64().unwrap(),
                )
            })
            .collect();
        rows.sort_unstable();
        rows.into_iter().map(|(_, amount)| amount).collect::<Vec<_>>()
    };
    // Files that were imported without the word.
    assert_eq!(counts(&import(&monday, &[])), [4, 0, 4, 0, 0]);
    let plain = import(&tuesday, &[]);
    assert_eq!(counts(&plain), [1, 0, 1, 2, 3], "{plain}");
    assert_eq!(amounts(), [100, 100, 300]);

    let report = import(&tuesday, &["--upsert"]);
    assert_eq!(counts(&report), [0, 2, 3, 3, 1], "{report}");
    let findings: Vec<(u64, &str)> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| (finding["line"].as_u64().unwrap(), finding["what"].as_str().unwrap()))
        .collect();
    for finding in [(1, "updated"), (2, "updated"), (4, "applied-before"), (6, "refused")] {
        assert!(findings.contains(&finding), "{finding:?} is not in {report}");
    }
    assert!(report.to_string().contains("different data: source"), "{report}");
    assert_eq!(amounts(), [200, 100, 300]);
    assert_eq!(shop.ask(&["customers"])[0]["name"], "Chen & Co.");

    // The same file changes nothing, and yesterday's is right again when it is sent again.
    let report = import(&tuesday, &["--upsert"]);
    assert_eq!(counts(&report), [0, 0, 0, 5, 1], "{report}");
    let words = said(&shop.run(&["import", text(&monday), "--upsert"]));
    assert!(
        words.starts_with("2 commands applied (3 events), 2 unchanged, 0 rejected") && words.contains("2 updated"),
        "{words}"
    );
    assert_eq!(amounts(), [100, 100, 300]);

    let server = Crm::start(&["serve"], &shop.env());
    let url = server.url("");
    let report = import(&tuesday, &["--upsert", "--server", &url]);
    assert_eq!(counts(&report), [0, 2, 3, 3, 1], "{report}");
    let report = import(&tuesday, &["--upsert", "--server", &url]);
    assert_eq!(counts(&report), [0, 0, 0, 5, 1], "{report}");
    assert_eq!(amounts(), [200, 100, 300]);
    drop(server);
    let verified = shop.run(&["log", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
}

#[test]
fn a_folder_is_no_file_and_a_file_of_windows_is_one() {
    let shop = Shop::new();
    let refused = shop.run(&["import", text(shop.dir.path())]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(complained(&refused).contains("is a folder"), "{}", complained(&refused));
    let register = json!({"stream": "customer", "id": {"key": ["erp", "B1"]},
                          "command": {"type": "register", "kind": "person", "name": "a"}});
    let file = shop.dir.path().join("my b.jsonl");
    std::fs::write(&file, format!("\u{feff}{register}\r\n{register}\r\n")).unwrap();
    assert_eq!(
        said(&shop.run(&["import", text(&file)])),
        "1 commands applied (1 events), 1 unchanged, 0 rejected, 0 lines made no sense\n"
    );
}

#[test]
fn the_help_teaches_the_line_and_the_columns() {
    let help = |args: &[&str]| said(&Crm::run(args, &[]));
    let import = help(&["import", "--help"]);
    for field in [
        "stream",
        "id",
        "customer",
        "command",
        "effective_at",
        "actor",
        "command_id",
        "expected_version",
    ] {
        assert!(import.contains(&format!("\n  {field} ")), "{field} is not in {import}");
    }
    let ingest = help(&["ingest", "online-retail", "--help"]);
    for column in ["InvoiceNo (or Invoice)", "Quantity", "incident_state (or ident_state)"] {
        assert!(ingest.contains(column), "{column} is not in {ingest}");
    }
}

/// A folder with a log and read models of its own.
struct Shop {
    dir: TempDir,
    place: String,
}

struct Status {
    /// Checksum and rows of each read model.
    checksums: BTreeMap<String, (String, u64)>,
}

impl Shop {
    fn new() -> Shop {
        let dir = tempfile::tempdir().unwrap();
        // The program makes the folder itself, for its owner only.
        let place = format!("sqlite:{}", dir.path().join("data").display());
        Shop { dir, place }
    }

    fn env(&self) -> [(&str, &str); 2] {
        [("CRM_LOG", self.place.as_str()), ("CRM_VIEWS", self.place.as_str())]
    }

    fn run(&self, args: &[&str]) -> Output {
        Crm::run(args, &self.env())
    }

    /// For what the harness does not do: a kill, and standard input.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Crm::binary());
        command
            .args(args)
            .env_remove("CRM_CONFIG")
            .envs(self.env())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn import_piped(&self, args: &[&str], input: &str) -> Output {
        let mut import = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        import.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        import.wait_with_output().unwrap()
    }

    /// The rows of an answer.
    fn ask(&self, question: &[&str]) -> Vec<Value> {
        let args = [&["query"], question, &["--format", "json"]].concat();
        let output = self.run(&args);
        assert!(output.status.success(), "crm {args:?}: {}", complained(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn status(&self) -> Status {
        let output = self.run(&["status", "--checksums", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", complained(&output));
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = status["checksums"].as_array().unwrap().iter();
        let checksums = rows.map(|row| {
            let word = |name: &str| row[name].as_str().unwrap().to_owned();
            (word("read_model"), (word("checksum"), row["rows"].as_u64().unwrap()))
        });
        Status {
            checksums: checksums.collect(),
        }
    }

    /// Events in the log, as its auditor counts them.
    fn events(&self) -> u64 {
        let output = self.run(&["log", "verify"]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let counted = said(&output);
        let events = counted.split(", ").filter_map(|part| part.strip_suffix(" events"));
        events.map(|number| number.parse::<u64>().unwrap()).sum()
    }

    /// Records in the log while somebody writes it; 0 while there is none.
    async fn records(&self) -> u64 {
        let log = SqliteLog::read_only(&self.dir.path().join("data"));
        let Ok(shards) = log.open().await else { return 0 };
        let mut records = 0;
        for shard in 0..shards {
            records += log.end(shard).await.unwrap();
        }
        records
    }
}

/// A folder of the public data sets, or a line that says that it is not there.
fn real_input(folder: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("CRM_DATA_DIR") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
    };
    let path = root.join(folder);
    if path.exists() {
        return Some(path);
    }
    // Not `eprintln!`: what a test that passes prints is not shown.
    let line = format!(
        "SKIPPED: real input {} is not there, set CRM_DATA_DIR\n",
        path.display()
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// The day files, in an order that has nothing to do with time and is the same in every run.
fn shuffled_days(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut days: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    days.retain(|path| path.extension().is_some_and(|it| it == "csv"));
    days.sort_by_cached_key(|path| domain::derived_id(&["shuffled", text(path.file_name().unwrap().as_ref())]));
    days
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complained(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The lines that came to nothing, by number.
fn findings(output: &Output) -> BTreeMap<u64, String> {
    let text = complained(output);
    let lines = text.lines().filter_map(|line| line.split_once(", line "));
    let numbered = lines.map(|(_, rest)| rest.split_once(": ").unwrap());
    numbered
        .map(|(number, reason)| (number.parse().unwrap(), reason.to_owned()))
        .collect()
}

fn sum(rows: &[Value], column: &str) -> i64 {
    rows.iter().map(|row| row[column].as_i64().unwrap()).sum()
}
