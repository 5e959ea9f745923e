//! Lists, feeds, hints and the vault.
#![allow(clippy::disallowed_methods, reason = "nobody gives a test's transactions up")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{collections::BTreeSet, time::Duration};

use ambient_domain::{
    agent::{Agent, AgentSpec},
    definition,
    project::{self, Permission, Project, Role, SubjectType},
    session::{self, Session, SessionPatch},
};
use ambient_persistence::{
    Database, DatabaseOptions, Hint, HintReceiver, Hints, ListQuery, OperationFilter, Order, Scope, StoreError, Vault,
    VaultError, new_id, secret_id,
};
use support::*;

fn filter(pairs: &[(&str, &str)]) -> ListQuery {
    ListQuery {
        filters: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..ListQuery::default()
    }
}

#[tokio::test]
async fn lists_show_what_the_scope_allows_by_white_listed_columns() {
    let s = store().await;
    let (mine, other) = (new_project(&s.db, "mine").await, new_project(&s.db, "other").await);
    let bob = Permission { subject_type: SubjectType::Group, subject_name: "staff".to_owned(), role: Role::View };
    apply::<Project>(&s.db, &mine.id, &project::Command::Grant(bob)).await;
    let mut sessions = Vec::new();
    for (project, start) in [(&mine, true), (&mine, false), (&mine, false), (&other, true)] {
        sessions.push(new_session(&s.db, project, start).await);
    }
    let labels = [("team".to_owned(), Some("x y".to_owned()))].into();
    let patch = SessionPatch { labels: Some(labels), display_name: Some("a'; drop".to_owned()), ..Default::default() };
    apply::<Session>(&s.db, &sessions[1].id, &session::Command::Patch(patch)).await;
    apply::<Session>(&s.db, &sessions[2].id, &session::Command::Delete).await;

    let staff = Scope::Member { user: "bob".to_owned(), groups: vec!["staff".to_owned()] };
    let nobody = Scope::Member { user: "staff".to_owned(), groups: vec![] };
    let total = async |scope: &Scope, query: ListQuery| s.db.list::<Session>(scope, &query).await.unwrap().total;
    assert_eq!(total(&Scope::All, ListQuery::default()).await, 3);
    assert_eq!(total(&staff, ListQuery::default()).await, 2);
    assert_eq!(total(&nobody, ListQuery::default()).await, 0);
    assert_eq!(total(&Scope::Projects(vec![other.id.clone()]), ListQuery::default()).await, 1);
    assert_eq!(s.db.list::<Project>(&staff, &ListQuery::default()).await.unwrap().items[0].name, "mine");
    let every = OperationFilter::default();
    let operations = async |scope: &Scope| s.db.count_operations(scope, &every).await.unwrap();
    let all = i64::try_from(sessions.len()).unwrap() + 2 + 3;
    // The count stops below the oldest transaction of any database of this server.
    eventually("all are counted", async || operations(&Scope::All).await == all).await;
    assert_eq!((operations(&staff).await, operations(&nobody).await), (all - 2, 0));
    assert_eq!(operations(&Scope::Projects(vec![other.id.clone()])).await, 2);
    assert_eq!(total(&Scope::All, filter(&[("phase", "New")])).await, 1);
    assert_eq!(total(&Scope::All, filter(&[("phase", "Pending"), ("interactive", "true")])).await, 2);
    assert_eq!(total(&Scope::All, filter(&[("labels.team", "x y")])).await, 1);
    assert_eq!(total(&Scope::All, filter(&[("display_name", "a'; drop")])).await, 1);

    let pages = async |page| {
        let order_by = vec![("display_name".to_owned(), Order::Descending)];
        let query = ListQuery { page, size: 2, order_by, ..ListQuery::default() };
        s.db.list::<Session>(&Scope::All, &query).await.unwrap().items.into_iter().map(|s| s.id).collect::<Vec<_>>()
    };
    let all: Vec<String> = [pages(1).await, pages(2).await].concat();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 3, "pages neither repeat nor miss");
    assert_eq!(all[2], sessions[1].id);

    for (query, field) in [
        (filter(&[("state", "x")]), "state"),
        (filter(&[("interactive", "maybe")]), "interactive"),
        (filter(&[("phase", "a\0b")]), "phase"),
        (
            ListQuery { order_by: vec![("id; drop table".to_owned(), Order::Ascending)], ..ListQuery::default() },
            "order_by",
        ),
        (ListQuery { page: 0, ..ListQuery::default() }, "page"),
        (ListQuery { size: 70_000, ..ListQuery::default() }, "size"),
    ] {
        let error = s.db.list::<Session>(&Scope::All, &query).await.unwrap_err();
        assert!(matches!(&error, StoreError::BadQuery { field: f, .. } if f == field), "{error}");
    }
}

