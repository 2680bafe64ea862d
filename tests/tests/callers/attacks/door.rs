//! What comes in by the door: bodies, connections, names of hosts, questions and commands that are meant to do harm.

use std::time::Duration;

use serde_json::json;
use tests::Crm;
use tokio::net::TcpStream;

use crate::honest::{Honest, Pace};
use crate::stage::{Stage, status};

/// Longer than any deadline of the server.
const DEADLINES: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;

fn post(path: &str, host: &str, length: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{length}\r\n\r\n")
}

/// Bodies without a length of which nothing comes; bodies of which nearly everything comes; and all of it again.
pub async fn bodies_that_do_not_come(stage: &mut Stage) -> Pace {
    let mut honest = Honest::beside(stage).await;
    let host = stage.host();
    let mut under_way: Vec<TcpStream> = Vec::new();
    for _round in 0..2 {
        for path in [
            "/api/bundle",
            "/api/customer",
            "/internal/shards/0/commands",
            "/internal/shards/0/states",
        ] {
            for _ in 0..64 {
                under_way.push(stage.sent(post(path, &host, "Transfer-Encoding: chunked")).await);
            }
        }
        let nearly = post("/api/bundle", &host, &format!("Content-Length: {}", 4 * MIB)) + &" ".repeat(4 * MIB - 1);
        for _ in 0..80 {
            under_way.push(stage.sent(&nearly).await);
        }
        honest.are_served().await;
    }
    for mut stream in under_way {
        let told = status(&mut stream, DEADLINES).await;
        // Refused at once, too slow, for lack of room, or ended to make room for others.
        assert!([0, 403, 404, 408, 503].contains(&told), "{told}");
    }
    let mut half = stage
        .sent(post("/api/customer", &host, "Content-Length: 10") + "{")
        .await;
    assert_eq!(status(&mut half, DEADLINES).await, 408);
    honest.end("bodies that do not come").await
}

/// Forty clients ask for all that a page may hold, and do not read it.
pub async fn answers_that_are_not_read(stage: &mut Stage) -> Pace {
    const CLIENTS: usize = 40;
    // Of a page of 60 MB each. All of them together would be 2.4 GB, and as text the same again.
    const ROWS: usize = 600;
    const MEMORY_MIB_MAX: u64 = 1_200;
    let name = "寬".repeat(33_000);
    let mut lines = Vec::new();
    for row in 0..ROWS {
        let command = json!({"type": "register", "kind": "organisation", "name": format!("{row} {name}")});
        let line = json!({"stream": "customer", "id": {"key": ["wide", row.to_string()]}, "command": command});
        lines.push(line.to_string());
    }
    for part in lines.chunks(ROWS / 4) {
        stage.import(&part.join("\n"));
    }
    let before = stage.memory_mib().await;
    let mut honest = Honest::beside(stage).await;
    let mut unread = Vec::new();
    let mut most = before;
    for format in ["json", "csv"] {
        for _ in 0..CLIENTS {
            let asked = format!(
                "GET /api/customers?limit=10000&format={format} HTTP/1.1\r\nHost: {}\r\n\r\n",
                stage.host()
            );
            unread.push(stage.sent(asked).await);
        }
        let watched = async {
            loop {
                most = most.max(stage.memory_mib().await);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            () = honest.are_served() => {}
            () = watched => {}
        }
    }
    println!("memory: {before} MiB before, {most} MiB at most");
    assert!(most < MEMORY_MIB_MAX, "{most} MiB");
    // An honest client gets the same page whole, and may have to ask again.
    let whole = async {
        loop {
            let asked = reqwest::get(stage.crm().url("/api/customers?limit=10000"))
                .await
                .unwrap();
            match asked.status().as_u16() {
                200 => match asked.bytes().await {
                    Ok(bytes) => return bytes,
                    Err(_) => continue,
                },
                503 => tokio::time::sleep(Duration::from_secs(1)).await,
                other => panic!("{other}"),
            }
        }
    };
    let whole = tokio::time::timeout(DEADLINES, whole)
        .await
        .expect("a whole page in time");
    assert!(whole.len() > ROWS * 99_000, "{} bytes", whole.len());
    let pace = honest.end("answers that are not read").await;
    // Nothing of it holds up the end.
    stage.end();
    drop(unread);
    stage.serve(&[]).await;
    pace
}

/// More connections than there are places: half of them with half a request, half of them without anything.
pub async fn connections_that_ask_nothing(stage: &mut Stage) -> Pace {
    const CONNECTIONS: usize = 4_100;
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: allowed.maximum,
        maximum: allowed.maximum,
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let mut honest = Honest::beside(stage).await;
    let half = format!("GET /api HTTP/1.1\r\nHost: {}\r\nX-Half: ", stage.host());
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        let bytes = if number % 2 == 0 { half.as_str() } else { "" };
        open.push(stage.sent(bytes).await);
    }
    honest.are_served().await;
    let connections = stage.metric("crm_http_connections ").await;
    assert!((1.0..=4_096.0 + 64.0).contains(&connections), "{connections}");
    // And they do not stay.
    for mut stream in open {
        assert_eq!(status(&mut stream, DEADLINES).await, 0);
    }
    honest.end("connections that ask nothing").await
}

