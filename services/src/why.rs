//! Why something did not happen, in two voices: a sentence for whoever asked, and the cause for whoever runs the
//! program. A cause has the words of a store or of the network, which may name files, addresses and statements, so it
//! goes to the log and to no caller.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Serialize, Serializer};

use crate::log::{AppendError, LogError};
use crate::states::StateError;
use crate::views::ViewError;

/// Processes tell each other both; everybody else is told the sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    told: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
}

impl Why {
    /// A sentence, and what only the log says.
    pub fn hiding(told: impl Into<String>, cause: impl fmt::Display) -> Why {
        Why {
            told: told.into(),
            cause: Some(cause.to_string()),
        }
    }

    /// What only the log says, if there is more to it than the sentence.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// With another sentence around it.
    pub fn within(self, told: impl FnOnce(&str) -> String) -> Why {
        Why {
            told: told(&self.told),
            cause: self.cause,
        }
    }

    /// For the log: both.
    pub fn whole(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {cause}", self.told),
            None => self.told.clone(),
        }
    }
}

/// How a status shows it.
///
/// # Errors
/// Those of the serializer.
pub fn told<S: Serializer>(why: &Option<Why>, serializer: S) -> Result<S::Ok, S::Error> {
    why.as_deref().serialize(serializer)
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told)
    }
}

impl Deref for Why {
    type Target = str;

    fn deref(&self) -> &str {
        &self.told
    }
}

impl From<String> for Why {
    fn from(told: String) -> Why {
        Why { told, cause: None }
    }
}

impl From<&str> for Why {
    fn from(told: &str) -> Why {
        told.to_owned().into()
    }
}

impl From<&LogError> for Why {
    fn from(error: &LogError) -> Why {
        match error {
            LogError::NotCreated(address) => {
                Why::hiding("the log does not exist yet; create it with `crm init`", address)
            }
            LogError::Damaged { shard, offset, why } => {
                Why::hiding(format!("shard {shard} is damaged at offset {offset}"), why)
            }
            LogError::Unavailable(why) => {
                Why::hiding("the log cannot be reached, or its files are not as they were", why)
            }
            LogError::WrongSettings(why) => Why::hiding("the log has other settings than it must have", why),
            LogError::OutOfRange { .. } => error.to_string().into(),
        }
    }
}

impl From<&AppendError> for Why {
    fn from(error: &AppendError) -> Why {
        match error {
            AppendError::Fenced => error.to_string().into(),
            AppendError::Refused(why) => Why::hiding("the log refused the records", why),
            AppendError::Unknown(why) => Why::hiding("the outcome of the append is unknown", why),
        }
    }
}

impl From<&StateError> for Why {
    fn from(error: &StateError) -> Why {
        match error {
            StateError::Unavailable(why) => Why::hiding("the state store cannot be reached", why),
            other => other.to_string().into(),
        }
    }
}

impl From<&ViewError> for Why {
    fn from(error: &ViewError) -> Why {
        match error {
            ViewError::Refused(why) => Why::hiding("the read store refused the question", why),
            ViewError::Unavailable(why) => Why::hiding("the read store cannot be reached", why),
            ViewError::Moved | ViewError::TooLarge(_) | ViewError::OtherLog { .. } => error.to_string().into(),
        }
    }
}
