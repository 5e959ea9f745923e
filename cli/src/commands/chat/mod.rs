//! `ambient chat`: a conversation at a terminal.
//!
//! Either a line is typed, or the agent works and keys are read: one that is a letter begins a line. Elsewhere than at a terminal each line
//! of standard input is a message, and the end of it the end of the conversation.

mod conversation;
mod keys;
mod screen;
mod slash;
mod turns;
mod typist;

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;

use self::{conversation::Chat, keys::Keys, screen::Screen, typist::Typist};
use super::{
    Connection, Invocation,
    session::{attach::Reconnect, wanted::Wanted},
};
use crate::{OutputFormat, config::Environment, error::CliError, exit::Exit, output::Console};

/// Flags of `chat`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Example:\n  ambient chat --repo . --agent-type codex\n  ambient chat --session fix\n\nCtrl-C ends the turn, a second Ctrl-C leaves. The \
                  session stays: what it takes to come back is printed. /help shows what else can be typed."
)]
pub struct ChatArguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Show what calls print, in full
    #[arg(long)]
    details: bool,
    #[command(flatten)]
    reconnect: Reconnect,
}

/// The terminal of a conversation.
struct Terminal {
    screen: Screen,
    typist: Typist,
    keys: Keys,
}

pub(super) async fn run(arguments: ChatArguments, invocation: &Invocation) -> Result<Exit, CliError> {
    let Invocation { globals, environment, console } = invocation;
    if globals.output != OutputFormat::Table {
        return Err(CliError::Usage(
            "--output: a conversation is text; 'ambient session logs -o json' has its events".to_owned(),
        ));
    }
    let screen = is_a_terminal(environment).then(Screen::new);
    let console = match &screen {
        Some(screen) => {
            let color = !globals.no_color && !environment.no_color;
            Arc::new(Console::shared(screen, screen.redraws(), color, globals.quiet))
        }
        None => console.clone(),
    };
    let shared = Invocation { globals: globals.clone(), environment: environment.clone(), console: console.clone() };
    let connection = Connection::new(&shared)?;
    let (session, is_new) = arguments.wanted.open(&connection, Path::new("")).await?;
    let terminal = match screen {
        Some(screen) => Some(Terminal {
            typist: Typist::start(&screen, history(environment), console.has_colors()).await?,
            keys: Keys::new(),
            screen,
        }),
        None => None,
    };
    Chat::new(&connection, session, is_new, arguments.details, arguments.reconnect.patience(), terminal).run().await
}

/// Whether somebody sits there.
fn is_a_terminal(environment: &Environment) -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal() && !environment.dumb_terminal
}

/// Where typed messages are kept: `$XDG_STATE_HOME/ambient/chat-history`, else below `~/.local/state`.
fn history(environment: &Environment) -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| environment.home.as_ref().map(|home| home.join(".local/state")));
    state.map(|state| state.join("ambient").join("chat-history"))
}
