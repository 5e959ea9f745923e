//! What lists of projects filter and order by.

use serde_json::json;

use super::{Project, SubjectType};
use crate::column::{
    self,
    ColumnType::{Boolean, Json, Text, Texts},
};

type Column = column::Column<Project>;

/// Values of `status`.
const STATUSES: &[&str] = &["Active", "Terminating"];

pub(super) const COLUMNS: &[Column] = &[
    Column::new("name", Text, |p| json!(p.name)).filtered("Exact name.").ordered(),
    Column::new("display_name", Text, |p| json!(p.spec.display_name)).ordered(),
    Column::new("phase", Text, |p| json!(p.phase))
        .shown_as("status")
        .filtered("`Active` or `Terminating`.")
        .one_of(STATUSES)
        .ordered(),
    Column::new("provisioned", Boolean, |p| json!(p.provisioned)),
    Column::new("members", Texts, |p| {
        p.permissions.iter().map(|one| member_name(one.subject_type, &one.subject_name)).collect()
    }),
    Column::new("labels", Json, |p| json!(p.spec.labels)),
];

/// A subject as in the column `members`: `user:alice`, `group:staff`.
#[must_use]
pub fn member_name(subject_type: SubjectType, name: &str) -> String {
    match subject_type {
        SubjectType::User => format!("user:{name}"),
        SubjectType::Group => format!("group:{name}"),
    }
}
