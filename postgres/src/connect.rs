//! From a URL to the driver's options, with `libpq`'s rules where the driver's own are laxer.
//!
//! The driver ignores unknown parameters, treats `allow` as `disable`, verifies nothing with `require`
//! whatever `sslrootcert` says, and falls back to `prefer` if `PGSSLMODE` is misspelt.

use std::{env, fs, os::unix::fs::MetadataExt as _, str::FromStr};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

/// Names of the TLS parameters, each with its other spellings.
const MODE: &[&str] = &["sslmode", "ssl-mode"];
const ROOT: &[&str] = &["sslrootcert", "ssl-root-cert", "ssl-ca"];
const CERTIFICATE: &[&str] = &["sslcert", "ssl-cert"];
const KEY: &[&str] = &["sslkey", "ssl-key"];
/// `sslrootcert=system`: the CAs that this machine trusts.
const SYSTEM: &str = "system";

/// Options for a URL's database. `PG*` variables fill in what it does not say.
///
/// # Errors
/// [`sqlx::Error::Configuration`] if it is not such a URL, or asks for security that is not available; never repeats the URL.
pub fn connect_options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let parsed = Url::parse(url).map_err(|error| refused(format!("not a URL: {error}")))?;
    let given: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
    given.iter().try_for_each(|(name, value)| check_parameter(name, value))?;
    let value = |names: &[&str], variable: &str| {
        let last = given.iter().rev().find(|(name, _)| names.contains(&name.as_str()));
        last.map(|(_, value)| value.clone()).or_else(|| env::var(variable).ok())
    };
    let mode = value(MODE, "PGSSLMODE").map(|mode| parse_mode(&mode)).transpose()?;
    let root = value(ROOT, "PGSSLROOTCERT").filter(|root| !root.is_empty());
    if let Some(key) = value(KEY, "PGSSLKEY") {
        check_key(&key)?;
    }
    let options = PgConnectOptions::from_str(url)?;
    let options = options.ssl_mode(effective_mode(mode, root.as_deref())?);
    // The driver does not know this word, and trusts the machine's CAs in any case.
    Ok(if root.as_deref() == Some(SYSTEM) { options.ssl_root_cert_from_pem(Vec::new()) } else { options })
}

fn refused(reason: impl Into<String>) -> sqlx::Error {
    sqlx::Error::Configuration(reason.into().into())
}

/// Refuses security parameters that are not understood: a misspelt demand must not end up as none.
fn check_parameter(name: &str, value: &str) -> Result<(), sqlx::Error> {
    let known = [MODE, ROOT, CERTIFICATE, KEY].iter().any(|names| names.contains(&name));
    let lower = name.to_ascii_lowercase();
    let demands = match lower.as_str() {
        "require_auth" | "requiressl" | "requirepeer" => true,
        "channel_binding" | "gssencmode" => value == "require",
        other => other.starts_with("ssl"),
    };
    if known || !demands {
        return Ok(());
    }
    let hint = "use sslmode, sslrootcert, sslcert and sslkey; sslmode=verify-full is the strictest";
    Err(refused(format!("the parameter {name} is not supported here: {hint}")))
}

fn parse_mode(text: &str) -> Result<PgSslMode, sqlx::Error> {
    let known = "disable, allow, prefer, require, verify-ca or verify-full";
    PgSslMode::from_str(text).map_err(|_| refused(format!("sslmode must be {known}")))
}

fn effective_mode(mode: Option<PgSslMode>, root: Option<&str>) -> Result<PgSslMode, sqlx::Error> {
    use PgSslMode::{Allow, Prefer, Require, VerifyCa, VerifyFull};
    match (mode, root) {
        (None | Some(VerifyFull), Some(SYSTEM)) => Ok(VerifyFull),
        // Anyone can get a certificate from one of the machine's CAs.
        (Some(_), Some(SYSTEM)) => Err(refused("sslrootcert=system needs sslmode=verify-full")),
        (Some(VerifyCa), None) => Err(refused("sslmode=verify-ca needs sslrootcert; or use verify-full")),
        (Some(Require), Some(_)) => Ok(VerifyCa),
        (Some(Allow) | None, _) => Ok(Prefer),
        (Some(mode), _) => Ok(mode),
    }
}

/// A key that others may read is not a secret.
fn check_key(key: &str) -> Result<(), sqlx::Error> {
    if key.trim_start().starts_with("-----BEGIN") {
        return Ok(());
    }
    let about = fs::metadata(key).map_err(|error| refused(format!("sslkey {key}: {error}")))?;
    // Root's may be group-readable, as PostgreSQL's own keys sometimes are.
    let forbidden = if about.uid() == 0 { 0o037 } else { 0o077 };
    if about.mode() & forbidden != 0 {
        return Err(refused(format!("sslkey {key}: others may read it; chmod 600 it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(parameters: &str) -> Result<String, String> {
        let options = connect_options(&format!("postgresql://u:secret@db.example/d{parameters}"));
        options.map(|options| format!("{:?}", options.get_ssl_mode())).map_err(|error| error.to_string())
    }

    #[test]
    fn modes_mean_what_libpq_means_by_them() {
        for (parameters, expected) in [
            ("", "Prefer"),
            ("?sslmode=disable", "Disable"),
            ("?sslmode=allow", "Prefer"),
            ("?sslmode=require", "Require"),
            ("?sslmode=require&sslrootcert=/ca.pem", "VerifyCa"),
            ("?sslmode=verify-ca&sslrootcert=/ca.pem", "VerifyCa"),
            ("?sslmode=verify-full", "VerifyFull"),
            ("?sslrootcert=system", "VerifyFull"),
            ("?sslmode=verify-full&sslrootcert=system", "VerifyFull"),
            ("?sslmode=require&channel_binding=prefer&gssencmode=disable", "Require"),
        ] {
            assert_eq!(mode(parameters).as_deref(), Ok(expected), "{parameters}");
        }
    }

    #[test]
    fn a_demand_that_is_not_understood_is_refused_and_the_password_is_not_repeated() {
        for parameters in [
            "?sslmode=verify_full",
            "?sslmode=",
            "?ssl_mode=verify-full",
            "?SSLMODE=verify-full",
            "?sslmode=verify-full&sslcrl=/crl.pem",
            "?sslmode=require&channel_binding=require",
            "?sslmode=require&sslrootcert=system",
            "?sslmode=verify-ca",
            "?sslmode=require&sslkey=/nonexistent",
        ] {
            let error = mode(parameters).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_client_key_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let url = format!("?sslmode=require&sslkey={}", file.path().display());
        for (bits, fits) in [(0o600, true), (0o400, true), (0o644, false), (0o620, false)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(bits)).unwrap();
            assert_eq!(mode(&url).is_ok(), fits, "{bits:o}");
        }
    }
}
