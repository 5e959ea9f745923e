//! Envelopes.

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use utoipa::ToSchema;

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// `ProjectList`, `SessionList`, …
    pub kind: String,
    /// Page, from 1.
    pub page: i64,
    /// Number of items returned.
    pub size: i64,
    /// Number of items in total.
    pub total: i64,
    /// The items.
    pub items: Vec<T>,
    /// Cursor of the next page, if the list has cursors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Of a live log: the oldest event that is kept, if retention has removed earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<i64>,
}

/// Distinguishes an absent field (`None`) from `null` (`Some(None)`).
///
/// # Errors
/// If the value has another type.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

/// An object, if there is one. serde would also read a struct from an array of its fields' values.
///
/// # Errors
/// If the value has another type.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}

/// Like [`object`]; distinguishes an absent field (`None`) from `null` (`Some(None)`).
///
/// # Errors
/// If the value has another type.
pub fn present_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    object(deserializer).map(Some)
}

/// Like [`object`], for a value that must be present.
///
/// # Errors
/// If the value has another type.
pub fn one_object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|object| object.0)
}

/// Like [`object`], for each item of a list.
///
/// # Errors
/// If a value has another type.
pub fn objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|object| object.0).collect())
}

/// Like [`objects`], for a list that may be absent or `null`.
///
/// # Errors
/// If a value has another type.
pub fn optional_objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let objects = Option::<Vec<Object<T>>>::deserialize(deserializer)?;
    Ok(objects.map(|objects| objects.into_iter().map(|object| object.0).collect()))
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyAMap<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyAMap<T> {
            type Value = T;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(OnlyAMap(std::marker::PhantomData)).map(Self)
    }
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Release.
    pub version: String,
    /// Agent types in this build.
    pub agent_types: Vec<String>,
}

/// `GET /livez` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` or `unavailable`.
    pub status: String,
    /// One entry per part.
    pub checks: Vec<HealthCheck>,
}

/// Health of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    /// `database`, `engine`, `compute`.
    pub name: String,
    /// Whether it works.
    pub ok: bool,
    /// Why not, or how the connection to the `database` is secured; else empty.
    #[serde(default)]
    pub reason: String,
}
