//! What JSON merge patches have in common: null clears, absent keeps.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A field that is present: null clears it, which differs from its being absent.
#[allow(clippy::option_option, reason = "outer: absent; inner: null, which clears the field")]
pub(crate) fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Sets and removes entries of a map.
pub(crate) fn merge(map: &mut BTreeMap<String, String>, patch: Option<BTreeMap<String, Option<String>>>) {
    for (key, value) in patch.into_iter().flatten() {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}
