//! The older lists' filters, as a query.

use chrono::{DateTime, Datelike as _, SecondsFormat, Utc};
use prost_types::Timestamp;
use temporalio_common::protos::temporal::api::filter::v1::StartTimeFilter;
use tonic::Status;

use super::{
    Query,
    fields::Known,
    parser::{Filter, Parsed, Test, Value},
};
use crate::proto;

/// The one filter that a list may have besides its times.
pub(in crate::rpc) enum Only {
    WorkflowId(String),
    WorkflowType(String),
    Status(i32),
}

impl Query {
    /// Open runs started within these times, latest start first.
    pub(in crate::rpc) fn open(started: Option<StartTimeFilter>, only: Option<Only>) -> Result<Self, Status> {
        Self::filtered(equal("ExecutionStatus", RUNNING), "StartTime", started, only)
    }

    /// Closed runs, latest end first. The times are those of the end, despite their name, as on Temporal's servers.
    pub(in crate::rpc) fn closed(ended: Option<StartTimeFilter>, only: Option<Only>) -> Result<Self, Status> {
        let closed = Filter::Not(Box::new(equal("ExecutionStatus", RUNNING)));
        Self::filtered(closed, "CloseTime", ended, only)
    }

    fn filtered(
        state: Filter,
        time: &str,
        within: Option<StartTimeFilter>,
        only: Option<Only>,
    ) -> Result<Self, Status> {
        let mut parts = vec![state];
        let within = within.unwrap_or_default();
        let earliest = within.earliest_time.map(|at| moment(at, "earliest_time")).transpose()?;
        let latest = within.latest_time.map(|at| moment(at, "latest_time")).transpose()?;
        if earliest.zip(latest).is_some_and(|(earliest, latest)| earliest > latest) {
            return Err(Status::invalid_argument("earliest_time must not be later than latest_time"));
        }
        for (operator, at) in [(">=", earliest), ("<=", latest)] {
            let text = |at: DateTime<Utc>| Value::Text(at.to_rfc3339_opts(SecondsFormat::Nanos, true));
            parts.extend(at.map(|at| compare(time, operator, text(at))));
        }
        parts.extend(only.map(Only::condition).transpose()?);
        let order_by = Some((time.to_owned(), false));
        Ok(Self { parsed: Parsed { filter: Some(Filter::All(parts)), group_by: None, order_by }, known: Known::new() })
    }
}

impl Only {
    fn condition(self) -> Result<Filter, Status> {
        match self {
            Self::WorkflowId(id) => {
                proto::optional_name(&id, "workflow_id")?;
                Ok(equal("WorkflowId", Value::Text(id)))
            }
            Self::WorkflowType(name) => {
                proto::optional_name(&name, "name")?;
                Ok(equal("WorkflowType", Value::Text(name)))
            }
            Self::Status(0 | 1) => Err(Status::invalid_argument("status must be set, and not to Running")),
            Self::Status(status) => Ok(equal("ExecutionStatus", Value::Int(i64::from(status)))),
        }
    }
}

const RUNNING: Value = Value::Int(1);

fn compare(field: &str, operator: &'static str, value: Value) -> Filter {
    Filter::Test(field.to_owned(), Test::Compare(operator, value))
}

fn equal(field: &str, value: Value) -> Filter {
    compare(field, "=", value)
}

/// A time as protobuf allows it: in the years 1 to 9999.
fn moment(at: Timestamp, field: &str) -> Result<DateTime<Utc>, Status> {
    let moment = u32::try_from(at.nanos).ok().and_then(|nanos| DateTime::from_timestamp(at.seconds, nanos));
    let moment = moment.filter(|moment| (1..=9999).contains(&moment.year()));
    moment.ok_or_else(|| Status::invalid_argument(format!("{field} is not a time")))
}
