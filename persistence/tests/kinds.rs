//! Every Kind in the registry: its table matches its columns, and definitions follow the rules for names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeMap;

use ambient_domain::{
    ColumnType, Guard,
    agent::{Agent, AgentPatch, AgentSpec},
    definition::Command,
    project::{self, Project},
    repository_ref::{RepositoryRef, RepositoryRefSpec},
};
use ambient_persistence::{
    AppendError, Concerned, Database, EntityReplay, KindVisitor, ListQuery, Scope, StoredEntity, VerifyScope, new_id,
    visit_kinds,
};
use support::*;

/// Columns of every entity table.
const COMMON: [(&str, &str); 11] = [
    ("id", "text"),
    ("project_id", "text"),
    ("version", "bigint"),
    ("schema_version", "integer"),
    ("last_operation_id", "text"),
    ("last_hash", "bytea"),
    ("state", "jsonb"),
    ("spec", "jsonb"),
    ("created_at", "timestamp with time zone"),
    ("updated_at", "timestamp with time zone"),
    ("deleted_at", "timestamp with time zone"),
];

struct Tables(Database);

impl KindVisitor for Tables {
    type Error = String;

    async fn visit<E: StoredEntity>(&mut self) -> Result<(), String> {
        let (schema, table) = E::TABLE.name.split_once('.').unwrap();
        let sql = "select column_name::text, data_type::text from information_schema.columns
                   where table_schema = $1 and table_name = $2";
        let rows: Vec<(String, String)> =
            sqlx::query_as(sql).bind(schema).bind(table).fetch_all(self.0.pool()).await.unwrap();
        let mut there: BTreeMap<String, String> = rows.into_iter().collect();
        for (name, data_type) in COMMON {
            assert_eq!(there.remove(name).as_deref(), Some(data_type), "{table}.{name}");
        }
        for column in E::COLUMNS {
            let data_type = there.remove(column.name).ok_or(format!("{table}.{} is in no migration", column.name))?;
            let expected: &[&str] = match column.column_type {
                ColumnType::Text => &["text"],
                ColumnType::Boolean => &["boolean"],
                ColumnType::Integer => &["bigint", "integer"],
                ColumnType::Time => &["timestamp with time zone"],
                ColumnType::Texts => &["ARRAY"],
                ColumnType::Json => &["jsonb"],
            };
            assert!(expected.contains(&&*data_type), "{table}.{} is {data_type}", column.name);
        }
        if there.is_empty() { Ok(()) } else { Err(format!("{table} has columns that no Kind states: {there:?}")) }
    }
}

#[tokio::test]
async fn a_column_is_the_same_in_its_migration_and_in_its_kind() {
    let s = store().await;
    visit_kinds(&mut Tables(s.db.clone())).await.unwrap();
}

fn create(id: &str, project: &Project, name: &str) -> Command<AgentSpec> {
    let (project_id, name) = (project.id.clone(), name.to_owned());
    Command::Create { id: id.to_owned(), project_id, name, spec: Box::default() }
}

fn rename(name: &str) -> Command<AgentSpec> {
    Command::Patch { name: Some(name.to_owned()), spec: Box::default() }
}

