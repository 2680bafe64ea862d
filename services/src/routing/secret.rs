//! The secret that the processes of one log share, so that nobody else gives orders to their shards.

use std::fmt;

/// Never printed; compared in a time that does not depend on where a guess goes wrong.
#[derive(Clone)]
pub struct PeerSecret(String);

/// The header of a request that carries it.
pub const SECRET_HEADER: &str = "x-crm-peer-secret";
/// Characters of a secret at least.
pub const SECRET_CHARACTERS_MIN: usize = 16;
/// Characters of a secret at most.
pub const SECRET_CHARACTERS_MAX: usize = 255;

impl PeerSecret {
    /// `None` when it is too short or too long, or has other characters than visible ASCII.
    pub fn new(text: &str) -> Option<PeerSecret> {
        let fits = (SECRET_CHARACTERS_MIN..=SECRET_CHARACTERS_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| PeerSecret(text.to_owned()))
    }

    /// Is this the secret?
    pub fn is(&self, guess: &[u8]) -> bool {
        let secret = self.0.as_bytes();
        let differences = secret.iter().zip(guess).fold(0, |known, (a, b)| known | (a ^ b));
        secret.len() == guess.len() && differences == 0
    }

    /// For the header of a request to another process, and for the store that keeps it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PeerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod specs {
    use super::*;

    #[test]
    fn a_secret_has_so_many_visible_characters_and_is_never_printed() {
        let of = |characters: usize| PeerSecret::new(&"s".repeat(characters));
        for (characters, fits) in [
            (SECRET_CHARACTERS_MIN - 1, false),
            (SECRET_CHARACTERS_MIN, true),
            (SECRET_CHARACTERS_MAX, true),
            (SECRET_CHARACTERS_MAX + 1, false),
        ] {
            assert_eq!(of(characters).is_some(), fits, "{characters}");
        }
        assert!(PeerSecret::new("a secret with spaces").is_none());
        let secret = of(20).unwrap();
        assert_eq!(format!("{secret:?}"), "<secret>");
        assert!(secret.is(secret.expose().as_bytes()));
        assert!(!secret.is(b"") && !secret.is(&[b's'; 19]) && !secret.is(b"ssssssssssssssssssst"));
    }
}
