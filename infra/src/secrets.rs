//! Passwords: where they come from, and how they stay out of every message.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The URL of a log, a store or a server, as it was given. It may hold a password, and never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    pub fn new(text: impl Into<String>) -> Url {
        Url(text.into())
    }

    /// With what is secret. Not for messages.
    pub fn secret(&self) -> &str {
        &self.0
    }

    pub fn strip_prefix(&self, scheme: &str) -> Option<&str> {
        self.0.strip_prefix(scheme)
    }

    /// The URL with the password from a file, if one is named and the URL has none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn with_password_from(self, file: Option<&Path>) -> anyhow::Result<Url> {
        match file {
            Some(file) if crate::postgres::is_url(&self.0) => {
                let password = escaped(&read_secret(file)?);
                let mark = if self.0.contains('?') { '&' } else { '?' };
                Ok(Url(format!("{}{mark}password={password}", self.0)))
            }
            Some(_) | None => Ok(self),
        }
    }
}

/// Where it is, without user, password and parameters.
impl fmt::Display for Url {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return match self.0.split_once(':') {
                Some((scheme @ ("sqlite" | "memory"), _)) => {
                    to.write_str(if scheme == "memory" { scheme } else { &self.0 })
                }
                _ => to.write_str("an unknown place"),
            };
        };
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        let place = place.split(['?', '#']).next().unwrap_or_default();
        match scheme {
            "http" | "https" | "kafka" | "postgres" | "postgresql" => write!(to, "{scheme}://{place}"),
            _ => to.write_str("an unknown place"),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

/// A secret from a file, without the end of its line.
///
/// # Errors
/// When the file cannot be read, or is empty.
pub fn read_secret(file: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read the secret in {}", file.display()))?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        anyhow::bail!("the file {} is empty, and should hold a secret", file.display());
    }
    Ok(secret.to_owned())
}

/// So that it may stand in a URL.
fn escaped(text: &str) -> String {
    let bytes = text.bytes();
    bytes
        .map(|byte| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// The password that PostgreSQL's own programs would take: `PGPASSWORD`, or the line of `PGPASSFILE` (`~/.pgpass`) for this server.
pub(crate) fn postgres_password(host: &str, port: u16, database: &str, user: &str) -> Option<String> {
    if let Ok(password) = std::env::var("PGPASSWORD")
        && !password.is_empty()
    {
        return Some(password);
    }
    let file = match std::env::var_os("PGPASSFILE") {
        Some(file) => PathBuf::from(file),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"),
    };
    let lines = std::fs::read_to_string(file).ok()?;
    password_in(&lines, [host, &port.to_string(), database, user])
}

/// `host:port:database:user:password`, where `*` is anything and `\` stands before a colon that belongs to a field.
fn password_in(lines: &str, wanted: [&str; 4]) -> Option<String> {
    let fitting = lines.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields_of(line).into_iter();
        let fits = wanted
            .iter()
            .all(|wanted| fields.next().is_some_and(|field| field == "*" || field == *wanted));
        fits.then(|| fields.next()).flatten()
    });
    fitting.filter(|password| !password.is_empty())
}

fn fields_of(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let field = fields.last_mut().expect("there is a first one");
        match letter {
            '\\' => field.extend(letters.next()),
            ':' => fields.push(String::new()),
            other => field.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_line_of_the_password_file_is_for_a_server_a_database_and_a_user() {
        let lines = "# comment:5432:*:*:no\ndb:5432:crm:crm:first\n*:*:crm:crm:pa\\:ss\\\\word\ndb:5433:*:*:\n";
        let of = |host, port, database| password_in(lines, [host, port, database, "crm"]);
        assert_eq!(of("db", "5432", "crm"), Some("first".into()));
        assert_eq!(of("other", "1", "crm"), Some("pa:ss\\word".into()));
        assert_eq!(of("db", "5433", "sales"), None);
        assert_eq!(of("db", "5432", "sales"), None);
    }

    #[test]
    fn a_password_comes_from_a_file_and_is_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cr&t pa?s\n").unwrap();
        let url = Url::new("postgres://crm@db:5433/crm")
            .with_password_from(Some(file.path()))
            .unwrap();
        assert_eq!(url.secret(), "postgres://crm@db:5433/crm?password=s3cr%26t%20pa%3Fs");
        assert_eq!(url.to_string(), "postgres://db:5433/crm");
        assert_eq!(format!("{url:?}"), "postgres://db:5433/crm");
        let config = crate::postgres::configure(url.secret()).unwrap();
        assert_eq!(config.get_password(), Some("s3cr&t pa?s".as_bytes()));
    }
}
