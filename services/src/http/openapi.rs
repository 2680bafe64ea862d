//! The API's description, OpenAPI 3.1, made from the types that the program reads and writes.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use domain::{IDEMPOTENCY_KEY_MAX, Position, StreamKind, TEXT_BYTES_MAX, at_the_door, key_pattern};
use projections::{
    Column, ColumnType, DEFAULT_LIMIT, FILTER_VALUES_MAX, FILTERS_MAX, LIMIT_MAX, READ_MODELS, ReadModel,
};
use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::problem::{self, Kind};
use super::question::{self, Format};
use super::schemas::{self, commands_name, pascal, reference_to};
use super::{BUNDLE_BYTES_MAX, COMMAND_BYTES_MAX, examples};
use crate::commands::{BUNDLE_MAX, COMMAND_ID_DAYS_MAX};

/// The schema of `key:<source>:<key>`.
const BY_KEY: &str = "ByKey";

fn by_key() -> Value {
    json!({
        "type": "string",
        "description": "`key:<source>:<key>`, for a thing that another system named.",
        "maxLength": TEXT_BYTES_MAX,
        "pattern": format!("^key:{}:{}$", key_pattern(":"), key_pattern("")),
    })
}
/// What `X-Actor` may say.
const ACTOR: &str = "^(user|system|integration|customer|agent):[!-?A-~]{1,100}$";
/// A version, as it is or quoted.
const VERSION: &str = "[0-9]{1,18}|\"[0-9]{1,18}\"";
/// The largest integer that every reader of JSON takes for what it is.
const EXACT_TO: u64 = (1 << 53) - 1;
/// What an id of a trace may be.
const TRACE_ID: &str = "^[!-~]{1,200}$";

/// The document depends on nothing but the program.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

pub async fn serve() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, DOCUMENT.as_str()).into_response()
}

/// The OpenAPI document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for kind in StreamKind::ALL {
        add_stream(&mut paths, *kind);
    }
    add(&mut paths, "/api/bundle", "post", bundle());
    for model in READ_MODELS {
        add_read_model(&mut paths, model);
    }
    add_server(&mut paths);
    let streams = StreamKind::ALL
        .iter()
        .map(|kind| json!({"name": kind.name(), "description": format!("Streams of type {}.", kind.name())}));
    let mut tags = vec![
        json!({"name": "read models", "description": "What there is to know, with filters, pages, and both times: as_of and known_at."}),
        json!({"name": "bundle", "description": "Several commands, all or nothing."}),
    ];
    tags.extend(streams);
    tags.push(json!({"name": "server", "description": "How the server is doing."}));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "CRM",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Commands go to streams and are answered when they are durable. Read models follow the log; ask one for at_least \
                the position that a command was answered with, and it has seen that command.\n\nGive every command an Idempotency-Key: \
                sent again with the same key it has one effect and the same answer. Every error is a problem (RFC 9457) with a sentence \
                that may be shown."
        },
        "servers": [{"url": "/", "description": "This server."}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "parameters": parameters(),
            "headers": headers(),
            "responses": responses(),
            "x-problems": Kind::ALL.map(|kind| json!({"name": kind.name(), "status": kind.status().as_u16(), "title": kind.title()})),
        }
    })
}

fn add(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    item[method] = operation;
}

