//! A check writes nothing, and an export is what was stored: histories of the corpus in an engine's tables, operations of a project
//! and a session in the log.

use std::{collections::BTreeMap, fs, path::Path};

use ambient_actors::{ActorOptions, Actors, Caller, Request};
use ambient_domain::{
    project::{self, Project},
    session::{self, Session, SessionPatch, Spec},
};
use ambient_engine::{Engine, EngineOptions, HistoryReader};
use ambient_persistence::{Database, DatabaseOptions, Hints, StoredEntity, new_id};
use ambient_tests::TestDatabase;
use ambient_workflows::{
    TASK_QUEUE,
    replay::{
        CheckOptions, ClientHistories, EngineHistories, ExportReader, ExportWriter, Exported, HistorySource,
        RecordedHistory, ReplayError, Report, check_file, check_histories, check_operations, export, workflows,
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use prost::Message as _;
use sqlx::{AssertSqlSafe, PgPool};
use temporalio_client::{Client, ClientOptions};
use uuid::Uuid;

use crate::{corpus::Corpus, recorded::folder};

/// Closed histories of the filled database that are left to the others.
const FEW: usize = 12;

/// Fills a database: one open history, the others closed one after the other; returns them, the latest closed first.
async fn filled(database: &TestDatabase) -> (Database, Vec<RecordedHistory>) {
    let db = Database::connect(&database.url(), DatabaseOptions::default()).await.unwrap();
    db.migrate().await.unwrap();
    Engine::migrate(db.pool()).await.unwrap();
    operations(&db).await;
    let corpus = Corpus::open(&folder("embedded"));
    let all = corpus.entries().filter(|entry| !entry.branch.starts_with("running")).map(|entry| corpus.read(entry));
    let mut histories: Vec<RecordedHistory> = all.take(FEW).collect();
    let open = corpus.entries().find(|e| e.workflow == "session-supervise" && e.branch.starts_with("running")).unwrap();
    histories.insert(0, corpus.read(open));
    for (age, recorded) in (0..).zip(&histories) {
        store(db.pool(), recorded, Utc::now() - TimeDelta::minutes(age)).await;
    }
    (db, histories)
}

async fn store(pool: &PgPool, recorded: &RecordedHistory, closed_at: DateTime<Utc>) {
    let run: Uuid = recorded.run_id.parse().unwrap();
    let names = ["", "Running", "Completed", "Failed", "Canceled", "Terminated", "ContinuedAsNew", "TimedOut"];
    let status = i16::try_from(names.iter().position(|name| *name == recorded.status).unwrap()).unwrap();
    let sql =
        "insert into engine.executions (run_id, workflow_id, workflow_type, task_queue, status, start_time, close_time,
                   first_run_id, root_workflow_id, root_run_id) values ($1, $2, $3, $4, $5, $6, $7, $1, $2, $1)";
    let query = sqlx::query(sql).bind(run).bind(&recorded.workflow_id).bind(&recorded.workflow);
    let query = query.bind(&recorded.task_queue).bind(status).bind(closed_at - TimeDelta::seconds(9));
    query.bind((status != 1).then_some(closed_at)).execute(pool).await.unwrap();
    // Two appends, as an engine makes many.
    let (first, rest) = recorded.history.events.split_at(3);
    for part in [first, rest] {
        let history = temporalio_common::protos::temporal::api::history::v1::History { events: part.to_vec() };
        let sql = "insert into engine.history (run_id, first_event_id, last_event_id, data) values ($1, $2, $3, $4)";
        let ends = (part.first().unwrap().event_id, part.last().unwrap().event_id);
        sqlx::query(sql).bind(run).bind(ends.0).bind(ends.1).bind(history.encode_to_vec()).execute(pool).await.unwrap();
    }
}

async fn operations(db: &Database) {
    let hints = Hints::start(db);
    let actors = Actors::start(db.clone(), hints.clone(), ActorOptions::default());
    let (project_id, session_id) = (new_id(), new_id());
    let create = project::Command::Create {
        project_id: project_id.clone(),
        name: "replayed".to_owned(),
        spec: Box::default(),
        owner: "ada".to_owned(),
    };
    ask::<Project>(&actors, &project_id, create).await;
    let create = session::Command::Create {
        session_id: session_id.clone(),
        project_id: project_id.clone(),
        spec: Box::new(spec()),
        start: true,
    };
    ask::<Session>(&actors, &session_id, create).await;
    for name in ["second", "third"] {
        let patch = SessionPatch { display_name: Some(name.to_owned()), ..SessionPatch::default() };
        ask::<Session>(&actors, &session_id, session::Command::Patch(patch)).await;
    }
    ask::<Session>(&actors, &session_id, session::Command::Delete).await;
    actors.shutdown(std::time::Duration::from_secs(5)).await;
    hints.stop();
}

async fn ask<E: StoredEntity>(actors: &Actors, id: &str, command: E::Command) {
    let caller = Caller { principal: "ada".to_owned(), ..Caller::default() };
    actors.call::<E>(id, Request::new(command, caller)).await.unwrap();
}

fn spec() -> Spec {
    Spec {
        display_name: "first".to_owned(),
        prompt: Some("hello".to_owned()),
        main_repo_index: None,
        active_workflow: None,
        repos: Vec::new(),
        agent_id: None,
        agent_command: None,
        agent_mode: None,
        agent_options: std::collections::BTreeMap::new(),
        mcp_servers: Vec::new(),
        agent_type: "script".to_owned(),
        interactive: true,
        stop_on_run_finished: false,
        timeout: None,
        inactivity_timeout: 0,
        llm_model: None,
        llm_temperature: 0.7,
        llm_max_tokens: 4000,
        resource_overrides: ambient_domain::session::ResourceOverrides::default(),
        network: None,
        setup_script: None,
        environment_variables: BTreeMap::default(),
        models: ambient_domain::model_rules::ModelRules::default(),
        permissions: ambient_domain::permission::Permissions::default(),
        parent_session_id: None,
        labels: BTreeMap::default(),
        annotations: BTreeMap::default(),
    }
}

async fn read_only(database: &TestDatabase) -> Database {
    let options = DatabaseOptions { read_only: true, ..DatabaseOptions::default() };
    Database::connect(&database.url(), options).await.unwrap()
}

fn source(db: &Database, last: u32) -> EngineHistories {
    EngineHistories::new(HistoryReader::new(db.pool().clone()), TASK_QUEUE, last)
}

async fn checked(db: &Database, last: u32) -> Report {
    let mut report = Report::default();
    let options = CheckOptions::default();
    check_histories(&mut source(db, last), &workflows().unwrap(), &options, &mut report).await.unwrap();
    check_operations(db, last, &mut report).await.unwrap();
    report
}

/// Every row of every table.
async fn everything(pool: &PgPool) -> BTreeMap<String, String> {
    let sql = "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('ambient', 'engine')";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(pool).await.unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut found = BTreeMap::new();
    for table in tables {
        let sql = format!(
            "select coalesce(string_agg(r::text || r.xmin::text, '\n' order by r::text), '') from {table} as r"
        );
        found.insert(table, sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await.unwrap());
    }
    found
}

async fn all(source: &mut dyn HistorySource) -> Vec<RecordedHistory> {
    let mut found = Vec::new();
    while let Some(recorded) = source.next().await.unwrap() {
        found.push(recorded.unwrap());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_looks_at_the_open_and_the_last_and_writes_nothing() {
    let database = TestDatabase::new().await;
    let (writing, histories) = filled(&database).await;
    let before = everything(writing.pool()).await;
    let db = read_only(&database).await;
    let report = checked(&db, 5).await;
    assert_eq!(report.diverged(), 0, "{report}");
    let runs = |kind: &str| report.rows().filter(|row| row.kind.starts_with(kind)).map(|row| row.runs).sum::<u64>();
    assert_eq!((runs("workflow "), runs("operation ")), (1 + 5, 5), "one open, and the last five of each: {report}");
    assert_eq!(all(&mut source(&db, 5)).await, histories[..6], "the open one, then the latest closed ones");
    assert_eq!(everything(writing.pool()).await, before);
    let refused = sqlx::query("delete from engine.history").execute(db.pool()).await.unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_what_was_stored_and_is_refused_when_it_is_cut_off() {
    let database = TestDatabase::new().await;
    let (db, histories) = filled(&database).await;
    let directory = tempfile::tempdir().unwrap();
    let (plain, gzip) = (directory.path().join("e.ndjson"), directory.path().join("e.ndjson.gz"));
    for path in [&plain, &gzip] {
        let mut file = ExportWriter::create(path, "embedded", "0").unwrap();
        let left_out = export(&mut source(&db, 1000), &db, 1000, &mut file).await.unwrap();
        assert!(!path.exists(), "it has its name when it is whole");
        let end = file.finish().unwrap();
        assert_eq!((end.histories, end.operations, left_out.len()), (1 + FEW as u64, 5, 0));
        let mut report = Report::default();
        let reader = ExportReader::open(path).unwrap();
        check_file(reader, &workflows().unwrap(), &CheckOptions::default(), &mut report).await.unwrap();
        assert_eq!(report, checked(&db, 1000).await);
        let found = read(path).unwrap();
        let exported = found.iter().filter_map(|line| match line {
            Exported::History(recorded) => Some(recorded.clone()),
            _ => None,
        });
        assert_eq!(exported.collect::<Vec<_>>(), histories);
    }
    // Of histories alone.
    let mut file = ExportWriter::create(&plain, "embedded", "0").unwrap();
    export(&mut source(&db, 1000), &db, 0, &mut file).await.unwrap();
    assert_eq!(file.finish().unwrap().operations, 0);
    let mut report = Report::default();
    let reader = ExportReader::open(&plain).unwrap();
    check_file(reader, &workflows().unwrap(), &CheckOptions::default(), &mut report).await.unwrap();
    assert_eq!((report.runs(), report.diverged()), (1 + FEW as u64, 0), "{report}");
    assert!(fs::metadata(&gzip).unwrap().len() < fs::metadata(&plain).unwrap().len() / 2);
    for path in [&plain, &gzip] {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 40]).unwrap();
        assert!(matches!(read(path), Err(ReplayError::Format { .. })), "{}", path.display());
    }
}

fn read(path: &Path) -> Result<Vec<Exported>, ReplayError> {
    let mut reader = ExportReader::open(path)?;
    std::iter::from_fn(|| reader.next_line().transpose()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_that_is_decided_otherwise_is_named() {
    let database = TestDatabase::new().await;
    let (db, _) = filled(&database).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("e.ndjson");
    let mut file = ExportWriter::create(&path, "embedded", "0").unwrap();
    export(&mut source(&db, 0), &db, 1000, &mut file).await.unwrap();
    file.finish().unwrap();
    // As a release would have written it whose patch also cut the name.
    let text = fs::read_to_string(&path).unwrap();
    let (before, event) = text.rsplit_once(r#""display_name":"third""#).unwrap();
    fs::write(&path, format!(r#"{before}"display_name":"thi"{event}"#)).unwrap();
    let mut report = Report::default();
    let reader = ExportReader::open(&path).unwrap();
    check_file(reader, &workflows().unwrap(), &CheckOptions::default(), &mut report).await.unwrap();
    let rows: Vec<_> = report.rows().filter(|row| row.first_divergence.is_some()).collect();
    assert_eq!(
        (rows.len(), rows[0].kind.as_str(), rows[0].runs, rows[0].identical),
        (1, "operation session/patch", 2, 1)
    );
    let first = rows[0].first_divergence.as_ref().unwrap();
    assert_eq!(
        (first.step.as_str(), first.what.as_str()),
        ("patch", "event 1, spec_changed: spec is not what was recorded")
    );
    assert!(first.source.contains("version 3"), "{first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_finds_the_histories_that_the_tables_hold() {
    let database = TestDatabase::new().await;
    let (db, histories) = filled(&database).await;
    let engine = Engine::start(db.pool().clone(), EngineOptions::default()).await.unwrap();
    let client = Client::new(engine.connection().await.unwrap(), ClientOptions::new("default").build()).unwrap();
    let found = all(&mut ClientHistories::new(client.clone(), TASK_QUEUE, 1000)).await;
    assert_eq!(found, histories);
    assert_eq!(all(&mut ClientHistories::new(client, TASK_QUEUE, 5)).await, histories[..6]);
    engine.shutdown().await;
}
