//! Traces for an OpenTelemetry collector, over OTLP (http/protobuf).
//!
//! * Requests of the edge become spans as they end ([`Requests`]): in memory, bounded, dropped when there are too many.
//! * Everything else becomes spans from what is stored ([`Exporter`]): operations, turns with their model and tool calls, executions. One server
//!   of a database does it, and remembers how far it got; a crash delays spans and loses none.
//!
//! Invariants
//! * The ids of a stored thing's spans are a function of its own id ([`ids`]): exported again, they are the same.
//! * Nothing waits for an export, and a collector that is away costs a bounded backlog.
//! * What people and agents say is left out unless the server's settings ask for it; secrets never get here.
//!
//! Which module may use which: a module uses those on the lines above its own, and nothing else (`tests/tests/module_order.rs` reads this list).
//!
//! * `ids`: trace and span ids, and W3C trace contexts
//! * `span`: a span, with bounded texts
//! * `collector`: sending spans
//! * `origin`, `tools`: which trace something belongs to; the calls of a turn
//! * `executions`, `operations`, `requests`, `turns`: the spans of each
//! * `exporter`: reading, sending, remembering how far

mod collector;
mod executions;
mod exporter;
pub mod ids;
mod operations;
mod origin;
mod requests;
mod span;
mod tools;
mod turns;

pub use collector::{Collector, CollectorError, CollectorOptions};
pub use executions::ExecutionHistories;
pub use exporter::{Exporter, ExporterOptions};
pub use requests::{EndedRequest, Requests};