fn add_stream(paths: &mut Map<String, Value>, kind: StreamKind) {
    let name = kind.name();
    let a_name = match name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => format!("an {name}"),
        false => format!("a {name}"),
    };
    let body = json!({
        "required": true,
        "content": {"application/json": with_example(json!({"schema": reference_to(&commands_name(kind))}), examples::of_stream(name))},
    });
    let done = json!({
        "description": "Done and durable.",
        "headers": {"ETag": {"$ref": "#/components/headers/ETag"}},
        "content": {"application/json": {"schema": reference_to("Done")}}
    });
    let began = json!({
        "description": "Done and durable; it began the stream.",
        "headers": {"ETag": {"$ref": "#/components/headers/ETag"}, "Location": {"$ref": "#/components/headers/Location"}},
        "content": {"application/json": {"schema": reference_to("Done")}}
    });
    let mut answers = problems(&["400", "404", "408", "409", "413", "415", "422", "500", "503", "507"]);
    answers.insert("200".into(), done);
    answers.insert("201".into(), began);
    let commands = kind.command_names().join(", ");
    let begin = json!({
        "tags": [name],
        "operationId": format!("begin-{name}"),
        "summary": format!("Begin {a_name}"),
        "description": format!("The id is derived from the command, so that a retry meets the same {name}. Commands: {commands}."),
        "parameters": begin_parameters(),
        "requestBody": body,
        "responses": answers,
    });
    let send = json!({
        "tags": [name],
        "operationId": format!("command-{name}"),
        "summary": format!("Send a command to {a_name}"),
        "description": format!("Commands: {commands}."),
        "parameters": command_parameters(true),
        "requestBody": body,
        "responses": answers,
    });
    let mut answers = problems(&["400", "404", "500", "503"]);
    answers.insert("304".into(), json!({"description": "The sender has this version already.", "headers": {"ETag": {"$ref": "#/components/headers/ETag"}}}));
    let present = json!({
        "description": format!("The {name}'s present version and state."),
        "headers": {"ETag": {"$ref": "#/components/headers/ETag"}},
        "content": {"application/json": {"schema": reference_to("Present")}}
    });
    answers.insert("200".into(), present);
    let present = json!({
        "tags": [name],
        "operationId": format!("get-{name}"),
        "summary": format!("The present version and state of {a_name}"),
        "description": "As commands see it: not delayed by read models.",
        "parameters": [parameter_ref("id"), parameter_ref("If-None-Match")],
        "responses": answers,
    });
    add(paths, &format!("/api/{name}"), "post", begin);
    add(paths, &format!("/api/{name}/{{id}}"), "post", send);
    add(paths, &format!("/api/{name}/{{id}}"), "get", present);
}

fn bundle() -> Value {
    let mut answers = problems(&["400", "404", "408", "409", "413", "415", "422", "500", "503", "507"]);
    let done = json!({
        "description": "Done and durable, all of it.",
        "content": {"application/json": {"schema": reference_to("BundleDone")}}
    });
    answers.insert("200".into(), done);
    let mut parameters = command_parameters(false);
    parameters.retain(|parameter| *parameter != parameter_ref("If-Match"));
    json!({
        "tags": ["bundle"],
        "operationId": "bundle",
        "summary": "Send several commands, all or nothing",
        "description": format!(
            "Up to {BUNDLE_MAX} commands on streams of one slot (a customer and what is theirs), decided in order, one commit. An item's \
            command may name the stream of an earlier item: {{\"item\": 0}}."
        ),
        "parameters": parameters,
        "requestBody": {
            "required": true,
            "content": {"application/json": with_example(json!({"schema": reference_to("Bundle")}), Some(examples::BUNDLE))},
        },
        "responses": answers,
    })
}

