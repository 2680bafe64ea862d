//! The API's description fits what the program does.

use domain::{AnyCommand, StreamKind};
use projections::READ_MODELS;
use serde_json::Value;

use super::world::World;
use crate::http::problem::Kind;
use crate::http::{examples, openapi_document, schemas};

fn for_each<'a>(json: &'a Value, see: &mut impl FnMut(&'a serde_json::Map<String, Value>)) {
    match json {
        Value::Object(fields) => {
            see(fields);
            fields.values().for_each(|field| for_each(field, see));
        }
        Value::Array(items) => items.iter().for_each(|item| for_each(item, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = openapi_document();
    let mut references = Vec::new();
    for_each(&document, &mut |fields| {
        references.extend(fields.get("$ref").and_then(Value::as_str));
        let mapping = fields.get("mapping").and_then(Value::as_object);
        references.extend(
            mapping
                .into_iter()
                .flat_map(|mapping| mapping.values())
                .filter_map(Value::as_str),
        );
    });
    assert!(references.len() > 200);
    for reference in references {
        let pointer = reference
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{reference} leads out of the document"));
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn it_is_an_openapi_document() {
    let document = openapi_document();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let read: utoipa::openapi::OpenApi = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(read.paths.paths.len(), document["paths"].as_object().unwrap().len());
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            assert!(
                !operation["responses"].as_object().unwrap().is_empty(),
                "{method} {path}"
            );
            let has_id = operation["parameters"].as_array().is_some_and(|parameters| {
                parameters
                    .iter()
                    .any(|parameter| parameter["$ref"] == "#/components/parameters/id")
            });
            assert_eq!(has_id, path.contains("{id}"), "{method} {path}");
        }
    }
}

#[test]
fn every_command_is_described_as_it_is_sent() {
    let document = openapi_document();
    let described = &document["components"]["schemas"];
    for kind in StreamKind::ALL {
        let name = kind.name();
        assert!(document["paths"][format!("/api/{name}")]["post"].is_object(), "{name}");
        assert!(
            document["paths"][format!("/api/{name}/{{id}}")]["post"].is_object(),
            "{name}"
        );
        assert_eq!(
            described[schemas::commands_name(*kind)]["oneOf"]
                .as_array()
                .unwrap()
                .len(),
            kind.command_names().len()
        );
        for command in kind.command_names() {
            let schema = &described[schemas::command_name(*kind, command)];
            assert_eq!(schema["properties"]["type"]["const"], *command, "{name} {command}");
            assert_eq!(schema["required"][0], "type");
            // The door knows each required field that is described, and no other.
            let mut json = serde_json::json!({"type": command});
            let refused = AnyCommand::from_json(*kind, json.clone());
            let is_bare = schema["required"].as_array().unwrap().len() == 1;
            assert_eq!(refused.is_ok(), is_bare, "{name} {command}: {refused:?}");
            json["no_such_field"] = 1.into();
            assert!(AnyCommand::from_json(*kind, json).is_err());
        }
    }
}

#[test]
fn every_example_is_the_command_that_it_shows() {
    let id = "01979e04-0000-8abc-8000-000000000001";
    let read = |kind: StreamKind, mut json: Value| {
        for field in json.as_object_mut().unwrap().values_mut() {
            if field.get("key").is_some() || field.get("item").is_some() {
                *field = id.into();
            }
        }
        AnyCommand::from_json(kind, json).map(|_| ())
    };
    for kind in StreamKind::ALL {
        let example = examples::of_stream(kind.name()).unwrap_or_else(|| panic!("{} has no example", kind.name()));
        assert_eq!(
            read(*kind, serde_json::from_str(example).unwrap()),
            Ok(()),
            "{}",
            kind.name()
        );
    }
    let bundle: Value = serde_json::from_str(examples::BUNDLE).unwrap();
    for item in bundle["commands"].as_array().unwrap() {
        let kind = StreamKind::parse(item["stream"].as_str().unwrap()).unwrap();
        assert_eq!(read(kind, item["command"].clone()), Ok(()));
    }
}

/// A change of the description is seen by whoever makes it, and by whoever reviews it: `INSTA_UPDATE=always cargo test -p services` writes
/// the new one.
#[test]
fn the_description_changes_only_on_purpose() {
    insta::with_settings!({omit_expression => true, prepend_module_to_snapshot => false}, {
        insta::assert_json_snapshot!("openapi", openapi_document());
    });
}

#[tokio::test]
async fn the_example_of_a_filter_fits_its_read_model() {
    let world = World::new().await;
    let document = openapi_document();
    for model in READ_MODELS {
        let name = model.name;
        let parameters = document["paths"][format!("/api/{name}")]["get"]["parameters"]
            .as_array()
            .unwrap();
        let filter = parameters
            .iter()
            .find(|parameter| parameter["name"] == "where")
            .unwrap();
        let example = filter["example"][0].as_str().unwrap();
        let asked = world
            .get(&format!("/api/{name}?where={}", example.replace('+', "%2B")))
            .await;
        assert_eq!(asked.status, 200, "{name}: {example}: {}", asked.text);
        // Every column that is said to be a filter is one.
        for column in model.filters() {
            let asked = serde_json::json!({"where": [format!("{} is null", column.name)]});
            let answer = world.post(&format!("/api/{name}/query"), asked).await;
            let is_refused = column.name != "overdue" && column.name != "day";
            assert_eq!(
                answer.status == 200,
                is_refused,
                "{name}.{}: {}",
                column.name,
                answer.text
            );
        }
    }
}

#[test]
fn every_read_model_is_described_with_its_columns() {
    let document = openapi_document();
    for model in READ_MODELS {
        let name = model.name;
        assert!(document["paths"][format!("/api/{name}")]["get"].is_object(), "{name}");
        assert!(
            document["paths"][format!("/api/{name}/query")]["post"].is_object(),
            "{name}"
        );
        let schemas = &document["components"]["schemas"];
        assert!(
            document["paths"][format!("/api/{name}.csv")]["get"].is_object(),
            "{name}"
        );
        for (columns, row) in model.answers().iter().zip(["Row", "PastRow"]) {
            let row = &schemas[format!("{}{row}", schemas::pascal(name))]["properties"];
            for column in columns {
                let schema = &row[column.name];
                let is_nullable = schema["type"]
                    .as_array()
                    .is_some_and(|types| types.contains(&"null".into()));
                assert!(
                    schema["type"].is_string() || is_nullable,
                    "{name}.{} has no type",
                    column.name
                );
                assert_eq!(is_nullable, column.nullable, "{name}.{}", column.name);
            }
        }
    }
}

#[test]
fn every_problem_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), Kind::ALL.len());
    let described = &openapi_document()["components"]["responses"];
    for kind in Kind::ALL {
        assert!(described[kind.status().as_str()].is_object(), "{}", kind.name());
    }
}

#[tokio::test]
async fn the_pages_are_served_from_the_program() {
    let world = World::new().await;
    let root = world.get("/").await;
    assert_eq!((root.status, root.header("location")), (303, Some("/api/docs")));
    for (path, content_type) in [
        ("/api/docs", "text/html; charset=utf-8"),
        ("/api/docs/page.js", "text/javascript; charset=utf-8"),
        ("/api/docs/page.css", "text/css; charset=utf-8"),
        ("/api/openapi.json", "application/json"),
        ("/api", "application/json"),
    ] {
        let answer = world.get(path).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(content_type)),
            "{path}"
        );
        let loads_from_elsewhere = ["src=\"http", "href=\"http", "url(http", "@import", "import("];
        let is_page = path.starts_with("/api/docs");
        assert!(
            !is_page || !loads_from_elsewhere.iter().any(|from| answer.text.contains(from)),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}
