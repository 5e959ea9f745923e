//! Canonical JSON (RFC 8785) and the hash chain over it.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::StoreError;

/// Hash of an operation: SHA-256.
pub type Hash = [u8; 32];

/// Hash before the first operation of an entity.
pub(crate) const GENESIS: Hash = [0; 32];

/// Canonical bytes of a value, guaranteed to read back as that value.
///
/// Numbers in canonical JSON are doubles: an integer beyond 2^53, or a type whose null means something other than absent,
/// would come back changed, and replay would differ. Refused here rather than found there.
pub(crate) fn to_bytes<T>(field: &'static str, value: &T) -> Result<Vec<u8>, StoreError>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    read_back::<T, T>(field, value, |read| read == value)
}

/// The same for a list.
pub(crate) fn slice_to_bytes<T>(field: &'static str, values: &[T]) -> Result<Vec<u8>, StoreError>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    read_back::<&[T], Vec<T>>(field, &values, |read| read == values)
}

fn read_back<T: Serialize, R: DeserializeOwned>(
    field: &'static str,
    value: &T,
    is_same: impl FnOnce(&R) -> bool,
) -> Result<Vec<u8>, StoreError> {
    let bytes = serde_json_canonicalizer::to_vec(value).map_err(|_| StoreError::Unfaithful { field })?;
    refuse_nul(field, &bytes)?;
    match serde_json::from_slice::<R>(&bytes) {
        Ok(read) if is_same(&read) => Ok(bytes),
        _ => Err(StoreError::Unfaithful { field }),
    }
}

/// Refuses NUL in any string or key of canonical bytes, and names its path.
fn refuse_nul(field: &str, bytes: &[u8]) -> Result<(), StoreError> {
    // The escape may also be a backslash followed by harmless text; only if it occurs is a walk needed.
    if !bytes.windows(6).any(|window| window == b"\\u0000") {
        return Ok(());
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|e| StoreError::corrupt(field, &e))?;
    match find_nul(field, &value) {
        Some(field) => Err(StoreError::Nul { field }),
        None => Ok(()),
    }
}

/// Path of the first string or key with a NUL.
pub(crate) fn find_nul(path: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| path.to_owned()),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| find_nul(&format!("{path}[{i}]"), item)),
        Value::Object(map) => map.iter().find_map(|(key, item)| {
            let path = format!("{path}.{}", key.escape_debug());
            if key.contains('\0') { Some(path) } else { find_nul(&path, item) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Refuses NUL in a plain text.
pub(crate) fn text(field: &str, text: &str) -> Result<(), StoreError> {
    if text.contains('\0') { Err(StoreError::Nul { field: field.to_owned() }) } else { Ok(()) }
}

/// Replaces NUL in every string: for data from a runner, which must never block its own log.
pub(crate) fn replace_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Value::Array(items) => items.iter_mut().for_each(replace_nul),
        Value::Object(map) => {
            if map.keys().any(|key| key.contains('\0')) {
                *map = std::mem::take(map).into_iter().map(|(k, v)| (k.replace('\0', "\u{fffd}"), v)).collect();
            }
            map.values_mut().for_each(replace_nul);
        }
        _ => {}
    }
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // writing to a String cannot fail
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// What an operation's hash covers besides the previous hash: everything except what the database adds (xid, position).
pub(crate) struct Hashed<'a> {
    pub(crate) id: &'a str,
    pub(crate) entity_kind: &'a str,
    pub(crate) entity_id: &'a str,
    pub(crate) version: i64,
    pub(crate) project_id: &'a str,
    pub(crate) command: &'a str,
    pub(crate) schema_version: i32,
    pub(crate) input: &'a [u8],
    pub(crate) events: &'a [u8],
    pub(crate) context: &'a [u8],
    pub(crate) principal: &'a str,
    pub(crate) correlation_id: &'a str,
    pub(crate) causation_id: Option<&'a str>,
    pub(crate) trace_parent: Option<&'a str>,
    /// Microseconds since 1970.
    pub(crate) occurred_at: i64,
}

impl Hashed<'_> {
    /// The chained hash: SHA-256 of [`before_previous`], the previous hash, [`Hashed::after_previous`].
    pub(crate) fn hash(&self, previous_hash: &[u8]) -> Hash {
        let mut hasher = Sha256::new();
        for bytes in [&before_previous(), previous_hash, &self.after_previous()] {
            hasher.update(bytes);
        }
        hasher.finalize().into()
    }

    /// What is hashed after the previous hash. Every part is preceded by its length, so that no two operations share an
    /// encoding.
    fn after_previous(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512 + self.input.len() + self.events.len() + self.context.len());
        for text in [self.id, self.entity_kind, self.entity_id] {
            part(&mut bytes, text.as_bytes());
        }
        part(&mut bytes, &self.version.to_be_bytes());
        part(&mut bytes, self.project_id.as_bytes());
        part(&mut bytes, self.command.as_bytes());
        part(&mut bytes, &self.schema_version.to_be_bytes());
        for stored in [self.input, self.events, self.context] {
            part(&mut bytes, stored);
        }
        part(&mut bytes, self.principal.as_bytes());
        part(&mut bytes, self.correlation_id.as_bytes());
        for optional in [self.causation_id, self.trace_parent] {
            part(&mut bytes, &[u8::from(optional.is_some())]);
            part(&mut bytes, optional.unwrap_or_default().as_bytes());
        }
        part(&mut bytes, &self.occurred_at.to_be_bytes());
        bytes
    }
}

/// What is hashed before the previous hash, its length included.
fn before_previous() -> Vec<u8> {
    let mut bytes = Vec::new();
    part(&mut bytes, b"ambient.operation.1");
    bytes.extend_from_slice(&(GENESIS.len() as u64).to_be_bytes());
    bytes
}

fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_that_would_not_read_back_is_refused() {
        assert!(to_bytes("input", &((1_i64 << 53) - 1)).is_ok());
        assert!(matches!(to_bytes("input", &((1_i64 << 53) + 1)), Err(StoreError::Unfaithful { field: "input" })));
        assert!(matches!(to_bytes("input", &Some(None::<i32>)), Err(StoreError::Unfaithful { .. })));
    }

    #[test]
    fn nul_is_refused_with_the_path_of_its_field() {
        let nul = json!({"spec": {"repos": [{"name": "a\0b"}]}});
        let error = to_bytes("input", &nul).unwrap_err();
        assert_eq!(error.to_string(), "input.spec.repos[0].name: must not contain NUL");
        assert!(to_bytes("input", &json!({"harmless": "\\u0000"})).is_ok());
    }

    #[test]
    fn maps_are_ordered_in_canonical_bytes() {
        assert_eq!(to_bytes("input", &json!({"b": 1, "a": "é"})).unwrap(), "{\"a\":\"é\",\"b\":1}".as_bytes());
    }
}