fn add_read_model(paths: &mut Map<String, Value>, model: &ReadModel) {
    let filters = model.filters();
    let example = where_example(&filters);
    let mut parameters: Vec<Value> = Vec::new();
    let mut fields = Map::new();
    for column in &filters {
        let schema = filter_schema(column);
        let description = format!("Only rows with this {}; several mean any of them.", column.name);
        let may_lack = model.may_lack(column.name);
        let mut one = vec![schema.clone()];
        if may_lack {
            one.push(json!({"type": "null"}));
        }
        let mut field = one_or_several(one);
        field["description"] = match may_lack {
            true => format!("{description} null is none.").into(),
            false => description.clone().into(),
        };
        fields.insert(column.name.to_owned(), field);
        // It does not belong in a URL.
        if !column.personal {
            let mut one = vec![schema];
            // Nothing but a text is called so.
            if may_lack && column.ty != ColumnType::Text {
                one.push(json!({"type": "string", "const": "null"}));
            }
            let none = match may_lack {
                true => format!(" For none: `where={} is null`.", column.name),
                false => String::new(),
            };
            parameters.push(json!({
                "name": column.name, "in": "query", "required": false, "x-column": true,
                "schema": one_or_several(one), "description": format!("{description}{none}"),
            }));
        }
    }
    let is_of_the_past = |name: &str| matches!(name, "as_of" | "known_at" | "known_until");
    for name in question::PARAMETERS {
        if is_of_the_past(name) && !model.is_dated() {
            continue;
        }
        let parameter = parameters_of_questions().into_iter().find(|(known, ..)| *known == name);
        let Some((_, mut schema, description)) = parameter else {
            continue;
        };
        if name == "where" {
            schema["examples"] = json!([[example]]);
            let mut inline =
                json!({"name": name, "in": "query", "required": false, "schema": schema, "description": description});
            inline["example"] = json!([example]);
            parameters.push(inline);
        } else if name != "format" {
            parameters.push(parameter_ref(name));
        }
        if name != "format" {
            schema["description"] = description.into();
            fields.insert(name.to_owned(), schema);
        }
    }
    let name = pascal(model.name);
    let mut answers = problems(&["400", "500", "503"]);
    let too_long = format!(
        "The URL is longer than a server reads. Send the question to `POST /api/{}/query`.",
        model.name
    );
    answers.insert("414".into(), json!({"description": too_long}));
    let page = json!({
        "description": model.about,
        "headers": {
            "X-Read-Until": {"$ref": "#/components/headers/X-Read-Until"},
            "X-Known-Until": {"$ref": "#/components/headers/X-Known-Until"},
            "X-Definition": {"$ref": "#/components/headers/X-Definition"},
            "X-Cursor": {"$ref": "#/components/headers/X-Cursor"},
        },
        "content": {"application/json": {"schema": reference_to(&format!("{name}Page"))}}
    });
    answers.insert("200".into(), page.clone());
    let mut file_answers = answers.clone();
    let mut file = page;
    file["headers"]["Content-Disposition"] = json!({"$ref": "#/components/headers/Content-Disposition"});
    file["content"] = json!({"text/csv": {"schema": {"type": "string"}}});
    file_answers.insert("200".into(), file);
    let file_parameters: Vec<Value> = parameters.iter().cloned().chain([parameter_ref("format")]).collect();
    let file = json!({
        "tags": ["read models"],
        "operationId": format!("download-{}", model.name),
        "summary": format!("{}, as a file", model.about),
        "description": "All rows unless a limit is asked, sent while they are read.",
        "parameters": file_parameters,
        "responses": file_answers,
    });
    add(paths, &format!("/api/{}.csv", model.name), "get", file);
    let get = json!({
        "tags": ["read models"],
        "operationId": format!("query-{}", model.name),
        "summary": model.about,
        "parameters": parameters,
        "responses": answers,
    });
    answers.remove("414");
    answers.extend(problems(&["408", "413", "415"]));
    let mut question = json!({"type": "object", "additionalProperties": false, "properties": fields});
    if model.is_dated() {
        // Both say the same.
        question["not"] = json!({"required": ["known_at", "known_until"]});
    }
    let post = json!({
        "tags": ["read models"],
        "operationId": format!("ask-{}", model.name),
        "summary": format!("{}, with the question as JSON", model.about),
        "description": "The same question with its parameters in the body, where personal data may stand: nothing of it gets into a URL.",
        "requestBody": {
            "required": true,
            "content": {"application/json": {"schema": question, "example": {"where": [example], "limit": 10}}},
        },
        "responses": answers,
    });
    add(paths, &format!("/api/{}", model.name), "get", get);
    add(paths, &format!("/api/{}/query", model.name), "post", post);
}

