//! Session tokens: an HMAC over session, run, number, expiry and direction, so that any server can make and check them.
//!
//! A token says who it was made for, not that it is still valid: whoever accepts one also checks that the row has that run,
//! is not deleted, is Creating, Running or Stopping, and has not revoked the run.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

const PREFIX: &str = "ambs";
/// The MAC's purpose, so that other uses of the key can never produce a token.
const PURPOSE: &[u8] = b"ambient session token 1\n";
/// Longest text that is examined, bytes.
const MAX_TEXT: usize = 512;

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A server to the runner: one token per run, without expiry.
    ServerToRunner,
    /// The runner (and its agent) to a server: numbered, with expiry.
    RunnerToServer,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::ServerToRunner => "s2r",
            Self::RunnerToServer => "r2s",
        }
    }
}

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// Session.
    pub session_id: String,
    /// Run.
    pub run: i64,
    /// Number within the run; identifies the token without revealing it.
    pub n: i64,
    /// Unix seconds; none = as long as the run.
    pub expires_at: Option<i64>,
}

/// Why a token is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a session token, or not one of ours.
    #[error("the token is not valid")]
    Invalid,
    /// It used to be valid.
    #[error("the token has expired")]
    Expired,
    /// It is for the other direction.
    #[error("the token is not for this use")]
    WrongDirection,
}

/// Makes and checks session tokens.
#[derive(Clone)]
pub struct Tokens {
    keyed: Hmac<Sha256>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}

impl Tokens {
    /// With the server's token key, at least 32 random bytes.
    #[must_use]
    pub fn new(hmac_key: impl AsRef<[u8]>) -> Self {
        // Keys of any length are accepted; those longer than a block are hashed.
        let keyed = Hmac::new_from_slice(hmac_key.as_ref()).unwrap_or_else(|_| Hmac::new(&[0; 64].into()));
        Self { keyed }
    }

    /// The token with which servers talk to a run's runner: always the same, so any server can reconnect.
    #[must_use]
    pub fn server_to_runner(&self, session_id: &str, run: i64) -> String {
        self.mint(Direction::ServerToRunner, session_id, run, 1, 0)
    }

    /// A token with which the runner talks to servers until `expires_at` (Unix seconds).
    #[must_use]
    pub fn runner_to_server(&self, session_id: &str, run: i64, n: i64, expires_at: i64) -> String {
        self.mint(Direction::RunnerToServer, session_id, run, n, expires_at)
    }

    /// Makes a token; the same one for the same arguments. `expires_at` in Unix seconds, 0 = never.
    #[must_use]
    pub fn mint(&self, direction: Direction, session_id: &str, run: i64, n: i64, expires_at: i64) -> String {
        let claims = format!("{PREFIX}_{}.{session_id}.{run}.{n}.{expires_at}", direction.as_str());
        let mac = self.mac(&claims);
        format!("{claims}.{mac}")
    }

    /// Checks a token that a runner presents to a server; `now` in Unix seconds.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn verify(&self, text: &str, now: i64) -> Result<TokenClaims, TokenError> {
        self.verify_direction(Direction::RunnerToServer, text, now)
    }

    /// Checks a token for a direction; `now` in Unix seconds.
    ///
    /// # Errors
    /// When it is not valid. Only the holder of a genuine token learns that it is expired or misdirected.
    pub fn verify_direction(&self, direction: Direction, text: &str, now: i64) -> Result<TokenClaims, TokenError> {
        if text.len() > MAX_TEXT {
            return Err(TokenError::Invalid);
        }
        let (claims, mac) = text.rsplit_once('.').ok_or(TokenError::Invalid)?;
        if !bool::from(self.mac(claims).as_bytes().ct_eq(mac.as_bytes())) {
            return Err(TokenError::Invalid);
        }
        let parts: Vec<&str> = claims.split('.').collect();
        let [head, session_id, run, n, expires_at] = parts[..] else { return Err(TokenError::Invalid) };
        let shown = head.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('_')).ok_or(TokenError::Invalid)?;
        if shown != direction.as_str() {
            return Err(TokenError::WrongDirection);
        }
        let number = |text: &str| text.parse::<i64>().map_err(|_| TokenError::Invalid);
        let (run, n, expires_at) = (number(run)?, number(n)?, number(expires_at)?);
        if expires_at != 0 && expires_at <= now {
            return Err(TokenError::Expired);
        }
        Ok(TokenClaims {
            session_id: session_id.to_owned(),
            run,
            n,
            expires_at: (expires_at != 0).then_some(expires_at),
        })
    }

    fn mac(&self, claims: &str) -> String {
        let mut mac = self.keyed.clone();
        mac.update(PURPOSE);
        mac.update(claims.as_bytes());
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "2ccvTLAPAjMhcQcpMQ3cRFI0aaa";

    fn tokens() -> Tokens {
        Tokens::new([7; 32])
    }

    #[test]
    fn a_minted_token_says_what_it_was_made_for_and_is_always_the_same() {
        let token = tokens().runner_to_server(SESSION, 3, 17, 2_000);
        assert_eq!(token, tokens().runner_to_server(SESSION, 3, 17, 2_000));
        let claims = TokenClaims { session_id: SESSION.to_owned(), run: 3, n: 17, expires_at: Some(2_000) };
        assert_eq!(tokens().verify(&token, 1_999), Ok(claims));
        let to_runner = tokens().server_to_runner(SESSION, 3);
        let claims = tokens().verify_direction(Direction::ServerToRunner, &to_runner, i64::MAX).unwrap();
        assert_eq!((claims.n, claims.expires_at), (1, None));
    }

    #[test]
    fn a_token_changed_in_any_character_is_refused() {
        let token = tokens().runner_to_server(SESSION, 3, 17, 2_000);
        for at in 0..token.len() {
            for other in ["0", "z", "."] {
                let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
                if changed != token {
                    assert_eq!(tokens().verify(&changed, 0), Err(TokenError::Invalid), "{changed}");
                }
            }
        }
        for text in ["", ".", "ambs_r2s", &token[1..], &token[..token.len() - 1], &format!("{token}.0")] {
            assert_eq!(tokens().verify(text, 0), Err(TokenError::Invalid), "{text}");
        }
        assert_eq!(Tokens::new([8; 32]).verify(&token, 0), Err(TokenError::Invalid));
    }

    #[test]
    fn an_expired_token_and_one_of_the_other_direction_are_refused() {
        let token = tokens().runner_to_server(SESSION, 3, 17, 2_000);
        assert_eq!(tokens().verify(&token, 2_000), Err(TokenError::Expired));
        assert_eq!(tokens().verify(&tokens().server_to_runner(SESSION, 3), 0), Err(TokenError::WrongDirection));
        let shown = tokens().verify_direction(Direction::ServerToRunner, &token, 0);
        assert_eq!(shown, Err(TokenError::WrongDirection));
    }

    #[test]
    fn a_session_id_with_dots_cannot_be_read_as_another_session() {
        let token = tokens().runner_to_server("a.1", 3, 17, 2_000);
        assert_eq!(tokens().verify(&token, 0), Err(TokenError::Invalid));
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", tokens()), "Tokens(..)");
    }
}
