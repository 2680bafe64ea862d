//! One sample of every event type and version ever released, as it stands in the log. They decode for ever: a change that breaks one
//! breaks somebody's history. `GOLDEN=write cargo test -p domain --test golden` makes the samples that are missing, never others.

use std::collections::BTreeSet;
use std::path::PathBuf;

use domain::{EventType, Fact, StreamKind};
use serde_json::{Map, Value, json};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

#[test]
fn every_sample_ever_released_decodes_and_is_written_again_alike() {
    let mut samples = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let kind =
            EventType::parse(path.file_stem().unwrap().to_str().unwrap()).expect("a sample is named by its type");
        let body = std::fs::read(&path).unwrap();
        let fact = Fact::decode(&kind, &body).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        let (again, written) = fact.encode();
        let (before, after): (Value, Value) = (
            serde_json::from_slice(&body).unwrap(),
            serde_json::from_slice(&written).unwrap(),
        );
        assert_eq!((again, after), (kind, before));
        samples += 1;
    }
    assert!(samples >= 60, "only {samples} samples were found");
}

#[test]
fn every_event_has_a_sample() {
    let mut missing = BTreeSet::new();
    for kind in StreamKind::ALL {
        let mut generator = schemars::SchemaGenerator::default();
        let schema = kind.event_schema(&mut generator);
        let definitions = Value::Object(generator.take_definitions(true));
        for (name, body) in variants(schema.as_value(), &definitions) {
            let event_type = EventType {
                stream: kind.name().into(),
                event: name,
                version: 1,
            };
            let path = folder().join(format!("{event_type}.json"));
            if path.exists() {
                continue;
            }
            if std::env::var_os("GOLDEN").is_none() {
                missing.insert(event_type.to_string());
                continue;
            }
            let draft = serde_json::to_vec(&body).unwrap();
            let fact =
                Fact::decode(&event_type, &draft).unwrap_or_else(|error| panic!("{event_type}: {error:?} in {body}"));
            let sample: Value = serde_json::from_slice(&fact.encode().1).unwrap();
            std::fs::write(path, serde_json::to_string_pretty(&sample).unwrap() + "\n").unwrap();
        }
    }
    assert_eq!(missing, BTreeSet::new(), "run with GOLDEN=write to make them");
}

#[test]
fn an_unknown_type_a_later_version_and_a_damaged_body_are_told_apart() {
    let decode = |text: &str, body: &[u8]| Fact::decode(&EventType::parse(text).unwrap(), body).unwrap_err();
    let unknown = decode("crm.customer.promoted.v1", b"{}");
    assert!(matches!(unknown, domain::UnreadableEvent::UnknownType(_)), "{unknown}");
    let later = decode("crm.customer.closed.v9", b"{}");
    assert!(matches!(later, domain::UnreadableEvent::UnknownVersion(_)), "{later}");
    let damaged = decode("crm.customer.renamed.v1", b"{\"from\": 3}");
    assert!(matches!(damaged, domain::UnreadableEvent::Damaged(..)), "{damaged}");
}

/// Name and sample body of each variant of an externally tagged enum.
fn variants(schema: &Value, definitions: &Value) -> Vec<(String, Value)> {
    let schema = resolve(schema, definitions);
    let mut found = Vec::new();
    for variant in schema["oneOf"].as_array().expect("an enum of events") {
        if let Some(names) = variant["enum"].as_array() {
            found.extend(names.iter().map(|name| (name.as_str().unwrap().to_owned(), json!({}))));
        } else if let Some(name) = variant["const"].as_str() {
            found.push((name.to_owned(), json!({})));
        } else {
            let (name, body) = variant["properties"].as_object().unwrap().iter().next().unwrap();
            found.push((name.clone(), sample(body, definitions)));
        }
    }
    found
}

fn resolve<'a>(schema: &'a Value, definitions: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => resolve(&definitions[path.rsplit('/').next().unwrap()], definitions),
        None => schema,
    }
}

/// The smallest value that fits a schema, every property filled.
fn sample(schema: &Value, definitions: &Value) -> Value {
    let schema = resolve(schema, definitions);
    if let Some(example) = schema["examples"].get(0) {
        return example.clone();
    }
    if let Some(one) = schema.get("const").or_else(|| schema["enum"].get(0)) {
        return one.clone();
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(first) = schema[choice].get(0) {
            return sample(first, definitions);
        }
    }
    let kind = schema["type"]
        .as_str()
        .or_else(|| schema["type"][0].as_str())
        .unwrap_or("object");
    match kind {
        "object" => {
            let empty = Map::new();
            let properties = schema["properties"].as_object().unwrap_or(&empty);
            Value::Object(
                properties
                    .iter()
                    .map(|(name, body)| (name.clone(), sample(body, definitions)))
                    .collect(),
            )
        }
        "array" => match schema["prefixItems"].as_array() {
            Some(items) => items.iter().map(|item| sample(item, definitions)).collect(),
            None => json!([sample(&schema["items"], definitions)]),
        },
        "integer" | "number" => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        "boolean" => json!(true),
        _ => match schema["format"].as_str() {
            Some("uuid") => json!("0192f3a0-7b1c-8abc-8def-0123456789ab"),
            Some("date") => json!("2026-03-01"),
            Some("date-time") => json!("2026-03-01T01:00:00Z"),
            _ if schema["pattern"].is_string() => json!("1.5"),
            _ => json!("text"),
        },
    }
}