/// One of these, or a list of them.
fn one_or_several(mut one: Vec<Value>) -> Value {
    let item = match one.as_slice() {
        [only] => only.clone(),
        _ => json!({"anyOf": one}),
    };
    one.push(json!({"type": "array", "items": item, "minItems": 1, "maxItems": FILTER_VALUES_MAX}));
    json!({"anyOf": one})
}

/// What a column is compared with. A thing may be named by the key that another system has for it.
fn filter_schema(column: &Column) -> Value {
    let mut schema = column_schema(column.ty);
    if column.ty == ColumnType::Text {
        // No store has a text with it.
        schema["pattern"] = "^[^\\u0000]*$".into();
    }
    match column.names() {
        Some(_) => json!({"anyOf": [schema, reference_to(BY_KEY)]}),
        None => schema,
    }
}

/// A filter that fits this read model.
fn where_example(filters: &[Column]) -> String {
    let of = |ty: ColumnType| filters.iter().find(|column| column.ty == ty).map(|column| column.name);
    let date = of(ColumnType::Date).map(|name| format!("{name}<=2026-06-30"));
    let time = of(ColumnType::Time).map(|name| format!("{name}<2026-07-01T00:00:00+08:00"));
    let int = of(ColumnType::Int).map(|name| format!("{name}>=1"));
    let text = of(ColumnType::Text).map(|name| format!("{name} is not null"));
    date.or(time).or(int).or(text).unwrap_or_default()
}

/// The rows of a read model, and a page of them.
fn pages() -> Map<String, Value> {
    let mut schemas = Map::new();
    for model in READ_MODELS {
        let name = pascal(model.name);
        let mut rows = Vec::new();
        for (at, columns) in model.answers().into_iter().enumerate() {
            let row = match at {
                0 => format!("{name}Row"),
                _ => format!("{name}PastRow"),
            };
            schemas.insert(row.clone(), row_schema(&columns));
            rows.push(reference_to(&row));
        }
        let items = match rows.len() {
            1 => rows.remove(0),
            _ => json!({"anyOf": rows}),
        };
        let page = json!({
            "type": "object",
            "required": ["read_model", "rows", "definition"],
            "additionalProperties": false,
            "properties": {
                "read_model": {"type": "string", "const": model.name},
                "rows": {"type": "array", "items": items, "maxItems": LIMIT_MAX},
                "cursor": {"type": "string", "description": "There is more: ask again with it."},
                "as_of": {"type": "string", "format": "date-time"},
                "known_until": {"type": "string", "description": "The positions that a known_at came to. Asked again with them, the answer is the same byte for byte."},
                "definition": {"type": "string", "description": "Changes with the read model's definition."},
                "read_until": {"type": "object", "additionalProperties": {"type": "integer"}, "description": "The next offset per shard. Not in an answer that is limited to what was known at a time."},
            }
        });
        schemas.insert(format!("{name}Page"), page);
    }
    schemas
}

fn row_schema(columns: &[Column]) -> Value {
    let mut properties = Map::new();
    for column in columns {
        let mut schema = column_schema(column.ty);
        if column.nullable {
            schema = match schema.get("type").cloned() {
                Some(ty) => {
                    schema["type"] = json!([ty, "null"]);
                    schema
                }
                None => json!({"anyOf": [schema, {"type": "null"}]}),
            };
        }
        properties.insert(column.name.to_owned(), schema);
    }
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    json!({"type": "object", "required": names, "additionalProperties": false, "properties": properties})
}