/// What the page of another site, or a name that was pointed at this machine, can make a browser send.
pub async fn requests_of_other_sites(stage: &mut Stage) -> Pace {
    let mut honest = Honest::beside(stage).await;
    let host = stage.host();
    let port = host.rsplit(':').next().unwrap().to_owned();
    let body = r#"{"type":"register","kind":"person","name":"evil"}"#;
    let length = body.len();
    let request = |method: &str, path: &str, headers: &str| {
        let content = match method {
            "POST" => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"),
            _ => "\r\n".to_owned(),
        };
        format!("{method} {path} HTTP/1.1\r\n{headers}{content}")
    };
    let stage = &*stage;
    let attack = async || {
        for (headers, told) in [
            (format!("Host: {host}\r\n"), None),
            (
                format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"),
                None,
            ),
            (format!("Host: evil.example:{port}\r\n"), Some(403)),
            (format!("Host: {host}\r\nOrigin: https://evil.example\r\n"), Some(403)),
            (format!("Host: {host}\r\nOrigin: null\r\n"), Some(403)),
            (format!("Host: {host}\r\nOrigin: http://localhost:1\r\n"), Some(403)),
            (String::new(), Some(400)),
            (format!("Host: {host}\r\nHost: {host}\r\n"), Some(400)),
            (format!("Host: {host}\r\nHost: evil.example\r\n"), Some(400)),
        ] {
            for (method, path, usual) in [
                ("POST", "/api/customer", 201),
                ("GET", "/api/customers", 200),
                ("GET", "/api/status", 200),
                ("GET", "/metrics", 200),
            ] {
                let answered = stage.status_of(request(method, path, &headers)).await;
                assert_eq!(answered, told.unwrap_or(usual), "{method} {path} {headers}");
            }
        }
    };
    honest.are_served_beside(attack).await;
    let elsewhere = format!("GET /health/live HTTP/1.1\r\nHost: 10.0.0.7:{port}\r\n\r\n");
    assert_eq!(stage.status_of(elsewhere).await, 200, "a probe");
    honest.end("requests of other sites").await
}

