//! What agents ask of people: whom it waits for, and what runners have yet to be told.

use ambient_domain::{
    project::{Role, SubjectType, member_name},
    session::{Interrupt, Session},
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, FromRow, Postgres, QueryBuilder, types::Json};

use crate::{
    database::Database,
    error::StoreError,
    list::{Page, Scope},
    load::{STATE, from_row},
};

/// A request that waits for a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Project.
    pub project_id: String,
    /// Its name.
    pub project_name: String,
    /// Session.
    pub session_id: String,
    /// Its name.
    pub session_name: String,
    /// Current run.
    pub run: i64,
    /// What is asked.
    pub interrupt: Interrupt,
}

#[derive(FromRow)]
struct Row {
    project_id: String,
    project_name: String,
    session_id: String,
    session_name: String,
    run: i64,
    interrupt: Json<Value>,
}

impl Database {
    /// The session, if its runner has to be told something besides messages in this run.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn session_due(&self, session_id: &str, run: i64) -> Result<Option<Session>, StoreError> {
        let sql = format!("select {STATE} from ambient.sessions t where t.id = $1 and t.run = $2 and t.runner_due");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(session_id).bind(run).fetch_optional(self.pool()).await?;
        row.as_ref().map(from_row).transpose()
    }

    /// Requests that wait for people in the projects of the scope, the oldest first, and how many there are. For members these are the
    /// projects in which they may act.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn inbox(
        &self,
        scope: &Scope,
        project_id: Option<&str>,
        page: i64,
        size: i64,
    ) -> Result<Page<Waiting>, StoreError> {
        let mut count = QueryBuilder::new("select coalesce(sum(t.waiting), 0)::bigint from ambient.sessions t");
        push_waiting(&mut count, scope, project_id);
        let total: i64 = count.build_query_scalar().fetch_one(self.pool()).await?;
        if size == 0 || total == 0 {
            return Ok(Page { items: Vec::new(), page, total });
        }
        let mut select = QueryBuilder::new(
            "select t.project_id, p.name as project_name, t.id as session_id, t.display_name as session_name, t.run::bigint as run,
                    i.value as interrupt
             from ambient.sessions t join ambient.projects p on p.id = t.project_id
             cross join lateral jsonb_array_elements(t.state -> 'interrupts') i",
        );
        push_waiting(&mut select, scope, project_id);
        select.push(
            " and not i.value ? 'answer'
             order by (i.value ->> 'raised_at')::timestamptz, t.id, i.value ->> 'interrupt_id' limit ",
        );
        select.push_bind(size).push(" offset ").push_bind((page - 1).saturating_mul(size));
        let rows: Vec<Row> = select.build_query_as().fetch_all(self.pool()).await?;
        let items = rows.into_iter().map(waiting).collect::<Result<_, _>>()?;
        Ok(Page { items, page, total })
    }
}

fn waiting(row: Row) -> Result<Waiting, StoreError> {
    let Row { project_id, project_name, session_id, session_name, run, interrupt } = row;
    let interrupt = serde_json::from_value(interrupt.0);
    let interrupt = interrupt.map_err(|error| StoreError::corrupt(format!("session {session_id}"), &error))?;
    Ok(Waiting { project_id, project_name, session_id, session_name, run, interrupt })
}

/// Sessions with requests, of the projects in which the scope may act.
fn push_waiting(sql: &mut QueryBuilder<Postgres>, scope: &Scope, project_id: Option<&str>) {
    sql.push(" where t.waiting > 0 and t.deleted_at is null");
    if let Some(project_id) = project_id {
        sql.push(" and t.project_id = ").push_bind(project_id.to_owned());
    }
    match scope {
        Scope::All => {}
        Scope::Projects(ids) => {
            sql.push(" and t.project_id = any(").push_bind(ids.clone()).push(")");
        }
        Scope::Member { user, groups } => {
            let mut members = vec![member_name(SubjectType::User, user)];
            members.extend(groups.iter().map(|group| member_name(SubjectType::Group, group)));
            // A member has a role; which one, the state says.
            sql.push(
                " and exists (select from ambient.projects m
                      cross join lateral jsonb_array_elements(m.state -> 'permissions') r
                      where m.id = t.project_id and m.members && ",
            );
            sql.push_bind(members).push(" and r.value ->> 'role' <> ").push_bind(role(Role::View));
            sql.push(" and (r.value ->> 'subject_type' = 'user' and r.value ->> 'subject_name' = ");
            sql.push_bind(user.clone());
            sql.push(" or r.value ->> 'subject_type' = 'group' and r.value ->> 'subject_name' = any(");
            sql.push_bind(groups.clone()).push(")))");
        }
    }
}

fn role(role: Role) -> String {
    serde_json::to_value(role).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}
