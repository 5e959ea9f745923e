//! Tool calls as an editor is told of them.

use std::collections::{BTreeMap, VecDeque};

use agent_client_protocol::v1::schema as acp;
use ambient_wire::runner_event::{Location, ToolChange, ToolContent, ToolKind, ToolStatus, content_in_words};
use serde_json::Value;

use super::prompt::fence;

/// Most calls remembered; the oldest are forgotten.
const MAX_CALLS: usize = 512;
/// Most of a call's output that the editor is shown, bytes: the end of it.
const MAX_OUTPUT: usize = 32 * 1024;

/// Calls by id.
#[derive(Debug, Default)]
pub(super) struct Tools {
    calls: BTreeMap<String, Call>,
    order: VecDeque<String>,
}

/// What an update would otherwise lose: content is told as a whole each time.
#[derive(Debug, Default)]
struct Call {
    content: Vec<ToolContent>,
    /// What it has printed, the end of it.
    output: String,
    is_cut: bool,
    /// What it has returned as text.
    returned: Option<String>,
    exit_code: Option<i32>,
    /// Whether there is output that was not told.
    is_behind: bool,
}

impl Tools {
    /// A call begins.
    pub(super) fn started(&mut self, id: &str, title: &str, change: ToolChange) -> acp::SessionUpdate {
        let call = self.call(id);
        *call = Call { content: change.content.unwrap_or_default(), ..Call::default() };
        acp::SessionUpdate::ToolCall(
            acp::ToolCall::new(id.to_owned(), title)
                .kind(kind(change.kind.unwrap_or_default()))
                .status(status(change.status.unwrap_or_default()))
                .content(call.shown())
                .locations(change.locations.iter().flatten().map(location).collect())
                .raw_input(change.input.filter(|input| !input.is_null())),
        )
    }

    /// A call has changed.
    pub(super) fn updated(&mut self, id: &str, change: ToolChange) -> acp::SessionUpdate {
        let call = self.call(id);
        let changes_content = change.content.is_some() || change.output.is_some() || change.exit_code.is_some();
        if let Some(content) = change.content {
            call.content = content;
        }
        if let Some(Value::String(output)) = &change.output {
            call.returned = Some(output.clone());
        }
        call.exit_code = change.exit_code.or(call.exit_code);
        let content = (changes_content || std::mem::take(&mut call.is_behind)).then(|| call.shown());
        call.is_behind = false;
        let fields = acp::ToolCallUpdateFields::new()
            .title(change.title)
            .kind(change.kind.map(kind))
            .status(change.status.map(status))
            .content(content)
            .locations(change.locations.map(|all| all.iter().map(location).collect::<Vec<_>>()))
            .raw_input(change.input)
            .raw_output(change.output);
        acp::SessionUpdate::ToolCallUpdate(acp::ToolCallUpdate::new(id.to_owned(), fields))
    }

    /// A call has printed something; told by [`Tools::catch_up`].
    pub(super) fn printed(&mut self, id: &str, text: &str) {
        let call = self.call(id);
        call.output.push_str(text);
        call.is_behind = true;
        if call.output.len() > MAX_OUTPUT {
            let cut = call.output.len() - MAX_OUTPUT / 2;
            let cut = (cut..call.output.len()).find(|at| call.output.is_char_boundary(*at)).unwrap_or_default();
            call.output.drain(..cut);
            call.is_cut = true;
        }
    }

    /// Whether there is output that was not told.
    pub(super) fn is_behind(&self) -> bool {
        self.calls.values().any(|call| call.is_behind)
    }

    /// Tells of output since it was last told.
    pub(super) fn catch_up(&mut self) -> Vec<acp::SessionUpdate> {
        let behind = self.calls.iter_mut().filter(|(_, call)| call.is_behind);
        let update = |(id, call): (&String, &mut Call)| {
            call.is_behind = false;
            let fields = acp::ToolCallUpdateFields::new().content(call.shown());
            acp::SessionUpdate::ToolCallUpdate(acp::ToolCallUpdate::new(id.clone(), fields))
        };
        behind.map(update).collect()
    }

    fn call(&mut self, id: &str) -> &mut Call {
        if !self.calls.contains_key(id) {
            self.order.push_back(id.to_owned());
            if self.order.len() > MAX_CALLS {
                self.order.pop_front().and_then(|oldest| self.calls.remove(&oldest));
            }
        }
        self.calls.entry(id.to_owned()).or_default()
    }
}

impl Call {
    /// All that there is to see of it. Terminals are the agent's own: their output is the call's.
    fn shown(&self) -> Vec<acp::ToolCallContent> {
        let mut shown: Vec<acp::ToolCallContent> = self.content.iter().filter_map(content).collect();
        let has_text = self.content.iter().any(|part| matches!(part, ToolContent::Text { .. }));
        let printed = if self.output.is_empty() {
            self.returned.as_deref().filter(|_| !has_text).unwrap_or_default()
        } else {
            &self.output
        };
        if !printed.is_empty() {
            let (fence, cut) = (fence(printed), if self.is_cut { "…\n" } else { "" });
            let end = if printed.ends_with('\n') { "" } else { "\n" };
            shown.push(format!("{fence}console\n{cut}{printed}{end}{fence}").into());
        }
        if let Some(code) = self.exit_code.filter(|code| *code != 0) {
            shown.push(format!("exit code {code}").into());
        }
        shown
    }
}

fn content(part: &ToolContent) -> Option<acp::ToolCallContent> {
    Some(match part {
        ToolContent::Text { text } => text.clone().into(),
        ToolContent::Diff { path, old_text, new_text, .. } => {
            acp::Diff::new(path.clone(), new_text.clone()).old_text(old_text.clone()).into()
        }
        ToolContent::Other { content } => match serde_json::from_value::<acp::ContentBlock>(content.clone()) {
            Ok(block) => acp::ToolCallContent::Content(acp::Content::new(block)),
            Err(_) => content_in_words(content).into(),
        },
        ToolContent::Terminal { .. } => return None,
    })
}

fn location(at: &Location) -> acp::ToolCallLocation {
    acp::ToolCallLocation::new(at.path.clone()).line(at.line)
}

pub(super) fn kind(kind: ToolKind) -> acp::ToolKind {
    match kind {
        ToolKind::Read => acp::ToolKind::Read,
        ToolKind::Edit => acp::ToolKind::Edit,
        ToolKind::Delete => acp::ToolKind::Delete,
        ToolKind::Move => acp::ToolKind::Move,
        ToolKind::Search => acp::ToolKind::Search,
        ToolKind::Execute => acp::ToolKind::Execute,
        ToolKind::Think => acp::ToolKind::Think,
        ToolKind::Fetch => acp::ToolKind::Fetch,
        ToolKind::SwitchMode => acp::ToolKind::SwitchMode,
        ToolKind::Push | ToolKind::Other => acp::ToolKind::Other,
    }
}

fn status(status: ToolStatus) -> acp::ToolCallStatus {
    match status {
        ToolStatus::Pending => acp::ToolCallStatus::Pending,
        ToolStatus::InProgress => acp::ToolCallStatus::InProgress,
        ToolStatus::Completed => acp::ToolCallStatus::Completed,
        ToolStatus::Failed => acp::ToolCallStatus::Failed,
    }
}
