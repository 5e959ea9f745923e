//! `ambient replay check` and `export`: they appear next to the client's `replay verify`, which talks to a server and cannot know this
//! program's workflows.

use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, FromArgMatches as _};

use super::{CheckFlags, CommandError, ExportFlags, Output};

/// One of the commands, as given.
#[derive(Debug)]
pub enum ReplayCommand {
    /// `replay check`.
    Check(CheckFlags),
    /// `replay export`.
    Export(ExportFlags),
}

impl ReplayCommand {
    /// Adds the commands to the client's `replay`.
    #[must_use]
    pub fn beside_verify(command: Command) -> Command {
        let check =
            "Replay stored histories and operations against this program; exits with 3 if it decides differently";
        let export = "Write workflow histories and operations to a file, for 'ambient replay check' elsewhere";
        let check = CheckFlags::augment_args(Command::new("check")).about(check);
        let export = ExportFlags::augment_args(Command::new("export")).about(export);
        command.mut_subcommand("replay", |replay| replay.subcommand(check).subcommand(export))
    }

    /// The command, if one of them was given.
    ///
    /// # Errors
    /// When a flag is wrong.
    pub fn given(matches: &ArgMatches) -> Option<Result<Self, clap::Error>> {
        match matches.subcommand_matches("replay")?.subcommand()? {
            ("check", flags) => Some(CheckFlags::from_arg_matches(flags).map(Self::Check)),
            ("export", flags) => Some(ExportFlags::from_arg_matches(flags).map(Self::Export)),
            _ => None,
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// When the check cannot run or the file cannot be written.
    pub async fn run(self, output: Output) -> Result<ExitCode, CommandError> {
        match self {
            Self::Check(flags) => flags.run(output).await,
            Self::Export(flags) => super::export::run(&flags, output).await,
        }
    }
}
