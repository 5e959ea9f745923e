//! The runner once more, with its rights given up, as the process that moves objects: between an origin and a mirror it has the rights on
//! those two, in the agent's repository the agent's.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    batch::{Endpoint, ObjectResult},
    pointer::{Object, is_oid},
    store::Store,
};

/// The program's name where a command is expected; its argument is a serialised [`Task`].
pub(crate) const PROGRAM: &str = "ambient:lfs";
pub(crate) const FETCH: &str = "lfs-fetch";
pub(crate) const LACKS: &str = "lfs-lacks";
pub(crate) const SEND: &str = "lfs-send";
pub(crate) const GIVE: &str = "lfs-give";
pub(crate) const TAKE: &str = "lfs-take";
const MAX_INPUT: u64 = 8 * 1024 * 1024;
/// Longest line before an object's content.
const MAX_LINE: u64 = 128;

/// Where an origin keeps its objects.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Place {
    /// Under this URL of the repository.
    Https(String),
    /// In this repository's folder.
    Folder(PathBuf),
}

/// What to move between an origin and the mirror it starts in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) origin: Place,
    pub(crate) reference: Option<String>,
    pub(crate) objects: Vec<Object>,
}

/// The outcome.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Fetched or sent; or missing, if that was the question.
    pub(crate) done: Vec<Object>,
    /// With the reason why not.
    pub(crate) failed: Vec<(Object, String)>,
    /// Why nothing more was tried.
    pub(crate) stopped: Option<String>,
}

/// Does what the first argument says, in the current directory.
///
/// # Errors
/// In words.
pub(crate) fn run(arguments: &[OsString]) -> Result<(), String> {
    let task = arguments.first().and_then(|task| task.to_str()).unwrap_or_default();
    match task {
        FETCH | LACKS | SEND => {
            let mut text = Vec::new();
            std::io::stdin().lock().take(MAX_INPUT).read_to_end(&mut text).map_err(|e| e.to_string())?;
            let order: Order = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
            let report = carry_out(task, &order);
            serde_json::to_writer(std::io::stdout().lock(), &report).map_err(|e| e.to_string())
        }
        GIVE => give(std::io::stdin().lock(), std::io::stdout().lock()).map_err(|e| e.to_string()),
        TAKE => take(std::io::stdin().lock()),
        _ => Err(format!("{PROGRAM} does not know '{task}'")),
    }
}

fn carry_out(task: &str, order: &Order) -> Report {
    let outcomes = match &order.origin {
        Place::Https(url) => over_https(task, url, order),
        Place::Folder(folder) => in_folder(task, folder, order),
    };
    let mut report = Report::default();
    match outcomes {
        Err(why) => report.stopped = Some(why),
        Ok(outcomes) => {
            for (object, outcome) in outcomes {
                match outcome {
                    Ok(true) => report.done.push(object),
                    Ok(false) => {}
                    Err(why) => report.failed.push((object, why)),
                }
            }
        }
    }
    report
}

fn over_https(task: &str, url: &str, order: &Order) -> Result<Vec<ObjectResult>, String> {
    let store = Store::make(Path::new(".")).map_err(|e| e.to_string());
    // One thread: in this process's namespaces there can be no other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let work = async {
        let endpoint = Endpoint::of_origin(url, order.reference.clone())?;
        match task {
            FETCH => endpoint.fetch(&order.objects, &store?).await,
            SEND => endpoint.send(&order.objects, &store?).await,
            _ => endpoint.lacks(&order.objects).await,
        }
    };
    let outcomes = runtime.block_on(work);
    runtime.shutdown_background();
    outcomes
}

fn in_folder(task: &str, folder: &Path, order: &Order) -> Result<Vec<ObjectResult>, String> {
    let words = |e: std::io::Error| e.to_string();
    let there = Store::open(folder).map_err(words)?;
    let find = |object: &Object| there.as_ref().map_or(Ok(None), |store| store.find(object)).map_err(words);
    let each = |act: &dyn Fn(&Object) -> Result<bool, String>| {
        order.objects.iter().map(|object| (object.clone(), act(object))).collect()
    };
    match task {
        LACKS => Ok(each(&|object| Ok(find(object)?.is_none()))),
        FETCH => {
            let here = Store::make(Path::new(".")).map_err(words)?;
            Ok(each(&|object| copy(find(object)?.ok_or("the origin does not have it")?, object, &here).map(|()| true)))
        }
        _ => {
            let here = Store::open(Path::new(".")).map_err(words)?.ok_or("there are none")?;
            let target = Store::make(folder).map_err(words)?;
            Ok(each(&|object| {
                if target.find(object).map_err(words)?.is_some() {
                    return Ok(false);
                }
                let file = here.find(object).map_err(words)?.ok_or("it is not there")?;
                copy(file, object, &target).map(|()| true)
            }))
        }
    }
}

fn copy(from: impl Read, object: &Object, to: &Store) -> Result<(), String> {
    let mut incoming = to.begin(object).map_err(|e| e.to_string())?;
    incoming.fill(from).and_then(|()| incoming.keep()).map_err(|e| e.to_string())
}

/// As the agent: the requested objects, as far as they exist, each after a line with its name and size.
fn give(asked: impl BufRead, mut out: impl Write) -> std::io::Result<()> {
    let Some(store) = Store::open(Path::new(".git"))? else { return Ok(()) };
    for line in asked.take(MAX_INPUT).lines() {
        let line = line?;
        let Some(object) = heading(&line) else { continue };
        let Some(file) = store.find(&object)? else { continue };
        writeln!(out, "{} {}", object.oid, object.size)?;
        let mut file = file.take(object.size);
        if std::io::copy(&mut file, &mut out)? != object.size {
            return Err(std::io::Error::other("an object has become shorter"));
        }
    }
    out.flush()
}

/// In the mirror: takes what was given, if it matches its name.
fn take(given: impl Read) -> Result<(), String> {
    let store = Store::make(Path::new(".")).map_err(|e| e.to_string())?;
    let mut given = BufReader::new(given);
    loop {
        let mut line = String::new();
        (&mut given).take(MAX_LINE).read_line(&mut line).map_err(|e| e.to_string())?;
        if line.is_empty() {
            return Ok(());
        }
        let object =
            line.strip_suffix('\n').and_then(heading).ok_or("the agent's objects are not as they should be")?;
        let why = |e: String| format!("object {}: {e}", object.oid);
        copy((&mut given).take(object.size), &object, &store).map_err(why)?;
    }
}

/// An object as given in a line.
pub(crate) fn line(object: &Object) -> String {
    format!("{} {}\n", object.oid, object.size)
}

fn heading(line: &str) -> Option<Object> {
    let (oid, size) = line.split_once(' ').filter(|(oid, _)| is_oid(oid))?;
    Some(Object { oid: oid.to_owned(), size: size.parse().ok()? })
}
