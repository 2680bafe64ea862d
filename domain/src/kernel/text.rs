//! Texts as they come in: in one form (NFC), without characters that act on a screen, with something to see, and not too long.
//!
//! Texts in the log are read as they were written, whatever is in them.

use serde_json::{Value, json};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use super::CommandError;

/// Bytes of a text at most: read models are keyed by reasons, stores and the like, and an index row of a database holds three of this
/// length and no more.
pub const TEXT_BYTES_MAX: usize = 800;
/// Bytes at most of what people write at length.
pub const LONG_TEXT_BYTES_MAX: usize = 100_000;
/// The fields that hold it.
const LONG_TEXTS: [&str; 10] = [
    "body",
    "text",
    "note",
    "subject",
    "summary",
    "resolution",
    "symptom",
    "name",
    "value",
    "item",
];
/// The fields that may have several lines: what people write at length, and postal addresses.
const TEXTS_OF_LINES: [&str; 8] = [
    "body",
    "text",
    "note",
    "summary",
    "resolution",
    "symptom",
    "value",
    "site",
];

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadText {
    #[error("the text has {0} bytes, {1} at most")]
    TooLong(usize, usize),
    #[error("a text must not contain the character NUL")]
    Nul,
    #[error("a text must not contain control characters, and this one contains U+{:04X}", u32::from(*.0))]
    Control(char),
    #[error("a text must not turn the direction of writing, and this one contains U+{:04X}", u32::from(*.0))]
    Direction(char),
    #[error("this text has one line, without tabs and line breaks")]
    Lines,
    #[error("the text has no visible character")]
    Invisible,
}

/// Whether the text has no visible character. Spaces, characters without width such as U+200B, fillers and marks of
/// direction are not visible.
pub fn is_blank(text: &str) -> bool {
    !text.chars().any(is_visible)
}

/// A key of another system, or the name of that system, in the form in which it is stored and compared.
///
/// # Errors
/// [`BadText`]. A blank text is no key.
pub fn tidy_key(text: &str) -> Result<String, BadText> {
    let mut text = text.to_owned();
    tidy("key", &mut text)?;
    match is_blank(&text) {
        true => Err(BadText::Invisible),
        false => Ok(text),
    }
}

/// Puts every text of a command into the form in which it is stored and compared.
///
/// # Errors
/// What is wrong with the first bad text, and the path of its field.
pub fn tidy_texts(json: &mut Value) -> Result<(), CommandError> {
    let mut path = Vec::new();
    tidy_value("", json, &mut path).map_err(|bad| CommandError {
        at: written(&path),
        message: bad.to_string(),
    })
}