#[tokio::test]
async fn a_feed_of_operations_never_shows_later_what_belongs_before() {
    let s = store().await;
    let project = new_project(&s.db, "demo").await;
    // A transaction with an older id than what follows is still running.
    let mut running = s.db.pool().begin().await.unwrap();
    sqlx::query("select pg_current_xact_id()").execute(&mut *running).await.unwrap();
    let session = new_session(&s.db, &project, false).await;
    let everything = OperationFilter::default();
    let list = async |order, after: Option<&str>, size| {
        s.db.list_operations(&Scope::All, &everything, order, after, size).await.unwrap()
    };
    // Transactions of other databases of the server hold a feed up too, so the test waits.
    let some = async |after: Option<String>| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let page = list(Order::Ascending, after.as_deref(), 100).await;
            if !page.items.is_empty() {
                return page;
            }
            assert!(tokio::time::Instant::now() < deadline, "the feed does not go on");
        }
    };
    let before = some(None).await;
    assert_eq!(before.items.len(), 1, "the session's creation is above the running transaction");
    running.rollback().await.unwrap();
    let after = some(before.next).await;
    assert_eq!(after.items.iter().map(|o| &o.entity_id).collect::<Vec<_>>(), [&session.id]);
    assert_eq!(list(Order::Ascending, after.next.as_deref(), 100).await.items, []);
    let newest = list(Order::Descending, None, 1).await;
    assert_eq!(newest.items[0].entity_id, session.id);
    assert_eq!(list(Order::Descending, newest.next.as_deref(), 1).await.items[0].entity_id, project.id);

    let of_project = OperationFilter {
        project_id: Some(project.id.clone()),
        command: Some("create".to_owned()),
        ..everything.clone()
    };
    assert_eq!(
        s.db.list_operations(&Scope::All, &of_project, Order::Ascending, None, 10).await.unwrap().items.len(),
        2
    );
    let bad = s.db.list_operations(&Scope::All, &everything, Order::Ascending, Some("Zm9v"), 10).await;
    assert!(matches!(bad, Err(StoreError::BadQuery { field, .. }) if field == "after"));
}

async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

async fn wait_for(receiver: &mut HintReceiver, hint: &Hint) {
    let wait = async { while receiver.recv().await.as_ref() != Some(hint) {} };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{hint:?} did not come"));
}

#[tokio::test]
async fn hints_reach_other_processes_and_a_lost_connection_means_resync() {
    let s = store().await;
    let second = Database::connect(&s.database.url(), DatabaseOptions::default()).await.unwrap();
    let (here, there) = (Hints::start(&s.db), Hints::start(&second));
    let (mut at_home, mut abroad) = (here.subscribe(), there.subscribe());
    wait_for(&mut abroad, &Hint::Resync).await;
    for i in 0..500 {
        here.publish(Hint::Live(format!("session-{i}")));
    }
    here.publish(Hint::Outbox);
    let mut seen = BTreeSet::new();
    while seen.len() < 501 {
        match tokio::time::timeout(Duration::from_secs(10), abroad.recv()).await.unwrap().unwrap() {
            Hint::Live(id) => seen.insert(id),
            Hint::Outbox => seen.insert("outbox".to_owned()),
            other => panic!("{other:?}"),
        };
    }
    wait_for(&mut at_home, &Hint::Outbox).await;

    let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and application_name in ('ambient-listener', 'ambient-notifier')";
    sqlx::query(kill).execute(s.db.pool()).await.unwrap();
    wait_for(&mut abroad, &Hint::Resync).await;
    // Whoever is told to resync before the connection is back is told again when it is.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let hint = Hint::Live("after".to_owned());
    loop {
        here.publish(hint.clone());
        match tokio::time::timeout(Duration::from_millis(100), abroad.recv()).await {
            Ok(Some(received)) if received == hint => break,
            _ => assert!(tokio::time::Instant::now() < deadline, "hints do not come back"),
        }
    }
}

