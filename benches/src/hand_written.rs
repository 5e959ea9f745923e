//! The ceiling of a command: the same five rows of a message, written by one hand-written prepared statement for just that,
//! through pgbench or on one connection. Same schema and indexes, same sizes; constants where a command has parameters.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, PgPool, postgres::PgConnectOptions};

use crate::{
    Failure,
    interleave::percentile,
    peer::{self, Bench},
};

/// How the statement is planned: once, and by key, as the lanes of an append plan theirs.
const PLANNING: [(&str, &str); 7] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("jit", "off"),
];

/// Sessions of its own in the tables of a real one.
pub(crate) struct HandWritten {
    connect: PgConnectOptions,
    pgbench: std::path::PathBuf,
    url: String,
}

impl HandWritten {
    /// Copies `model`, a session that has taken a message, for `clients` with `each` sessions. None where there is no pgbench.
    pub(crate) async fn new(
        url: &str,
        pool: &PgPool,
        model: &str,
        clients: u16,
        each: u16,
    ) -> Result<Option<Self>, Failure> {
        let Some(pgbench) = peer::find_pgbench() else { return Ok(None) };
        let ids = "(select 'hand-' || lpad(c::text, 4, '0') || '-' || lpad(i::text, 17, '0') as copy
                    from generate_series(0, $2::int - 1) c, generate_series(1, $3::int) i) k";
        for (table, key) in [("sessions", "id"), ("session_streams", "session_id"), ("session_runtime", "session_id")] {
            let columns: Vec<String> = sqlx::query_scalar(
                "select column_name::text from information_schema.columns
                 where table_schema = 'ambient' and table_name = $1 and column_name <> $2 order by ordinal_position",
            )
            .bind(table)
            .bind(key)
            .fetch_all(pool)
            .await?;
            let columns = columns.join(", ");
            let sql = format!(
                "insert into ambient.{table} ({key}, {columns}) select k.copy, {columns} from ambient.{table}, {ids} where {key} = $1"
            );
            sqlx::query(AssertSqlSafe(sql))
                .bind(model)
                .bind(i32::from(clients))
                .bind(i32::from(each))
                .execute(pool)
                .await?;
        }
        sqlx::query("create table public.model as select * from ambient.operations where entity_id = $1 order by version desc limit 1")
            .bind(model)
            .execute(pool)
            .await?;
        sqlx::query("create table public.model_event as select * from ambient.session_events where session_id = $1 and message_id is not null limit 1")
            .bind(model)
            .execute(pool)
            .await?;
        sqlx::query("create sequence public.hand_id cache 1000").execute(pool).await?;
        sqlx::query("vacuum analyze").execute(pool).await?;
        let connect: PgConnectOptions = url.parse()?;
        Ok(Some(Self { connect: connect.options(PLANNING), pgbench, url: url.to_owned() }))
    }

    /// The statement for `commands` sessions of a client.
    async fn statement(&self, client: &str, commands: u16) -> Result<String, Failure> {
        let mut connection = self.connect.connect().await?;
        let literals = "select quote_literal(encode(m.input, 'hex')), quote_literal(encode(m.events, 'hex')),
                quote_literal(encode(m.context, 'hex')), quote_literal(s.state::text), quote_literal(e.data::text)
            from public.model m join ambient.sessions s on s.id = m.entity_id, public.model_event e";
        let (input, events, context, state, data): (String, String, String, String, String) =
            sqlx::query_as(literals).fetch_one(&mut connection).await?;
        let bytes = |hex: &str| format!("'\\x{}'::bytea", hex.trim_matches('\''));
        Ok(format!(
            "with k as (select 'hand-' || lpad({client}::text, 4, '0') || '-' || lpad(i::text, 17, '0') as id,
                    'hand-' || lpad(nextval('public.hand_id')::text, 22, '0') as operation_id
                    from generate_series(1, {commands}) i),
            changed as (update ambient.sessions t set version = t.version + 1, schema_version = 1,
                    last_operation_id = k.operation_id, last_hash = sha256(k.operation_id::bytea), state = {state}::jsonb,
                    updated_at = clock_timestamp()
                from k where t.id = k.id
                returning t.id, t.version, t.project_id, k.operation_id, t.last_hash, t.updated_at as at),
            operation as (insert into ambient.operations (id, entity_kind, entity_id, version, project_id, command,
                    schema_version, input, events, context, principal, correlation_id, occurred_at, previous_hash, hash)
                select operation_id, 'session', id, version, project_id, 'SendMessage', 1, {input}, {events}, {context}, 'bench',
                    operation_id, at, last_hash, last_hash from changed),
            moved as (update ambient.session_streams s set next_seq = s.next_seq + 1 from changed c where s.session_id = c.id
                returning s.session_id, s.next_seq, c.operation_id, c.at),
            event as (insert into ambient.session_events (session_id, seq, at, type, data, message_id, run, operation_id)
                select session_id, next_seq - 1, at, 'user.message', {data}::jsonb, operation_id, 1, operation_id from moved),
            active as (update ambient.session_runtime r set last_activity_at = now() from moved m where r.session_id = m.session_id)
            select count(*) from changed",
            input = bytes(&input),
            events = bytes(&events),
            context = bytes(&context),
        ))
    }

    /// Commands a second on `clients` connections, `commands` a statement.
    pub(crate) async fn rate(&self, clients: u16, commands: u16, duration: Duration) -> Result<f64, Failure> {
        let script = self.statement(":client_id", commands).await? + ";\n";
        let options: Vec<String> = PLANNING.iter().map(|(name, value)| format!("-c {name}={value}")).collect();
        let bench = Bench { pgbench: &self.pgbench, url: &self.url, script: &script, options: &options.join(" ") };
        Ok(bench.run(clients, duration).await? * f64::from(commands))
    }

    /// Median of the times, in milliseconds, of one command at a time on one connection.
    pub(crate) async fn alone(&self, duration: Duration) -> Result<f64, Failure> {
        let sql = self.statement("0", 1).await?;
        let mut connection: PgConnection = self.connect.connect().await?;
        // A task, as a server's requests are: the main one is not the runtime's own, and each reply would wake another thread.
        let times = tokio::spawn(async move {
            let (began, mut times) = (Instant::now(), Vec::new());
            while began.elapsed() < duration {
                let asked = Instant::now();
                sqlx::query(AssertSqlSafe(sql.as_str())).fetch_one(&mut connection).await?;
                times.push(asked.elapsed().as_secs_f64() * 1_000.0);
            }
            Ok::<_, Failure>(times)
        });
        Ok(percentile(&times.await??, 50))
    }
}
