//! Personal data, kept out of logs by its type.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

/// A value that tells something of a person: a name, an address, what they wrote. It is stored and served like the plain
/// value, and never printed: `Debug` shows `<personal>`, and there is no `Display`.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Personal<T>(T);

impl<T> Personal<T> {
    pub fn new(value: T) -> Personal<T> {
        Personal(value)
    }

    /// The plain value, for those who store or show it; never for a log line, a key, an id or a URL.
    pub fn reveal(&self) -> &T {
        &self.0
    }

    pub fn into_inner(self) -> T {
        self.0
    }
}

impl From<&str> for Personal<String> {
    fn from(value: &str) -> Personal<String> {
        Personal(value.to_owned())
    }
}

impl From<String> for Personal<String> {
    fn from(value: String) -> Personal<String> {
        Personal(value)
    }
}

impl Personal<String> {
    /// Is there nothing to see in it?
    pub fn is_blank(&self) -> bool {
        super::is_blank(&self.0)
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<personal>")
    }
}

impl<T: JsonSchema> JsonSchema for Personal<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_personal_value_is_never_printed() {
        let name = Personal::from("王小明");
        assert_eq!(format!("{name:?}"), "<personal>");
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"王小明\"");
    }
}
