//! JSON schemas of the commands as they look in a request: `{"type": "win", …}`, where serde's derive has `{"win": {…}}`.

use std::collections::{BTreeMap, BTreeSet};

use domain::{MINOR_MAX, StreamKind, TEXT_BYTES_MAX, key_pattern, text_schema};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::commands::BUNDLE_MAX;

/// Where schemas stand in the document.
const HOME: &str = "#/components/schemas/";

/// The reference to a schema of this name.
pub fn reference_to(name: &str) -> Value {
    json!({"$ref": format!("{HOME}{name}")})
}

/// `OpportunityCommand`, the schema of all commands of a stream.
pub fn commands_name(kind: StreamKind) -> String {
    format!("{}Command", pascal(kind.name()))
}

/// The schema of one command of a stream: `OpportunityChangeStage`.
pub fn command_name(kind: StreamKind, command: &str) -> String {
    format!("{}{}", pascal(kind.name()), pascal(command))
}

/// The schemas of every stream's commands, and of the types in them.
pub fn of_commands() -> Map<String, Value> {
    let generated: Vec<(StreamKind, Map<String, Value>)> = StreamKind::ALL.iter().map(|kind| generate(*kind)).collect();
    let ambiguous = ambiguous(&generated);
    let mut schemas = Map::new();
    for (kind, definitions) in generated {
        let name_of = |name: &str| match ambiguous.contains(name) {
            true => format!("{}{name}", pascal(kind.name())),
            false => name.to_owned(),
        };
        for (name, mut schema) in definitions {
            rename_references(&mut schema, &name_of);
            match name == ENUM {
                true => add_commands(kind, &schema, &mut schemas),
                false => {
                    schemas.insert(name_of(&name), schema);
                }
            }
        }
    }
    let key = json!({
        "type": "string", "maxLength": TEXT_BYTES_MAX, "pattern": format!("^{}$", key_pattern("")),
        "description": "A key of another system, or that system's name, with something to see.",
    });
    schemas.insert("Key".into(), key);
    schemas.insert("Reference".into(), reference(false));
    schemas.insert("ReferenceToAny".into(), reference(true));
    schemas.values_mut().for_each(without_defaults);
    let mut texts = Map::new();
    schemas.values_mut().for_each(|schema| bound("", schema, &mut texts));
    schemas.extend(texts);
    schemas
}

/// Says what the door takes in a field of this name, where its type says less: of a text, and of an integer. `texts`
/// gets the schemas that are referred to.
fn bound(name: &str, schema: &mut Value, texts: &mut Map<String, Value>) {
    let Value::Object(fields) = schema else { return };
    let is_narrow = ["enum", "const", "format", "pattern"]
        .iter()
        .any(|word| fields.contains_key(*word));
    let ty = fields.get("type").cloned().unwrap_or_default();
    match (is_narrow, ty) {
        (false, Value::String(ty)) if ty == "string" => {
            fields.remove("type");
            fields.insert("$ref".into(), text(name, texts));
            fields.remove("minLength");
        }
        (false, Value::Array(types)) if types == ["string", "null"] => {
            fields.remove("type");
            let either = json!([{"$ref": text(name, texts)}, {"type": "null"}]);
            fields.insert("anyOf".into(), either);
        }
        _ => bound_integer(name, fields),
    }
    for (word, inner) in fields.iter_mut() {
        match (word.as_str(), inner) {
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    bound(name, property, texts);
                }
            }
            ("items", items) => bound(name, items, texts),
            ("anyOf" | "oneOf" | "allOf", Value::Array(all)) => {
                all.iter_mut().for_each(|one| bound(name, one, texts));
            }
            _ => {}
        }
    }
}

/// The reference to the schema of a text in a field of this name.
fn text(name: &str, texts: &mut Map<String, Value>) -> Value {
    let (schema, json) = text_schema(name);
    texts.insert(schema.to_owned(), json);
    format!("{HOME}{schema}").into()
}

fn bound_integer(name: &str, fields: &mut Map<String, Value>) {
    let is_amount = name == "minor" || name.ends_with("_minor");
    let (least, most) = match fields.get("format").and_then(Value::as_str) {
        Some("uint16") => (0, u16::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("int64") if is_amount => (-MINOR_MAX, MINOR_MAX),
        _ => return,
    };
    fields.entry("minimum").or_insert(least.into());
    fields.entry("maximum").or_insert(most.into());
}

/// What is filled in when a field is left out is no value that a sender has to give: generators of clients would ask for it.
fn without_defaults(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let is_schema = ["type", "anyOf", "oneOf", "$ref"]
                .iter()
                .any(|name| fields.contains_key(*name));
            if is_schema {
                fields.remove("default");
            }
            fields.values_mut().for_each(without_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(without_defaults),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What every stream calls its commands.
const ENUM: &str = "Command";

fn generate(kind: StreamKind) -> (StreamKind, Map<String, Value>) {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    kind.command_schema(&mut generator);
    (kind, generator.take_definitions(true))
}

/// The names that mean different things in different streams: they get the stream's name in front.
fn ambiguous(generated: &[(StreamKind, Map<String, Value>)]) -> BTreeSet<String> {
    let mut meanings: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut mentions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, schema) in generated.iter().flat_map(|(_, definitions)| definitions) {
        meanings.entry(name).or_default().insert(schema.to_string());
        let mentioned = mentions.entry(name).or_default();
        for_each_reference(schema, &mut |other| {
            mentioned.insert(other.to_owned());
        });
    }
    let several = meanings
        .iter()
        .filter(|(name, meanings)| meanings.len() > 1 || **name == ENUM);
    let mut ambiguous: BTreeSet<String> = several.map(|(name, _)| (*name).to_owned()).collect();
    // What mentions something ambiguous means different things itself.
    loop {
        let known = ambiguous.len();
        for (name, mentioned) in &mentions {
            if !mentioned.is_disjoint(&ambiguous) {
                ambiguous.insert((*name).to_owned());
            }
        }
        if ambiguous.len() == known {
            return ambiguous;
        }
    }
}

fn add_commands(kind: StreamKind, enumeration: &Value, schemas: &mut Map<String, Value>) {
    let mut mapping = Map::new();
    let mut all = Vec::new();
    for command in kind.command_names() {
        let name = command_name(kind, command);
        schemas.insert(name.clone(), tagged(command, variant(enumeration, command)));
        mapping.insert((*command).to_owned(), format!("{HOME}{name}").into());
        all.push(reference_to(&name));
    }
    let any = json!({
        "description": format!("A command to a stream of type {}.", kind.name()),
        "oneOf": all,
        "discriminator": {"propertyName": "type", "mapping": mapping},
    });
    schemas.insert(commands_name(kind), any);
}

/// What the derive says of a variant: its description and the schema of its fields.
struct Variant<'a> {
    description: Option<&'a Value>,
    fields: Option<&'a Value>,
}

fn variant<'a>(enumeration: &'a Value, command: &str) -> Variant<'a> {
    let variants = enumeration["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    for variant in variants {
        if let Some(fields) = variant["properties"].get(command) {
            return Variant {
                description: variant.get("description"),
                fields: Some(fields),
            };
        }
        if variant.get("const").and_then(Value::as_str) == Some(command) {
            return Variant {
                description: variant.get("description"),
                fields: None,
            };
        }
    }
    Variant {
        description: None,
        fields: None,
    }
}

