//! DBOS: a library, its workflows run in this process and are checkpointed in the Postgres of `DATABASE_URL`.
//!
//! Started directly, not through a queue: its fast way. The database should be one of its own: DBOS makes its schema there, and
//! takes up what it finds unfinished.

#![forbid(unsafe_code)]

mod rounds;

use std::process::ExitCode;

use dbos::{Config, DBOS, WorkflowRef, step};
use rounds::{Engine, Failure, INPUT, locked};

/// As many as the ceiling of our own figures has; 10, its default, and 32 made no difference on two cores.
const CONNECTIONS: u32 = 16;

struct Dbos {
    instance: DBOS,
    three: WorkflowRef<String, String>,
}

impl Dbos {
    async fn start() -> Result<Self, Failure> {
        let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
        let config = Config { max_connections: CONNECTIONS, ..Config::new("bench", url) };
        let instance = DBOS::new(Config { app_version: Some(env!("CARGO_PKG_VERSION").to_owned()), ..config });
        let three = instance.register_workflow("three", three)?;
        instance.launch().await?;
        Ok(Self { instance, three })
    }
}

/// Three steps, one after the other.
async fn three(mut text: String) -> dbos::Result<String> {
    for _ in 0..3 {
        text = step("append", || {
            let text = text.clone();
            async { dbos::Result::Ok(text + "x") }
        })
        .await?;
    }
    Ok(text)
}

impl Engine for Dbos {
    async fn workflow(&self) -> Result<String, Failure> {
        Ok(self.three.run(INPUT.to_owned()).await?)
    }

    fn version(&self) -> String {
        locked("dbos").to_owned()
    }

    async fn end(self) -> Result<(), Failure> {
        self.instance.shutdown().await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    rounds::serve(Dbos::start()).await
}
