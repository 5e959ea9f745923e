//! Benchmarks of the product, each compared with a ceiling or a peer that is measured in the same run.
//!
//! `make bench`, `make bench-live` and `make bench-engine` run them; `figures commands engine live start model turn` some. Invariants: every measurement has a bound in
//! count and in time; ours and theirs take turns, so that a busy machine slows both; what is started here ends here.

mod bare_sockets;
mod ceiling;
mod commands;
mod domain;
mod engine;
mod hand_written;
mod interleave;
mod limits;
mod live;
mod model;
mod peer;
mod peers;
mod raw_broadcast;
mod reader;
mod resident;
mod resume;
mod rival;
mod runner;
mod scale;
mod server;
mod sockets;
mod start;
mod subscribers;
mod table;
mod turn;
mod workflow;

use std::{error::Error, process::ExitCode, time::Duration};

use table::Table;
use tokio::signal::unix::{SignalKind, signal};

/// As the program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What went wrong, in words.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// All figures together.
const PATIENCE: Duration = Duration::from_secs(600);
/// All figures; those from `MORE` on only when they are asked for.
const FIGURES: [&str; 12] = [
    "commands", "engine", "scale", "live", "start", "model", "turn", "sockets", "resume", "reader", "resident",
    "runner",
];
const MORE: usize = 7;

#[tokio::main]
async fn main() -> ExitCode {
    // cargo adds flags of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let second = arguments.get(1).map_or("", String::as_str);
    let result = match arguments.first().map(String::as_str) {
        Some(raw_broadcast::ARGUMENT) => raw_broadcast::serve().await,
        Some(scale::ARGUMENT) => scale::serve(second).await,
        Some(bare_sockets::ARGUMENT) => bare_sockets::serve(second).await,
        Some(resident::ARGUMENT) => resident::serve(second).await,
        Some(runner::ARGUMENT) => runner::serve(second).await,
        _ => bounded(&arguments).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All that was asked for; an interruption ends what was started, too.
async fn bounded(wanted: &[String]) -> Result<(), Failure> {
    if let Some(unknown) = wanted.iter().find(|wanted| !FIGURES.contains(&wanted.as_str())) {
        return Err(format!("there is no figure {unknown}; there are {}", FIGURES.join(", ")).into());
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        result = tokio::time::timeout(PATIENCE, Box::pin(all(wanted))) => result?,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}

async fn all(wanted: &[String]) -> Result<(), Failure> {
    let mut table = Table::new();
    let is_wanted = |(place, figure): &(usize, &str)| {
        if wanted.is_empty() { *place < MORE } else { wanted.iter().any(|wanted| wanted == figure) }
    };
    limits::raise_open_files(limits::OPEN_FILES)?;
    limits::check_durability().await?;
    for (_, figure) in FIGURES.into_iter().enumerate().filter(is_wanted) {
        eprintln!("measuring: {figure}");
        match figure {
            "commands" => Box::pin(commands::measure(&mut table)).await?,
            "engine" => Box::pin(engine::measure(&mut table)).await?,
            "scale" => Box::pin(scale::measure(&mut table)).await?,
            "live" => Box::pin(live::measure(&mut table)).await?,
            "start" => Box::pin(start::measure(&mut table)).await?,
            "model" => Box::pin(model::measure(&mut table)).await?,
            "turn" => Box::pin(turn::measure(&mut table)).await?,
            "sockets" => Box::pin(sockets::measure(&mut table)).await?,
            "resume" => Box::pin(resume::measure(&mut table)).await?,
            "reader" => Box::pin(reader::measure(&mut table)).await?,
            "resident" => Box::pin(resident::measure(&mut table)).await?,
            _ => Box::pin(runner::measure(&mut table)).await?,
        }
    }
    table.print();
    Ok(())
}
