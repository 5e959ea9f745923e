//! The database's URL: validated when it is read, redacted wherever it is shown.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use url::Url;

/// A `postgres://` URL. `Debug`, `Display` and `Serialize` leave the password out; [`DatabaseUrl::expose`] does not.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Url);

impl DatabaseUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// A message that does not repeat the URL, because it may contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err("must begin with postgresql://".to_owned());
        }
        Ok(Self(url))
    }

    /// The URL with its password, for the database driver only.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.0.clone();
        if url.password().is_some() {
            // Fails only for a URL without a host, which cannot have a password.
            let _ = url.set_password(Some("redacted"));
        }
        if url.query().is_some() {
            // The driver also accepts the password as a parameter.
            let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            let shown = pairs.iter().map(|(k, v)| (k, if k == "password" { "redacted" } else { v }));
            url.query_pairs_mut().clear().extend_pairs(shown);
        }
        f.write_str(url.as_str())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