/// Puts every text of a stored event into the form in which texts are compared. It may be older than that form.
pub fn normalise_texts(json: &mut Value) {
    match json {
        Value::String(text) => normalise(text),
        Value::Array(list) => list.iter_mut().for_each(normalise_texts),
        Value::Object(fields) => fields.values_mut().for_each(normalise_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text in the form in which texts are stored and compared. What is asked for is put into it; what its sender alone
/// reads, such as a cursor, is not.
pub fn normalised(mut text: String) -> String {
    normalise(&mut text);
    text
}

fn normalise(text: &mut String) {
    if !is_nfc(text) {
        *text = text.nfc().collect();
    }
}

enum Part {
    Field(String),
    Item(usize),
}

/// `lines[3].sku`
fn written(path: &[Part]) -> String {
    let mut text = String::new();
    for part in path {
        match part {
            Part::Field(name) if text.is_empty() => text.push_str(name),
            Part::Field(name) => text.push_str(&format!(".{name}")),
            Part::Item(n) => text.push_str(&format!("[{n}]")),
        }
    }
    match text.is_empty() {
        true => ".".to_owned(),
        false => text,
    }
}

/// `name` is that of the field that holds the value. After an error `path` leads to the text at fault.
fn tidy_value(name: &str, json: &mut Value, path: &mut Vec<Part>) -> Result<(), BadText> {
    match json {
        Value::String(text) => tidy(name, text),
        Value::Array(list) => {
            for (n, item) in list.iter_mut().enumerate() {
                path.push(Part::Item(n));
                tidy_value(name, item, path)?;
                path.pop();
            }
            Ok(())
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                // The name is not put into the path when it is what is wrong.
                name.chars().try_for_each(|c| check(c, false))?;
                path.push(Part::Field(name.clone()));
                tidy_value(name, value, path)?;
                path.pop();
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn tidy(name: &str, text: &mut String) -> Result<(), BadText> {
    let has_lines = TEXTS_OF_LINES.contains(&name);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        // Windows and mail end their lines with both.
        if c == '\r' && has_lines && chars.peek() == Some(&'\n') {
            continue;
        }
        check(c, has_lines)?;
    }
    normalise(text);
    if text.len() > bytes_max(name) {
        return Err(BadText::TooLong(text.len(), bytes_max(name)));
    }
    // What is empty, or only spaces, is refused where something is needed, by a sentence that says what.
    match !text.trim().is_empty() && is_blank(text) {
        true => Err(BadText::Invisible),
        false => Ok(()),
    }
}

/// Bytes at most of a text of the field of this name.
fn bytes_max(name: &str) -> usize {
    match LONG_TEXTS.contains(&name) {
        true => LONG_TEXT_BYTES_MAX,
        false => TEXT_BYTES_MAX,
    }
}

fn check(c: char, has_lines: bool) -> Result<(), BadText> {
    match c {
        '\0' => Err(BadText::Nul),
        '\t' | '\n' | '\u{2028}' | '\u{2029}' if has_lines => Ok(()),
        '\t' | '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => match has_lines {
            true => Err(BadText::Control(c)),
            false => Err(BadText::Lines),
        },
        // Embeddings, overrides and isolates: the text of others would be shown in another order than it is read.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => Err(BadText::Direction(c)),
        // C0, DEL and C1: terminals obey them.
        c if c.is_control() => Err(BadText::Control(c)),
        _ => Ok(()),
    }
}

/// Unicode's Default_Ignorable_Code_Point, and what else shows nothing. Joiners and variation selectors are among them: they are
/// good in a text, beside a character that they act on.
const INVISIBLE: [(char, char); 18] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];
/// Unicode's White_Space that ends no line.
const WHITE_SPACE: [(char, char); 7] = [
    (' ', ' '),
    ('\u{a0}', '\u{a0}'),
    ('\u{1680}', '\u{1680}'),
    ('\u{2000}', '\u{200a}'),
    ('\u{202f}', '\u{202f}'),
    ('\u{205f}', '\u{205f}'),
    ('\u{3000}', '\u{3000}'),
];

fn is_visible(c: char) -> bool {
    let is_ignorable = INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&c));
    !(c.is_whitespace() || c.is_control() || is_ignorable)
}

/// What a text of the field of this name is, as JSON schema says it, and the name of that schema: the characters that
/// it may have, one of them visible unless it is blank, and how long it is at most. A schema counts characters where a
/// store counts bytes, so it takes some texts that are too long.
pub fn text_schema(name: &str) -> (&'static str, Value) {
    let (schema, what) = match (LONG_TEXTS.contains(&name), TEXTS_OF_LINES.contains(&name)) {
        (false, false) => ("Text", "A text of one line"),
        (false, true) => ("TextOfLines", "A text that may have several lines"),
        (true, false) => ("LongText", "A text of one line that may be long"),
        (true, true) => ("LongTextOfLines", "What people write at length, in several lines"),
    };
    let bytes_max = bytes_max(name);
    let json = json!({
        "type": "string",
        "description": format!("{what}: {bytes_max} bytes of UTF-8 at most, without control characters, and with something to see."),
        "maxLength": bytes_max,
        "pattern": format!("^{}$", Characters::of(name, "").something_or_blank()),
    });
    (schema, json)
}

/// The regular expression of a key of another system that has none of the characters `without`.
pub fn key_pattern(without: &str) -> String {
    Characters::of("key", without).something()
}

/// The characters of a text, as regular expressions say them.
struct Characters {
    /// One that it may have.
    any: String,
    /// One that shows.
    visible: String,
    /// One of a blank text.
    space: String,
}

impl Characters {
    fn of(name: &str, without: &str) -> Characters {
        let has_lines = TEXTS_OF_LINES.contains(&name);
        let (space, invisible) = (class(&WHITE_SPACE), class(&INVISIBLE));
        let (refused, space, line_end) = match has_lines {
            true => (
                "\\u0000-\\u0008\\u000b-\\u001f",
                format!("{space}\\u2028\\u2029\\t\\n"),
                "|\\r\\n",
            ),
            false => ("\\u0000-\\u001f\\u2028\\u2029", space, ""),
        };
        let refused = format!("{refused}\\u007f-\\u009f\\u202a-\\u202e\\u2066-\\u2069{without}");
        Characters {
            any: format!("(?:[^{refused}]{line_end})"),
            visible: format!("[^{refused}{space}{invisible}]"),
            space: format!("(?:[{space}]{line_end})"),
        }
    }

    fn something(&self) -> String {
        let Characters { any, visible, .. } = self;
        format!("{any}*{visible}{any}*")
    }

    fn something_or_blank(&self) -> String {
        format!("(?:{}*|{})", self.space, self.something())
    }
}

fn class(ranges: &[(char, char)]) -> String {
    let one = |c: char| match u32::from(c) {
        small @ ..=0xffff => format!("\\u{small:04x}"),
        _ => c.to_string(),
    };
    let ranges = ranges.iter().map(|(first, last)| match first == last {
        true => one(*first),
        false => format!("{}-{}", one(*first), one(*last)),
    });
    ranges.collect()
}

#[cfg(test)]
mod specs {
    use super::*;

    fn tidied(name: &str, text: &str) -> Result<String, BadText> {
        let mut text = text.to_owned();
        tidy(name, &mut text).map(|()| text)
    }

    #[test]
    fn a_text_that_no_index_could_hold_is_refused_with_its_field() {
        let lose = |bytes: usize| {
            crate::command_from_json::<crate::opportunity::Command>(
                json!({"type": "lose", "reason": "x".repeat(bytes)}),
            )
        };
        assert!(lose(TEXT_BYTES_MAX).is_ok());
        let message = "the text has 801 bytes, 800 at most".to_owned();
        assert_eq!(
            lose(TEXT_BYTES_MAX + 1).unwrap_err(),
            CommandError {
                at: "reason".into(),
                message
            }
        );
        // Normalised it may be longer than it came: U+0958 becomes two characters.
        let grows = "\u{958}".repeat(TEXT_BYTES_MAX / 3);
        assert_eq!(tidied("reason", &grows), Err(BadText::TooLong(1_596, TEXT_BYTES_MAX)));
    }

    #[test]
    fn the_path_of_a_bad_text_is_named() {
        let mut json = json!({"type": "record", "lines": [{"sku": "A"}, {"sku": "\u{1b}[2J"}]});
        let error = tidy_texts(&mut json).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lines[1].sku: a text must not contain control characters, and this one contains U+001B"
        );
        let mut json = json!({"a\u{202e}b": 1});
        assert_eq!(tidy_texts(&mut json).unwrap_err().at, ".");
    }

    #[test]
    fn what_screens_obey_is_refused() {
        for c in [
            '\u{1}', '\u{7}', '\u{8}', '\u{1b}', '\u{7f}', '\u{9b}', '\u{9d}', '\u{c}',
        ] {
            for name in ["name", "body"] {
                assert_eq!(tidied(name, &format!("王{c}小明")), Err(BadText::Control(c)), "{c:?}");
            }
        }
        for c in ['\u{202a}', '\u{202e}', '\u{2066}', '\u{2068}', '\u{2069}'] {
            for name in ["owner", "text"] {
                assert_eq!(tidied(name, &format!("王{c}小明")), Err(BadText::Direction(c)), "{c:?}");
            }
        }
        assert_eq!(tidied("name", "a\0b"), Err(BadText::Nul));
    }

    #[test]
    fn only_what_people_write_at_length_has_lines() {
        for text in ["a\nb", "a\tb", "a\r\nb", "a\u{2028}b", "a\u{2029}b"] {
            assert_eq!(tidied("body", text), Ok(text.to_owned()));
            for name in ["name", "owner", "key", "source", "reason", "receipt"] {
                assert_eq!(tidied(name, text), Err(BadText::Lines), "{text:?}");
            }
        }
        // A carriage return alone lets the end of a line overwrite its beginning.
        assert_eq!(tidied("body", "a\rb"), Err(BadText::Control('\r')));
        assert_eq!(tidied("name", "a\rb"), Err(BadText::Lines));
    }

    #[test]
    fn a_text_needs_something_to_see() {
        let invisible = [
            "\u{200b}",
            "\u{200b}\u{200d}",
            "\u{feff}",
            "\u{3164}",
            "\u{115f}",
            "\u{ffa0}",
            "\u{2800}",
            "\u{ad}",
            "\u{2060}",
            "\u{200e}",
            "\u{fe0f}",
            "\u{e0100}",
            "\u{34f}",
            " \u{200b} ",
            "\u{3000}\u{3164}",
            "\u{180e}",
            "\u{2062}",
        ];
        for text in invisible {
            assert!(is_blank(text), "{text:?}");
            assert_eq!(tidied("name", text), Err(BadText::Invisible), "{text:?}");
        }
        // The streams say what is missing.
        for text in ["", " ", "\u{3000}"] {
            assert!(is_blank(text));
            assert_eq!(tidied("name", text), Ok(text.to_owned()));
        }
    }

    #[test]
    fn names_of_all_people_are_taken() {
        let names = [
            "王小明",
            "𠮷野家",
            "𠄀𪚥𫝀𬺰",
            "葛\u{e0100}飾区",
            "辻\u{e0101}",
            "\u{e000}",
            "Björn O’Neill",
            "محمد",
            "עברית\u{200f}",
            "नमस्ते क\u{94d}\u{200d}ष",
            "می\u{200c}خواهم",
            "👩‍👩‍👧‍👦",
            "❤️",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "🇹🇼",
            "김철수",
            "Ｗｉｄｅ",
        ];
        for name in names {
            assert_eq!(tidied("name", name), Ok(name.to_owned()), "{name:?}");
            assert!(!is_blank(name), "{name:?}");
        }
    }

    /// Everything that the description of the API lets through is taken, unless it has too many bytes.
    #[test]
    fn what_the_schema_of_a_text_says_is_taken() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for name in ["reason", "site", "subject", "body"] {
            let texts = proptest::string::string_regex(&Characters::of(name, "").something_or_blank()).unwrap();
            runner.run(&texts, |text| Ok(tidied(name, &text).map(drop)?)).unwrap();
        }
        let keys = proptest::string::string_regex(&key_pattern(":")).unwrap();
        let take = |key: String| match tidy_key(&key) {
            Ok(key) if !key.contains(':') => Ok(()),
            taken => Err(proptest::test_runner::TestCaseError::fail(format!(
                "{key:?}: {taken:?}"
            ))),
        };
        runner.run(&keys, take).unwrap();
        assert_eq!(text_schema("reason").0, "Text");
        assert_eq!(text_schema("body").1["maxLength"], LONG_TEXT_BYTES_MAX);
    }

    #[test]
    fn a_text_has_one_form_whatever_the_keyboard_sent() {
        assert_eq!(tidied("name", "Bjo\u{308}rn"), Ok("Björn".to_owned()));
        assert_eq!(tidy_key("cafe\u{301}-12"), Ok("café-12".to_owned()));
        assert_eq!(tidy_key(" "), Err(BadText::Invisible));
        assert_eq!(tidied("name", "\u{1100}\u{1161}"), Ok("가".to_owned()));
        // NFC keeps what only looks alike.
        for text in ["ｶ", "①", "ﬁ", "Å"] {
            assert_eq!(tidied("name", text), Ok(text.to_owned()));
        }
    }
}