/// Questions for positions that are in no log.
pub async fn questions_for_what_is_not_there(stage: &mut Stage) -> Pace {
    let mut honest = Honest::beside(stage).await;
    let asked = (0..1_005).map(|_| {
        let request = format!(
            "GET /api/customers?at_least=0:999999999 HTTP/1.1\r\nHost: {}\r\n\r\n",
            stage.host()
        );
        stage.sent(request)
    });
    let mut asked: Vec<TcpStream> = futures::future::join_all(asked).await;
    honest.are_served().await;
    for stream in &mut asked {
        let told = status(stream, DEADLINES).await;
        assert!([400, 503].contains(&told), "{told}");
    }
    let one = format!(
        "GET /api/customers?at_least=0:999999999 HTTP/1.1\r\nHost: {}\r\n\r\n",
        stage.host()
    );
    assert_eq!(stage.status_of(one).await, 400);
    honest.end("questions for what is not there").await
}

/// A registration that would reserve twenty thousand keys, one after another.
pub async fn registrations_with_thousands_of_keys(stage: &mut Stage) -> Pace {
    let mut honest = Honest::beside(stage).await;
    let stage = &*stage;
    let external: Vec<_> = (0..20_000)
        .map(|key| json!({"source": "erp", "key": key.to_string()}))
        .collect();
    let command = json!({"type": "register", "kind": "person", "name": "many", "external": external});
    let attack = async || {
        let (status, text) = stage.post("/api/customer", &[], &command).await;
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("at most"), "{text}");
    };
    honest.are_served_beside(attack).await;
    honest.end("registrations with thousands of keys").await
}

/// Questions with five thousand filters, and with as many values.
pub async fn questions_with_thousands_of_filters(stage: &mut Stage) -> Pace {
    let mut honest = Honest::beside(stage).await;
    let stage = &*stage;
    let in_url = "where=owner!=mei&".repeat(3_000);
    let in_url = format!(
        "GET /api/customers?{in_url}limit=1 HTTP/1.1\r\nHost: {}\r\n\r\n",
        stage.host()
    );
    let filters: Vec<_> = (0..5_000).map(|n| format!("owner!=o{n}")).collect();
    let values: Vec<_> = (0..5_000).map(|n| format!("o{n}")).collect();
    let attack = async || {
        assert_eq!(stage.status_of(&in_url).await, 400);
        for body in [json!({"where": filters}), json!({"owner": values})] {
            let (status, text) = stage.post("/api/customers/query", &[], &body).await;
            assert_eq!(status, 400, "{text}");
            assert!(text.len() < 2_000, "an error is no echo: {} bytes", text.len());
        }
    };
    honest.are_served_beside(attack).await;
    honest.end("questions with thousands of filters").await
}

/// Texts that a terminal would obey, or that look like others or like nothing.
pub async fn texts_that_deceive(stage: &mut Stage) -> Pace {
    let mut honest = Honest::beside(stage).await;
    let stage = &*stage;
    let attack = async || {
        for name in [
            "\u{1b}[2Jgone",
            "\u{9b}31mred",
            "two\r\nlines",
            "a\u{0}b",
            "\u{202e}gnp.exe",
            "\u{200b}\u{200d}\u{feff}",
            "\u{3164}",
        ] {
            let command = json!({"type": "register", "kind": "person", "name": name});
            let (status, text) = stage.post("/api/customer", &[], &command).await;
            assert_eq!(status, 400, "{name:?}: {text}");
        }
    };
    honest.are_served_beside(attack).await;
    // What looks the same is the same: the second one is composed otherwise.
    for (key, usual) in [("caf\u{e9}", [200, 201]), ("cafe\u{301}", [200, 200])] {
        let command = json!({"type": "register", "kind": "person", "name": "one"});
        let (status, text) = stage
            .post(&format!("/api/customer/key:shop:{key}"), &[], &command)
            .await;
        assert!(usual.contains(&status), "{status} {text}");
    }
    let table = Crm::run(&["query", "customers"], &stage.env());
    let shown = String::from_utf8(table.stdout).unwrap();
    assert!(table.status.success() && shown.contains("one"), "{shown}");
    assert!(
        !shown.contains(|letter: char| letter.is_control() && letter != '\n'),
        "{shown:?}"
    );
    honest.end("texts that deceive").await
}