fn add_server(paths: &mut Map<String, Value>) {
    let operation = |id: &str, summary: &str, content_type: &str, schema: Value| {
        let answer = json!({"description": summary, "content": {content_type: {"schema": schema}}});
        json!({"tags": ["server"], "operationId": id, "summary": summary, "responses": {"200": answer}})
    };
    let text = || json!({"type": "string"});
    let object = || json!({"type": "object"});
    let json = "application/json";
    let mut ready = operation(
        "ready",
        "Is every shard owned, and can every read model be asked?",
        "text/plain",
        text(),
    );
    ready["responses"]["503"] = json!({"$ref": "#/components/responses/503"});
    add(
        paths,
        "/api",
        "get",
        operation("index", "What there is", json, object()),
    );
    add(
        paths,
        "/api/openapi.json",
        "get",
        operation("openapi", "This document", json, object()),
    );
    let status = operation(
        "status",
        "Shards, read models, lag and trouble",
        json,
        reference_to("Status"),
    );
    add(paths, "/api/status", "get", status);
    add(
        paths,
        "/health/live",
        "get",
        operation("live", "Does the process answer?", "text/plain", text()),
    );
    add(paths, "/health/ready", "get", ready);
    let metrics = operation("metrics", "Metrics for Prometheus", "text/plain", text());
    add(paths, "/metrics", "get", metrics);
}

fn column_schema(ty: ColumnType) -> Value {
    match ty {
        ColumnType::Uuid => json!({"type": "string", "format": "uuid"}),
        ColumnType::Text => json!({"type": "string"}),
        ColumnType::Int => json!({"type": "integer", "format": "int64"}),
        ColumnType::Bool => json!({"type": "boolean"}),
        ColumnType::Date => json!({"type": "string", "format": "date"}),
        ColumnType::Time => json!({"type": "string", "format": "date-time"}),
        ColumnType::Json => json!({"type": "array", "items": {}}),
    }
}

fn with_example(mut content: Value, example: Option<&str>) -> Value {
    if let Some(example) = example.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        content["example"] = example;
    }
    content
}

fn schemas() -> Map<String, Value> {
    let mut schemas = schemas::of_commands();
    schemas.extend(pages());
    let streams: Vec<&str> = StreamKind::ALL.iter().map(|kind| kind.name()).collect();
    let uuid = || json!({"type": "string", "format": "uuid"});
    let version = || json!({"type": "integer", "minimum": 0});
    let position = || {
        json!({"type": "string", "pattern": "^[0-9]+:[0-9]+$", "examples": ["3:1207"],
            "description": "The shard and offset of the last record that the answer rests on: ask a read model for at_least this."})
    };
    let events =
        || json!({"type": "integer", "minimum": 0, "description": "How many events it wrote; 0 = it was so already."});
    for kind in StreamKind::ALL {
        schemas.insert(bundle_item_name(*kind), bundle_item_of(*kind));
    }
    let rest = [
        ("Problem", problem::schema()),
        (
            "Done",
            json!({
                "type": "object",
                "required": ["stream", "id", "version", "position", "events", "command_id"],
                "properties": {
                    "stream": {"type": "string", "enum": streams}, "id": uuid(), "version": version(), "position": position(), "events": events(),
                    "command_id": command_id(),
                }
            }),
        ),
        (
            "Bundle",
            json!({
                "type": "object",
                "required": ["commands"],
                "additionalProperties": false,
                "properties": {"commands": {"type": "array", "minItems": 1, "maxItems": BUNDLE_MAX, "items": reference_to("BundleItem")}}
            }),
        ),
        (BY_KEY, by_key()),
        ("BundleItem", bundle_item()),
        (
            "BundleDone",
            json!({
                "type": "object",
                "required": ["streams", "position", "events", "command_id"],
                "properties": {
                    "streams": {"type": "array", "items": {
                        "type": "object",
                        "required": ["stream", "id"],
                        "properties": {
                            "stream": {"type": "string", "enum": streams}, "id": uuid(),
                            "version": {"type": "integer", "description": "Left out when nothing was written to it."},
                        }
                    }},
                    "position": position(), "events": events(), "command_id": command_id(),
                }
            }),
        ),
        (
            "Present",
            json!({
                "type": "object",
                "required": ["stream", "id", "version", "state"],
                "properties": {"stream": {"type": "string", "enum": streams}, "id": uuid(), "version": version(), "state": {"type": "object"}}
            }),
        ),
        (
            "Status",
            json!({
                "type": "object",
                "required": ["ok", "instance", "version", "log", "time_zone", "views", "stopping", "shards", "read_models", "trouble"],
                "properties": {
                    "ok": {"type": "boolean"}, "instance": {"type": "string"}, "version": {"type": "string"},
                    "log": {"type": "string"},
                    "time_zone": {"type": "string", "description": "Whose days figures are counted in; as it was when the log was created.",
                        "examples": ["Asia/Taipei"]},
                    "views": {"type": "string"}, "stopping": {"type": "boolean"},
                    "shards": {"type": "array", "items": {"type": "object"}},
                    "read_models": {"type": "array", "items": {"type": "object"}},
                    "trouble": {"type": "array", "items": {"type": "string"}, "description": "What is not as it should be, in sentences."},
                }
            }),
        ),
    ];
    schemas.extend(rest.map(|(name, schema)| (name.to_owned(), schema)));
    schemas
}

