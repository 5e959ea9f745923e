//! Runs every case on both engines and compares. Without a Temporal server (`AMBIENT_TEST_TEMPORAL`, see `make conformance`) only the
//! embedded engine is run and the comparison is reported as skipped; with `AMBIENT_REQUIRE_TEMPORAL` a skip is a failure.
//!
//! Arguments: parts of case names, or seeds as `seed=7`; `--seeds N` random programs (default 20); `--show` prints the
//! programs and runs nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::{process::ExitCode, sync::Arc, time::Instant};

use ambient_conformance::{backend::Backend, case::Case, cases, random::random};
use futures::{StreamExt as _, stream};

/// Cases under way at once.
const AT_ONCE: usize = 8;
/// Random programs when nobody says how many.
const SEEDS: u64 = 20;

struct Both {
    embedded: Backend,
    temporal: Option<Backend>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run())
}

async fn run() -> ExitCode {
    let cases = chosen(std::env::args().skip(1).collect());
    if cases.is_empty() {
        return ExitCode::SUCCESS;
    }
    let address = std::env::var("AMBIENT_TEST_TEMPORAL").ok().filter(|address| !address.is_empty());
    let required = std::env::var("AMBIENT_REQUIRE_TEMPORAL").is_ok_and(|value| !value.is_empty());
    let temporal = match &address {
        Some(address) => Some(Backend::temporal(address).await),
        None => None,
    };
    let both = Arc::new(Both { embedded: Backend::embedded().await, temporal });
    let began = Instant::now();
    let total = cases.len();
    let suspects: Vec<_> = stream::iter(cases)
        .map(|case| {
            let both = Arc::clone(&both);
            async move { compare(&case, &both).await.map(|difference| (case, difference)) }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|suspect| async { suspect })
        .collect()
        .await;
    let mut failed = 0;
    for (case, difference) in suspects {
        // Beside others a slow server may take a timeout of a case for over: what differs is run once more, alone.
        println!("test {} ... differs, once more:\n{difference}\n", case.name);
        let again = Case { name: format!("{} again", case.name), ..case };
        match compare(&again, &both).await {
            None => println!("test {} ... ok", again.name),
            Some(difference) => {
                println!("test {} ... FAILED\n{difference}\n", again.name);
                failed += 1;
            }
        }
    }
    if let Ok(both) = Arc::try_unwrap(both).map_err(drop) {
        both.embedded.end().await;
        if let Some(temporal) = both.temporal {
            temporal.end().await;
        }
    }
    if address.is_none() {
        println!("\nskipped: no Temporal server; the embedded engine ran alone");
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {seconds:.2}s",
        total - failed
    );
    let skipped = required && address.is_none();
    if failed > 0 || skipped { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn compare(case: &Case, both: &Both) -> Option<String> {
    let Some(temporal) = &both.temporal else { return case.run(&both.embedded).await.err() };
    let (ours, theirs) = tokio::join!(case.run(&both.embedded), case.run(temporal));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => ours.difference(&theirs, case.loose),
        (ours, theirs) => Some([ours.err(), theirs.err()].into_iter().flatten().collect::<Vec<_>>().join("\n")),
    }
}

/// The cases that the arguments ask for. Arguments of the test harness are passed over.
fn chosen(arguments: Vec<String>) -> Vec<Case> {
    let mut arguments = arguments.into_iter();
    let (mut names, mut seeds, mut one_seed, mut list) = (Vec::new(), SEEDS, Vec::new(), false);
    let mut show = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => seeds = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(SEEDS),
            "--list" => list = true,
            "--show" => show = true,
            other => match other.strip_prefix("seed=").map(str::parse::<u64>) {
                Some(seed) => one_seed.extend(seed),
                None if other.starts_with('-') => {}
                None => names.push(other.to_owned()),
            },
        }
    }
    let all = cases::all().into_iter().chain((0..seeds).map(random));
    let wanted = |case: &Case| names.is_empty() || names.iter().any(|name| case.name.contains(name.as_str()));
    let wanted: Vec<Case> =
        if one_seed.is_empty() { all.filter(wanted).collect() } else { one_seed.into_iter().map(random).collect() };
    if show {
        wanted.iter().for_each(|case| println!("{}: {:#}", case.name, serde_json::to_value(&case.op).unwrap()));
        return Vec::new();
    }
    if list {
        wanted.iter().for_each(|case| println!("{}: test", case.name));
        return Vec::new();
    }
    wanted
}