/// `{"type": "win"}` and the fields.
fn tagged(command: &str, variant: Variant<'_>) -> Value {
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    if let Some(description) = variant.description {
        schema.insert("description".into(), description.clone());
    }
    let none = Value::Null;
    let fields = variant.fields.unwrap_or(&none);
    let mut properties = Map::new();
    properties.insert("type".into(), json!({"type": "string", "const": command}));
    for (name, field) in fields["properties"].as_object().into_iter().flatten() {
        properties.insert(name.clone(), with_references(name, field));
    }
    let mut required = vec![Value::from("type")];
    required.extend(fields["required"].as_array().into_iter().flatten().cloned());
    schema.insert("properties".into(), properties.into());
    schema.insert("required".into(), required.into());
    schema.insert("additionalProperties".into(), false.into());
    schema.into()
}

/// An id may be given as the key that another system has for it.
fn with_references(name: &str, field: &Value) -> Value {
    let is_id = |schema: &Value| schema["format"] == "uuid";
    let mut schema = match field {
        field if is_id(field) && field["type"] == "string" => reference_to("Reference"),
        field if is_id(field) => json!({"anyOf": [reference_to("Reference"), {"type": "null"}]}),
        field if name == "about" && is_id(&field["items"]) => {
            json!({"type": "array", "items": reference_to("ReferenceToAny")})
        }
        field => return field.clone(),
    };
    for kept in ["description", "default"] {
        if let Some(value) = field.get(kept) {
            schema[kept] = value.clone();
        }
    }
    schema
}

/// How a command names a thing. Where a field's name does not say what it is (`is_any`), its key goes with it.
fn reference(is_any: bool) -> Value {
    let streams: Vec<&str> = StreamKind::ALL.iter().map(|kind| kind.name()).collect();
    let keyed = match is_any {
        true => json!({
            "type": "object",
            "required": ["key", "stream"],
            "additionalProperties": false,
            "properties": {"key": key(), "stream": {"type": "string", "enum": streams, "description": "What it is."}}
        }),
        false => keyed(),
    };
    json!({
        "description": "A thing, by its id; by its key in another system; or, in a bundle, by the number of an earlier item (from 0) that it is the stream of.",
        "oneOf": [
            {"type": "string", "format": "uuid"},
            keyed,
            {
                "type": "object",
                "required": ["item"],
                "additionalProperties": false,
                "properties": {"item": {"type": "integer", "minimum": 0, "maximum": BUNDLE_MAX - 1}}
            }
        ],
        "examples": match is_any {
            true => json!(["01979e04-0000-8abc-8000-000000000001", {"key": ["erp", "C-12"], "stream": "customer"}]),
            false => json!(["01979e04-0000-8abc-8000-000000000001", {"key": ["erp", "C-12"]}]),
        }
    })
}

/// A thing outside of the bundle.
pub fn outside_reference() -> Value {
    json!({"oneOf": [{"type": "string", "format": "uuid"}, keyed()]})
}

fn keyed() -> Value {
    json!({"type": "object", "required": ["key"], "additionalProperties": false, "properties": {"key": key()}})
}

fn key() -> Value {
    json!({"type": "array", "items": reference_to("Key"), "minItems": 2, "maxItems": 2, "description": "The source, and its key."})
}

fn rename_references(schema: &mut Value, name_of: &impl Fn(&str) -> String) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref")
                && let Some(name) = target.strip_prefix(HOME)
            {
                *target = format!("{HOME}{}", name_of(name));
            }
            fields.values_mut().for_each(|field| rename_references(field, name_of));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, name_of)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn for_each_reference(schema: &Value, see: &mut impl FnMut(&str)) {
    match schema {
        Value::Object(fields) => {
            if let Some(name) = fields
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|target| target.strip_prefix(HOME))
            {
                see(name);
            }
            fields.values().for_each(|field| for_each_reference(field, see));
        }
        Value::Array(items) => items.iter().for_each(|item| for_each_reference(item, see)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `set-contact-point` → `SetContactPoint`.
pub fn pascal(name: &str) -> String {
    let words = name.split(['-', '_']).map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect()
}