/// A command of a bundle, with the stream that it is for.
fn bundle_item() -> Value {
    let of_streams = StreamKind::ALL
        .iter()
        .map(|kind| (kind.name(), bundle_item_name(*kind)));
    let mapping: Map<String, Value> = of_streams
        .clone()
        .map(|(stream, name)| (stream.to_owned(), reference_to(&name)["$ref"].clone()))
        .collect();
    let all: Vec<Value> = of_streams.map(|(_, name)| reference_to(&name)).collect();
    json!({"oneOf": all, "discriminator": {"propertyName": "stream", "mapping": mapping}})
}

fn bundle_item_name(kind: StreamKind) -> String {
    format!("{}BundleItem", pascal(kind.name()))
}

fn bundle_item_of(kind: StreamKind) -> Value {
    let reference = schemas::outside_reference();
    json!({
        "type": "object",
        "required": ["stream", "command"],
        "additionalProperties": false,
        "properties": {
            "stream": {"type": "string", "const": kind.name()},
            "id": {"anyOf": [reference, {"type": "null"}], "description": "Left out, the command begins a stream."},
            "customer": {"anyOf": [reference, {"type": "null"}], "description": "Fills the command's customer when it has none."},
            "command": reference_to(&commands_name(kind)),
            "expected_version": {"type": ["integer", "null"], "minimum": 0, "maximum": EXACT_TO},
        }
    })
}

