//! Trace and span ids, and W3C trace contexts.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Id of a trace; not all zero.
pub type TraceId = [u8; 16];
/// Id of a span; not all zero.
pub type SpanId = [u8; 8];

/// Where something belongs: its trace, the span it hangs on, and whether the trace is exported at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span above; none for the first of a trace.
    pub parent: Option<SpanId>,
    /// Whether its spans are exported.
    pub sampled: bool,
}

impl Context {
    /// The same trace, below another span.
    #[must_use]
    pub fn below(self, parent: SpanId) -> Self {
        Self { parent: Some(parent), ..self }
    }

    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`, lower case, ids not all zero.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if version != "00" || parts.next().is_some() {
            return None;
        }
        let [flags] = bytes::<1>(flags)?;
        let (trace, span) = (bytes(trace)?, bytes(span)?);
        let is_valid = trace != [0; 16] && span != [0; 8];
        is_valid.then_some(Self { trace, parent: Some(span), sampled: flags & 1 == 1 })
    }
}

/// The span of a thing that is stored: `kind` and the parts that identify it.
#[must_use]
pub fn span_of(kind: &str, parts: &[&str]) -> SpanId {
    let [a, b, c, d, e, f, g, h, ..] = digest(kind, parts);
    // Zero is no id, and one in 2^64.
    if [a, b, c, d, e, f, g, h] == [0; 8] { [1; 8] } else { [a, b, c, d, e, f, g, h] }
}

/// The trace of a stored thing that belongs to no other.
#[must_use]
pub fn trace_of(kind: &str, parts: &[&str]) -> TraceId {
    let mut trace = [0; 16];
    trace.copy_from_slice(&digest(kind, parts)[16..]);
    if trace == [0; 16] { [1; 16] } else { trace }
}

/// Whether a trace that nobody has decided on is exported: by its id, so that all decide alike. `ratio` from 0 to 1.
#[must_use]
pub fn is_sampled(trace: &TraceId, ratio: f64) -> bool {
    let mut low = [0; 8];
    low.copy_from_slice(&trace[8..]);
    // 53 bits: what a float holds exactly.
    #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let share = (u64::from_be_bytes(low) >> 11) as f64 / (1_u64 << 53) as f64;
    share < ratio
}

fn digest(kind: &str, parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [&kind].into_iter().chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if hex.len() != 2 * N || !hex.bytes().all(is_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(bytes)
}

/// In hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_read_only_if_it_is_one() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = Context::parse(good).unwrap();
        assert_eq!((hex(&context.trace).as_str(), context.sampled), ("4bf92f3577b34da6a3ce929d0e0e4736", true));
        assert_eq!(context.parent.map(|span| hex(&span)).as_deref(), Some("00f067aa0ba902b7"));
        assert!(!Context::parse(&good.replace("-01", "-00")).unwrap().sampled);
        let bad = [
            "",
            "00-x",
            &good.to_uppercase(),
            &format!("{good}-00"),
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ];
        assert!(bad.iter().all(|bad| Context::parse(bad).is_none()));
    }

    #[test]
    fn ids_are_functions_of_what_they_identify_and_sampling_of_the_trace() {
        assert_eq!(span_of("turn", &["s", "1"]), span_of("turn", &["s", "1"]));
        assert_ne!(span_of("turn", &["s", "1"]), span_of("turn", &["s1", ""]));
        assert_ne!(span_of("turn", &["s"]), span_of("tool", &["s"]));
        let traces: Vec<TraceId> = (0..1000).map(|n: u32| trace_of("t", &[&n.to_string()])).collect();
        let sampled = |ratio: f64| traces.iter().filter(|trace| is_sampled(trace, ratio)).count();
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 1000));
        assert!((400..600).contains(&sampled(0.5)), "{}", sampled(0.5));
    }
}
