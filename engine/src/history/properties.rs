//! What a workflow says about itself: memo and search attributes.

use std::collections::HashMap;

use temporalio_common::protos::temporal::api::{
    common::v1::{Memo, Payload, SearchAttributes},
    history::v1::{
        UpsertWorkflowSearchAttributesEventAttributes, WorkflowPropertiesModifiedEventAttributes,
        history_event::Attributes as A,
    },
};

use super::{Transition, commands::Pending};

/// Null removes a key, as for memo and search attributes on Temporal's servers.
fn merge<V: Clone>(into: &mut HashMap<String, V>, from: &HashMap<String, V>, is_null: impl Fn(&V) -> bool) {
    for (key, value) in from {
        if is_null(value) {
            into.remove(key);
        } else {
            into.insert(key.clone(), value.clone());
        }
    }
}

fn is_null(payload: &Payload) -> bool {
    payload.metadata.get("encoding").is_some_and(|e| e == b"binary/null") || payload.data == b"null"
}

pub(super) fn merge_search_attributes(into: &mut SearchAttributes, upsert: Option<&SearchAttributes>) {
    if let Some(upsert) = upsert {
        merge(&mut into.indexed_fields, &upsert.indexed_fields, is_null);
    }
}

pub(super) fn merge_memo(into: &mut Memo, upsert: Option<&Memo>) {
    if let Some(upsert) = upsert {
        merge(&mut into.fields, &upsert.fields, is_null);
    }
}

pub(super) fn upsert_search_attributes(
    t: &mut Transition,
    upsert: Option<SearchAttributes>,
    id: i64,
    pending: &Pending,
) {
    let mut now = t.search_attributes.take().unwrap_or_else(|| pending.search_attributes.clone());
    merge_search_attributes(&mut now, upsert.as_ref());
    t.search_attributes = Some(now);
    t.append(A::UpsertWorkflowSearchAttributesEventAttributes(UpsertWorkflowSearchAttributesEventAttributes {
        workflow_task_completed_event_id: id,
        search_attributes: upsert,
    }));
}

pub(super) fn upsert_memo(t: &mut Transition, upsert: Option<Memo>, id: i64, pending: &Pending) {
    let mut now = t.memo.take().unwrap_or_else(|| pending.memo.clone());
    merge_memo(&mut now, upsert.as_ref());
    t.memo = Some(now);
    t.append(A::WorkflowPropertiesModifiedEventAttributes(WorkflowPropertiesModifiedEventAttributes {
        workflow_task_completed_event_id: id,
        upserted_memo: upsert,
    }));
}
