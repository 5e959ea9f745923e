//! `ambient engine drain`: nothing new is started, and what is left is listed, so that another engine can be chosen.

use std::{process::ExitCode, time::Duration};

use ambient_persistence::{Database, DatabaseOptions};
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{CommandError, Output};
use crate::commands::{first, say::say};
use crate::{
    commands::database,
    config::{ConfigFlags, ServerConfig},
    engine_choice::{left, told},
};

/// Between two checks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Flags of `engine drain`.
#[derive(Debug, Args)]
#[command(mut_args(first(&["config", "data_dir", "engine", "wait", "undo"])))]
pub struct DrainFlags {
    #[command(flatten)]
    config: Box<ConfigFlags>,
    /// Wait up to this many seconds for what is left to end
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
    /// Allow new work to start again
    #[arg(long)]
    undo: bool,
}

pub(super) async fn run(flags: DrainFlags, output: Output) -> Result<ExitCode, CommandError> {
    let config = ServerConfig::load(&flags.config)?;
    let failed = |error: &dyn std::fmt::Display| CommandError::Process(error.to_string());
    let url = database::found(&config).await?;
    let db = Database::connect(url.expose(), DatabaseOptions::default()).await.map_err(|error| failed(&error))?;
    let set = db.set_draining(!flags.undo).await.map_err(|error| failed(&error))?;
    let chosen = db.chosen_engine().await.map_err(|error| failed(&error))?;
    let Some(chosen) = chosen.filter(|_| set) else {
        return Err(CommandError::Process("no server has used this database yet: any engine may be chosen".to_owned()));
    };
    if flags.undo {
        eprintln!("new work may start again");
        return Ok(ExitCode::SUCCESS);
    }
    let deadline = Instant::now() + Duration::from_secs(flags.wait);
    let left = loop {
        let left = left(&config, &db, &chosen).await.map_err(CommandError::Process)?;
        if left.is_nothing() || Instant::now() >= deadline {
            break left;
        }
        sleep(LOOK_EVERY).await;
    };
    match output {
        Output::Json => say(json!({ "engine": chosen.engine, "drained": left.is_nothing(), "left": left })),
        Output::Table => {
            left.open.iter().for_each(|id| say(format_args!("open     {id}")));
            left.waiting.iter().for_each(|id| say(format_args!("waiting  {id}")));
        }
    }
    if left.is_nothing() {
        eprintln!("{} is empty and nothing new is started: another engine may be chosen", told(&chosen));
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{}: {left}", told(&chosen));
    eprintln!("nothing new is started; stop the running sessions, then run this again (or --undo)");
    Ok(ExitCode::FAILURE)
}
