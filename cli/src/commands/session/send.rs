//! `ambient session send`.

use ambient_wire::session::{Attachment, MessageAccepted, MessageCreate};
use clap::Args;

use crate::{
    client::{Client, answer::Answer, route::Route},
    commands::{Connection, input},
    error::CliError,
    exit::Exit,
};

/// Flags of `session send`.
#[derive(Debug, Clone, Args)]
pub struct Send {
    /// Id or name
    session: String,
    /// The message
    #[arg(value_name = "TEXT", conflicts_with = "file", required_unless_present = "file")]
    text: Option<String>,
    /// File with the message; - is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<std::path::PathBuf>,
    /// File of the workspace, such as hello/shot.png, or an address (https://…), that comes with the message; may be repeated
    #[arg(long = "attach", value_name = "PATH|URL")]
    attachments: Vec<String>,
    /// Start the session if it is not running
    #[arg(long)]
    start: bool,
}

pub(super) async fn send(arguments: Send, connection: &Connection) -> Result<Exit, CliError> {
    let text = input::text("TEXT", arguments.text.as_deref(), arguments.file.as_deref())?.unwrap_or_default();
    let id = connection.session_id(&arguments.session).await?;
    let attachments = arguments.attachments.iter().map(|given| attachment(given)).collect();
    let answer = post(&connection.client, &id, &MessageCreate { text, attachments, start: arguments.start }).await?;
    let accepted = |m: &MessageAccepted| {
        let seq = m.seq.map(|seq| format!(" as seq {seq}")).unwrap_or_default();
        format!("{} accepted{seq}\n", crate::output::escape::line(&m.id))
    };
    connection.object(&answer, |m: &MessageAccepted| &m.id, accepted)
}

fn attachment(given: &str) -> Attachment {
    if given.contains("://") {
        Attachment::Link { uri: given.to_owned(), name: None }
    } else {
        Attachment::File { path: given.to_owned() }
    }
}

/// Sends a message; retries still make only one message.
pub(crate) async fn post(client: &Client, id: &str, message: &MessageCreate) -> Result<Answer, CliError> {
    client.post(&Route::new(["sessions", id, "messages"]), message).await
}
