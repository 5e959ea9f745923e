//! Checks of what people say of an agent's program, in a session or in an agent's definition.

use crate::{agent_launch::AgentCommand, entity::Refusal, name::at_most};

/// Most arguments of a command.
const MAX_ARGUMENTS: usize = 100;
/// Longest argument, bytes.
const MAX_ARGUMENT: usize = 4096;

/// Checks every field of a command.
///
/// # Errors
/// A refusal that names the field.
pub(crate) fn validate_command(command: &AgentCommand) -> Result<(), Refusal> {
    argument("agent_command.program", &command.program)?;
    if command.program.trim().is_empty() {
        return Err(Refusal::invalid("agent_command.program", "must not be empty"));
    }
    at_most(MAX_ARGUMENTS, "agent_command.args", command.args.len())?;
    command.args.iter().enumerate().try_for_each(|(i, arg)| argument(&format!("agent_command.args[{i}]"), arg))?;
    let Some(directory) = &command.directory else { return Ok(()) };
    argument("agent_command.directory", directory)?;
    let is_inside =
        !directory.is_empty() && !directory.starts_with('/') && !directory.split('/').any(|part| part == "..");
    if is_inside {
        Ok(())
    } else {
        Err(Refusal::invalid("agent_command.directory", "must be a folder in the workspace, without .."))
    }
}

fn argument(field: &str, text: &str) -> Result<(), Refusal> {
    if text.contains('\0') {
        return Err(Refusal::invalid(field, "must not contain NUL"));
    }
    if text.len() > MAX_ARGUMENT {
        Err(Refusal::invalid(field, format!("at most {MAX_ARGUMENT} bytes")))
    } else {
        Ok(())
    }
}
