//! Where traces are exported to, how many, and what they say.

use ambient_telemetry::CollectorOptions;
use clap::Args;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use url::Url;

use super::{ConfigError, layers::Layers, models::url_problem, secret::Secret};

/// Keys of these settings, in the order of [`OtelConfig`].
pub(super) const KEYS: &[&str] =
    &["otel_endpoint", "otel_headers", "otel_sample_ratio", "otel_service_name", "otel_content"];
/// Those that are secrets.
pub(super) const SECRETS: [&str; 1] = ["otel_headers"];

/// The variables that every program with OpenTelemetry understands. Ours come first.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const SPOKEN: &str = "http/protobuf";
/// What the specification appends to the URL for spans.
const PATH: &str = "v1/traces";

/// The export of traces.
#[derive(Debug, Clone, Serialize)]
pub struct OtelConfig {
    /// URL of a collector that takes OTLP over HTTP; without it nothing is exported.
    pub otel_endpoint: Option<Url>,
    /// Further headers for it: `name=value,name=value`, values percent-encoded.
    pub otel_headers: Option<Secret>,
    /// Share of the traces that begin at this server and are exported.
    pub otel_sample_ratio: Ratio,
    /// `service.name`.
    pub otel_service_name: String,
    /// Whether spans say what was said, read and written.
    pub otel_content: Content,
}

/// Flags of these settings. The headers have none.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct OtelFlags {
    /// URL of an OpenTelemetry collector for traces, such as http://127.0.0.1:4318 [default: none]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    pub(crate) otel_endpoint: Option<String>,
    /// Share of the traces that are exported, from 0 to 1 [default: 1]
    #[arg(long, value_name = "RATIO", hide_short_help = true)]
    pub(crate) otel_sample_ratio: Option<String>,
    /// Name of the service in traces [default: ambient]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) otel_service_name: Option<String>,
    /// Whether traces say what was said, read and written: off or on [default: off]
    #[arg(long, value_name = "WHETHER", hide_short_help = true)]
    pub(crate) otel_content: Option<String>,
}

/// A share, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Ratio(pub f64);

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ratio = match toml::Value::deserialize(deserializer)? {
            toml::Value::Float(ratio) => Some(ratio),
            toml::Value::Integer(0) => Some(0.0),
            toml::Value::Integer(1) => Some(1.0),
            toml::Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let legal = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
        legal.map(Self).ok_or_else(|| D::Error::custom("must be a number from 0 to 1"))
    }
}

/// Whether traces have contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// They have not.
    Off,
    /// They have.
    On,
}

impl OtelConfig {
    pub(super) fn take(layers: &mut Layers) -> Result<Self, ConfigError> {
        let own = layers.take("otel_endpoint")?;
        let spoken = layers.standard(PROTOCOL).is_none_or(|protocol| protocol == SPOKEN);
        let otel_endpoint = match own {
            None if !spoken && layers.standard(ENDPOINT).is_some() => {
                let text = "traces are not exported: only http/protobuf is spoken";
                layers.warnings.push(format!("{PROTOCOL} is not {SPOKEN}, so {text}; or set otel_endpoint"));
                None
            }
            None => layers.take_standard("otel_endpoint", ENDPOINT)?,
            own => own,
        };
        let otel_headers = match layers.take("otel_headers")? {
            None => layers.take_standard("otel_headers", HEADERS)?,
            own => own,
        };
        let otel_service_name = match layers.take("otel_service_name")? {
            None => layers.take_standard("otel_service_name", SERVICE_NAME)?,
            own => own,
        };
        Ok(Self {
            otel_endpoint,
            otel_headers,
            otel_sample_ratio: layers.take("otel_sample_ratio")?.unwrap_or(Ratio(1.0)),
            otel_service_name: otel_service_name.unwrap_or_else(|| "ambient".to_owned()),
            otel_content: layers.take("otel_content")?.unwrap_or(Content::Off),
        })
    }