#[tokio::test]
async fn names_of_definitions_are_unique_in_their_project_while_they_are_not_deleted() {
    let s = store().await;
    let (one, two) = (new_project(&s.db, "one").await, new_project(&s.db, "two").await);
    let (first, second, elsewhere) = (new_id(), new_id(), new_id());
    apply::<Agent>(&s.db, &first, &create(&first, &one, "reviewer")).await;
    apply::<Agent>(&s.db, &elsewhere, &create(&elsewhere, &two, "reviewer")).await;
    let taken = append(&s.db, item::<Agent>(None, &create(&second, &one, "reviewer"), &[])).await.unwrap_err();
    assert!(matches!(taken, AppendError::NameTaken { .. }), "{taken:?}");
    apply::<Agent>(&s.db, &first, &rename("critic")).await;
    let second_agent = apply::<Agent>(&s.db, &second, &create(&second, &one, "reviewer")).await;
    let taken = append(&s.db, item(Some(&second_agent), &rename("critic"), &[])).await.unwrap_err();
    assert!(matches!(taken, AppendError::NameTaken { .. }), "{taken:?}");
    apply::<Agent>(&s.db, &first, &Command::Delete).await;
    apply::<Agent>(&s.db, &second, &rename("critic")).await;
    let patch = AgentPatch { llm_model: Some(Some("m".to_owned())), ..AgentPatch::default() };
    apply::<Agent>(&s.db, &second, &Command::Patch { name: None, spec: Box::new(patch) }).await;

    let query = ListQuery { filters: vec![("llm_model".to_owned(), "m".to_owned())], ..ListQuery::default() };
    let found = s.db.list::<Agent>(&Scope::Projects(vec![one.id.clone()]), &query).await.unwrap();
    assert_eq!((found.total, found.items[0].name.as_str()), (1, "critic"));
    assert_eq!(s.db.ids_of_project::<Agent>(&one.id, "", 10).await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(s.db.load_at::<Agent>(&second, 1).await.unwrap().unwrap().name, "reviewer");

    let report = s.db.verify(&VerifyScope::default()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!((report.entities["agent"], report.entities["repository_ref"]), (3, 0));
    let history = Concerned { entity_kind: "agent".to_owned(), entity_id: second, from: 1, to: 3 };
    let mut folded = EntityReplay::of_kind("agent").unwrap();
    for operation in s.db.logged_operations(&history, 0).await.unwrap() {
        assert_eq!(folded.next(&operation, true), Ok(None));
    }
}

/// New names are composed and visible before they get here (`ambient_wire::name`); what was stored without that stays as it is.
#[tokio::test]
async fn a_name_from_before_a_stricter_rule_is_decided_again_as_it_was() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let id = new_id();
    apply::<Agent>(&s.db, &id, &create(&id, &project, "cafe\u{301} \u{2714}\u{fe0f}")).await;
    apply::<Agent>(&s.db, &id, &rename("e\u{301}\u{200b}")).await;
    let history = Concerned { entity_kind: "agent".to_owned(), entity_id: id, from: 1, to: 2 };
    let mut folded = EntityReplay::of_kind("agent").unwrap();
    for operation in s.db.logged_operations(&history, 0).await.unwrap() {
        assert_eq!(folded.next(&operation, true), Ok(None));
    }
    assert!(s.db.verify(&VerifyScope::default()).await.unwrap().is_clean());
}

#[tokio::test]
async fn the_migration_derives_from_a_url_what_the_kind_derives() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    let given = RepositoryRefSpec {
        url: "https://GitHub.com/a/b".to_owned(),
        provider: Some(ambient_domain::repository_ref::Provider::Git),
        owner: Some("o".to_owned()),
        repo_name: Some("r".to_owned()),
        ..RepositoryRefSpec::default()
    };
    let urls = [
        "https://github.com/acme/site.git",
        "https://GitHub.com:443/acme/site.git.git",
        "https://GITLAB.com//a//b///c//",
        "https://github.com.example.org/acme/site/.git/",
        "https://h/x",
        "https://h/.git",
        "https://h/a/.git",
        "https://h/my%20team/a%20%20b.git",
        "https://h/a/%2Dx~~y",
        "https://h/a/.x",
        "https://[::1]:8443/a/b",
        "file:///srv/git/tool/.git",
        "file:////srv//c%C3%BC",
    ];
    let derived = |url: &str| RepositoryRefSpec { url: url.to_owned(), ..RepositoryRefSpec::default() };
    for (i, spec) in urls.into_iter().map(derived).chain([given]).enumerate() {
        let id = new_id();
        let (project_id, name) = (project.id.clone(), format!("r{i}"));
        let create = Command::Create { id: id.clone(), project_id, name, spec: Box::new(spec) };
        apply::<RepositoryRef>(&s.db, &id, &create).await;
    }
    let spoil = "update ambient.repository_refs set provider = 'x', owner = 'x', repo_name = 'x'";
    for sql in [spoil, include_str!("../../migrations/0009_derived_of_urls.sql")] {
        sqlx::raw_sql(sql).execute(s.db.pool()).await.unwrap();
    }
    let report = s.db.verify(&VerifyScope::default()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.divergences);
    assert_eq!(report.entities["repository_ref"], 14);
}

#[tokio::test]
async fn a_terminating_project_takes_no_new_definitions() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    apply::<Project>(&s.db, &project.id, &project::Command::Delete).await;
    let refused = append(&s.db, item::<Agent>(None, &create(&new_id(), &project, "late"), &[])).await.unwrap_err();
    assert!(matches!(refused, AppendError::Guard(Guard::ProjectActive { .. })), "{refused:?}");
}