fn parameter_ref(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

fn command_id() -> Value {
    json!({"type": "string", "format": "uuid", "description": "The id under which the command is recorded; as an Idempotency-Key it means this command too."})
}

fn command_parameters(has_id: bool) -> Vec<Value> {
    let names = [
        "Idempotency-Key",
        "If-Match",
        "effective_at",
        "upsert",
        "X-Actor",
        "X-On-Behalf-Of",
        "X-Correlation-Id",
        "X-Causation-Id",
        "X-Lane",
        "Prefer",
        "traceparent",
    ];
    let id = has_id.then_some("id");
    id.into_iter().chain(names).map(parameter_ref).collect()
}

/// Those of a command that begins a stream. A star would ask for a stream that is begun.
fn begin_parameters() -> Vec<Value> {
    let mut parameters = command_parameters(false);
    for parameter in &mut parameters {
        if *parameter == parameter_ref("If-Match") {
            *parameter = json!({
                "name": "If-Match", "in": "header", "required": false,
                "schema": {"type": "string", "pattern": format!("^({VERSION})$"), "examples": ["\"0\""]},
                "description": "The version that the stream must have; 0 = it must not be begun yet.",
            });
        }
    }
    parameters
}

fn parameters() -> Map<String, Value> {
    let text = || json!({"type": "string"});
    let known = [
        (
            "id",
            "path",
            json!({"anyOf": [{"type": "string", "format": "uuid"}, reference_to(BY_KEY)]}),
            "A UUID, or `key:<source>:<key>`, percent-encoded, for a thing that another system named.".to_owned(),
        ),
        (
            "Idempotency-Key",
            "header",
            json!({"type": "string", "maxLength": IDEMPOTENCY_KEY_MAX, "pattern": "^[!-~]([ -~]*[!-~])?$"}),
            format!(
                "Any text of 1 to {IDEMPOTENCY_KEY_MAX} visible characters that you make for this command; a UUID of version 7 is best. The same \
                 key has one effect on the stream that the command addresses, and the same answer; with another command for that stream it \
                 is refused (422). A key is unique within its stream: for another stream it is another command. A UUID of version 7 is accepted \
                 for {COMMAND_ID_DAYS_MAX} days after it was made, every other key for ever."
            ),
        ),
        (
            "If-Match",
            "header",
            json!({"type": "string", "pattern": format!("^(\\*|{VERSION})$"), "examples": ["\"3\""]}),
            "The version that the stream must have; 0 = it must not be begun yet, * = it must be begun.".to_owned(),
        ),
        (
            "If-None-Match",
            "header",
            json!({"type": "string", "examples": ["\"3\""]}),
            "The version that the sender has: 304 and no body if it is the present one.".to_owned(),
        ),
        (
            "effective_at",
            "query",
            at_the_door::time_schema(&mut SchemaGenerator::default()).into(),
            "When it was true in the world, if that was not now.".to_owned(),
        ),
        (
            "upsert",
            "query",
            json!({"type": "boolean", "default": false}),
            "Update or create. A command that begins a stream which is begun already with other data is refused (422). With `true` it changes \
             the stream to what it says, by the events of the stream's other commands, all or none of them. It is measured by the stream \
             as it stood at its `effective_at`; the same again writes nothing. An optional field that is left out stays as it is; only a \
             receipt is replaced whole but for its customer. A field that no command changes is refused by name. To other commands it \
             means nothing. With it a command is another one for its Idempotency-Key."
                .to_owned(),
        ),
        (
            "X-Actor",
            "header",
            json!({"type": "string", "pattern": ACTOR, "default": "user:local", "examples": ["user:mei", "integration:erp"]}),
            "Who does it: user:, system:, integration:, customer: or agent: and an opaque id.".to_owned(),
        ),
        (
            "X-On-Behalf-Of",
            "header",
            json!({"type": "string", "pattern": ACTOR}),
            "For whom the actor does it.".to_owned(),
        ),
        (
            "X-Correlation-Id",
            "header",
            json!({"type": "string", "pattern": TRACE_ID}),
            "The undertaking that it belongs to.".to_owned(),
        ),
        (
            "X-Causation-Id",
            "header",
            json!({"type": "string", "pattern": TRACE_ID}),
            "The event that caused it.".to_owned(),
        ),
        (
            "X-Lane",
            "header",
            json!({"type": "string", "enum": ["people", "imports"], "default": "people"}),
            "Imports wait behind people.".to_owned(),
        ),
        (
            "Prefer",
            "header",
            text(),
            "`handling=strict` refuses a reference to a customer, machine, deal or other thing that is not there (yet). Without it a thing \
             with an id or a key of its own is taken, and `dangling` lists the reference until what it means comes. A thing that gets its id \
             here lives beside its customer or machine, which must be there always."
                .to_owned(),
        ),
        ("traceparent", "header", text(), "W3C trace context.".to_owned()),
    ];
    let of_questions = parameters_of_questions().into_iter();
    let of_questions = of_questions.map(|(name, schema, description)| (name, "query", schema, description));
    let entries = known.into_iter().chain(of_questions).map(|(name, place, schema, description)| {
        let parameter = json!({"name": name, "in": place, "required": place == "path", "schema": schema, "description": description});
        (name.to_owned(), parameter)
    });
    entries.collect()
}

/// The parameters of every question, in a URL or in a body.
fn parameters_of_questions() -> [(&'static str, Value, String); 8] {
    let text = || json!({"type": "string"});
    let time = "A time with its offset (RFC 3339), or a day, which is its end in the time zone of the log.";
    let position = Position::PATTERN;
    [
        (
            "where",
            json!({"type": "array", "items": text(), "maxItems": FILTERS_MAX}),
            "`<column><comparison><value>` with =, !=, <, <=, > or >=; `<column> in (<value>, <value>)`; `<column> is null`, \
             `<column> is not null`. A value may stand in double quotes. Several are all meant, except that several equalities on \
             one column mean any of them. Rows without a value differ from every value."
                .to_owned(),
        ),
        (
            "limit",
            json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX}),
            format!("Rows of a page: {DEFAULT_LIMIT} of JSON if it is left out, and all of CSV."),
        ),
        (
            "cursor",
            json!({"type": "string", "pattern": "^[0-9]{1,9}$"}),
            "Where the last page ended, as its answer said.".to_owned(),
        ),
        (
            "as_of",
            moment(),
            format!("The world at this time, with what was recorded about it since. {time}"),
        ),
        (
            "known_at",
            moment(),
            format!("Only what was recorded by this time. {time}"),
        ),
        (
            "known_until",
            json!({"type": "string", "pattern": format!("^({position}(,{position})*)?$"), "examples": ["0:12,1:99"]}),
            "Only what was recorded up to these positions, as an answer gave them: `0:12,1:99`.".to_owned(),
        ),
        (
            "at_least",
            json!({"type": "string", "pattern": format!("^({position}(,{position})*)?$")}),
            "Wait until the read model has passed this position (`3:1207`); several by comma.".to_owned(),
        ),
        (
            "format",
            json!({"type": "string", "enum": Format::FILES.map(|(name, _)| name), "default": "csv"}),
            "How the file looks. `csv` is for programs, `excel` is CSV for people who open it in a spreadsheet: money with its \
             decimals, shares in per cent, and no text that would be run as a formula. Both have all rows unless a limit is asked."
                .to_owned(),
        ),
    ]
}