    /// Whether traces are exported.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.otel_endpoint.is_some()
    }

    /// The collector, for a server on this machine; none if nothing is exported.
    #[must_use]
    pub fn collector(&self, host: &str) -> Option<CollectorOptions> {
        let endpoint = self.otel_endpoint.as_ref()?;
        Some(CollectorOptions {
            url: format!("{}/{PATH}", endpoint.as_str().trim_end_matches('/')),
            headers: self.otel_headers.as_ref().and_then(headers).unwrap_or_default(),
            service_name: self.otel_service_name.clone(),
            service_version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host.to_owned(),
        })
    }

    /// The first invalid setting, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if let Some(problem) = self.otel_endpoint.as_ref().and_then(url_problem) {
            return Some(("otel_endpoint", problem.to_owned()));
        }
        if self.otel_headers.as_ref().is_some_and(|given| headers(given).is_none()) {
            return Some(("otel_headers", "must be name=value, with ',' between headers".to_owned()));
        }
        let legal = |c: char| !c.is_control();
        if !(1..=100).contains(&self.otel_service_name.len()) || !self.otel_service_name.chars().all(legal) {
            return Some(("otel_service_name", "must be 1 to 100 bytes without control characters".to_owned()));
        }
        None
    }
}

/// Names and values, if it is well formed.
fn headers(given: &Secret) -> Option<Vec<(String, String)>> {
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let value = percent_encoding::percent_decode_str(value).decode_utf8().ok()?;
        let is_legal = !name.is_empty() && name.bytes().all(is_name) && !value.chars().any(char::is_control);
        is_legal.then(|| (name.to_ascii_lowercase(), value.into_owned()))
    };
    given.expose().split(',').map(header).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{ConfigFlags, ServerConfig};
    use super::{Content, Ratio};

    fn config(variables: &[(&str, &str)]) -> Result<ServerConfig, String> {
        let data = [("AMBIENT_DATA_DIR", "/d"), ("AMBIENT_SERVER_CONFIG", "/dev/null")];
        let variables = data.iter().chain(variables).map(|(name, value)| (OsString::from(name), OsString::from(value)));
        ServerConfig::resolve(&ConfigFlags::default(), variables).map_err(|error| error.to_string())
    }

    #[test]
    fn traces_go_nowhere_unless_a_setting_or_the_usual_variables_say_where() {
        let none = config(&[]).unwrap().otel;
        assert!(!none.is_on() && none.otel_content == Content::Off && none.collector("h").is_none());
        let usual = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20canary,x-scope=a"),
            ("OTEL_SERVICE_NAME", "ours"),
        ];
        let collector = config(&usual).unwrap().otel.collector("h").unwrap();
        assert_eq!((&*collector.url, &*collector.service_name), ("http://c:4318/v1/traces", "ours"));
        assert_eq!(collector.headers[0], ("authorization".to_owned(), "Basic canary".to_owned()));
        let both = [usual.as_slice(), &[("AMBIENT_OTEL_ENDPOINT", "https://d/otlp/")]].concat();
        let own = config(&both).unwrap();
        assert_eq!(own.otel.collector("h").unwrap().url, "https://d/otlp/v1/traces");
        let shown = format!("{own:?}{}", own.to_redacted_toml());
        assert!(!shown.contains("canary"), "{shown}");
        let grpc = [usual.as_slice(), &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]].concat();
        let grpc = config(&grpc).unwrap();
        assert!(!grpc.otel.is_on() && grpc.warnings.iter().any(|warning| warning.contains("http/protobuf")));
    }

    #[test]
    fn shares_are_numbers_and_faults_are_named() {
        assert_eq!(config(&[("AMBIENT_OTEL_SAMPLE_RATIO", "0.25")]).unwrap().otel.otel_sample_ratio, Ratio(0.25));
        let faults = [
            ("AMBIENT_OTEL_SAMPLE_RATIO", "2", "otel_sample_ratio: must be a number from 0 to 1"),
            ("AMBIENT_OTEL_ENDPOINT", "grpc://x", "otel_endpoint: must be https"),
            ("AMBIENT_OTEL_HEADERS", "canary", "otel_headers: must be name=value"),
            ("AMBIENT_OTEL_CONTENT", "some", "otel_content: "),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "no url", "otel_endpoint: "),
        ];
        for (variable, value, fault) in faults {
            let error = config(&[(variable, value)]).unwrap_err();
            assert!(error.starts_with(fault) && error.contains(variable) && !error.contains("canary"), "{error}");
        }
    }
}