#[tokio::test]
async fn secrets_are_sealed_to_their_owner_and_open_only_with_the_right_key() {
    let s = store().await;
    let vaults = futures::future::join_all((0..3).map(|_| Vault::open(&s.db, &[7; 32]))).await;
    let vaults: Vec<Vault> = vaults.into_iter().map(Result::unwrap).collect();
    assert!(vaults.iter().all(|v| v.token_key() == vaults[0].token_key()), "servers that start at once share the keys");
    let sealed = vaults[0].seal("credential-1", b"canary-77aa").unwrap();
    assert_eq!(vaults[1].unseal("credential-1", &sealed).unwrap().expose(), b"canary-77aa");
    assert_ne!(sealed, vaults[0].seal("credential-1", b"canary-77aa").unwrap());
    assert!(matches!(vaults[0].unseal("credential-2", &sealed), Err(VaultError::Broken(_))));
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(vaults[0].unseal("credential-1", &changed).is_err(), "byte {at}");
        assert!(vaults[0].unseal("credential-1", &sealed[..at]).is_err());
    }
    vaults[0].put(&[("c".to_owned(), b"canary-77aa")]).await.unwrap();
    assert_eq!(format!("{:?}", vaults[2].get_all(["c"]).await.unwrap()), r#"{"c": Secret(…)}"#);
    let found: i64 = sqlx::query_scalar(
        "select count(*) from ambient.sealed_values where position(convert_to('canary-77aa', 'UTF8') in sealed) > 0",
    )
    .fetch_one(s.db.pool())
    .await
    .unwrap();
    assert_eq!(found, 0);
    assert!(matches!(Vault::open(&s.db, &[8; 32]).await, Err(VaultError::WrongKey(_))));
    assert!(matches!(Vault::open(&s.db, &[8; 31]).await, Err(VaultError::WrongKey(_))));
}

#[tokio::test]
async fn only_sealed_values_that_nothing_refers_to_and_no_command_can_any_more_are_removed() {
    let s = store().await;
    let vault = Vault::open(&s.db, &[7; 32]).await.unwrap();
    let project = new_project(&s.db, "sealed").await;
    let session_id = new_id();
    let id = |name: &str| secret_id("session", &session_id, name);
    let nobodys = secret_id("session", &new_id(), "nobodys");
    let agent_id = new_id();
    let of_agent = |name: &str| secret_id("agent", &agent_id, name);
    let of_project = |name: &str| secret_id("project", &project.id, name);
    let old = [
        id("used"),
        id("replaced"),
        nobodys.clone(),
        "other/kind".to_owned(),
        of_agent("used"),
        of_agent("replaced"),
        of_project("used"),
        of_project("replaced"),
    ];
    vault.put(&old.each_ref().map(|id| (id.clone(), "v"))).await.unwrap();
    sqlx::query("update ambient.sealed_values set updated_at = now() - interval '2 hours'")
        .execute(s.db.pool())
        .await
        .unwrap();
    vault.put(&[(id("young"), "v")]).await.unwrap();
    let mut create = create_session(&session_id, &project.id, false);
    if let session::Command::Create { spec, .. } = &mut create {
        spec.environment_variables.insert("USED".to_owned(), id("used"));
    }
    apply::<Session>(&s.db, &session_id, &create).await;

    let spec =
        AgentSpec { environment_variables: [("USED".to_owned(), of_agent("used"))].into(), ..AgentSpec::default() };
    let (name, spec) = ("keeper".to_owned(), Box::new(spec));
    let create = definition::Command::Create { id: agent_id.clone(), project_id: project.id.clone(), name, spec };
    apply::<Agent>(&s.db, &agent_id, &create).await;

    let variables = [("USED".to_owned(), Some(of_project("used")))].into();
    let patch = project::ProjectPatch { environment_variables: Some(variables), ..project::ProjectPatch::default() };
    apply::<Project>(&s.db, &project.id, &project::Command::Patch(Box::new(patch))).await;

    assert_eq!(vault.remove_unused(1).await.unwrap(), 1);
    assert_eq!(vault.remove_unused(100).await.unwrap(), 3);
    let all = old.into_iter().chain([id("young"), nobodys]).collect::<Vec<_>>();
    let mut left: Vec<String> = vault.get_all(&all).await.unwrap().into_keys().collect();
    left.sort();
    let mut kept = vec![id("used"), id("young"), "other/kind".to_owned(), of_agent("used"), of_project("used")];
    kept.sort();
    assert_eq!(left, kept);
    assert_eq!(vault.remove_session(&session_id).await.unwrap(), 2);
    apply::<Agent>(&s.db, &agent_id, &definition::Command::Delete).await;
    assert_eq!(vault.remove_unused(100).await.unwrap(), 1, "those of what is deleted");
}
