//! Spans of operations.

use ambient_persistence::{Origin, TracedOperation};
use opentelemetry_proto::tonic::trace::v1::Span;

use crate::{
    ids::Context,
    origin::operation_span,
    span::{Draft, SpanKind},
};

/// An operation: the moment of its decision.
pub(crate) fn span(operation: &TracedOperation, context: Context) -> Span {
    let TracedOperation { origin, entity_kind, project_id, version, command, principal, occurred_at, place: _ } =
        operation;
    let Origin { operation_id, correlation_id, entity_id, .. } = origin;
    let name = format!("{entity_kind} {command}");
    let at = (*occurred_at, *occurred_at);
    let mut draft = Draft::new(context, operation_span(operation_id), &name, SpanKind::Internal, at)
        .word("ambient.operation.id", operation_id)
        .word("ambient.command", command)
        .word("ambient.entity.kind", entity_kind)
        .word("ambient.entity.id", entity_id)
        .number("ambient.entity.version", *version)
        .word("ambient.project.id", project_id)
        .word("ambient.principal", principal)
        .word("ambient.correlation.id", correlation_id);
    if entity_kind == "session" {
        draft = draft.word("gen_ai.conversation.id", entity_id);
    }
    draft.done()
}