/// A day, or a time with an offset.
fn moment() -> Value {
    json!({"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]})
}

fn headers() -> Value {
    let header = |description: &str| json!({"description": description, "schema": {"type": "string"}});
    json!({
        "ETag": header("The stream's version, quoted, for If-Match."),
        "Location": header("Where the stream is."),
        "Retry-After": header("Seconds after which to try again."),
        "X-Reference": header("Under it the server's log has the cause: the trace id of traceparent, or one of the server's own."),
        "X-Read-Until": header("The next offset per shard that the read model has come to."),
        "X-Known-Until": header("The positions that a known_at came to."),
        "X-Definition": header("Changes with the read model's definition."),
        "X-Cursor": header("Asks for the next page."),
        "Content-Disposition": header("The name of the file, when the answer is one."),
    })
}

/// A response per status that problems have; what the kinds of it are is its description.
fn responses() -> Map<String, Value> {
    let mut responses: Map<String, Value> = Map::new();
    for kind in Kind::ALL {
        let status = kind.status();
        let meaning = format!("`{}`: {}.", kind.name(), kind.title());
        if let Some(known) = responses.get_mut(status.as_str()) {
            let all = format!("{} {meaning}", known["description"].as_str().unwrap_or_default());
            known["description"] = all.into();
            continue;
        }
        let mut response = json!({
            "description": meaning,
            "content": {"application/problem+json": {"schema": reference_to("Problem")}}
        });
        if status.is_server_error() {
            response["headers"] = json!({"X-Reference": {"$ref": "#/components/headers/X-Reference"}});
        }
        if status.as_u16() == 503 {
            response["headers"]["Retry-After"] = json!({"$ref": "#/components/headers/Retry-After"});
        }
        if status.as_u16() == 413 {
            let limits = format!("A command has {COMMAND_BYTES_MAX} bytes at most, a bundle {BUNDLE_BYTES_MAX}.");
            response["description"] = format!("{meaning} {limits}").into();
        }
        responses.insert(status.as_str().to_owned(), response);
    }
    responses
}

fn problems(statuses: &[&str]) -> Map<String, Value> {
    let references = statuses.iter().map(|status| {
        (
            (*status).to_owned(),
            json!({"$ref": format!("#/components/responses/{status}")}),
        )
    });
    references.collect()
}
