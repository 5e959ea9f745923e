//! What processes tell each other.

use uuid::Uuid;

use crate::matching::Kind;

/// Something another process may be waiting for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hint {
    Queue(Kind, String),
    Run(Uuid),
    Query(Uuid),
    /// A run with a workflow task in progress is queried: the next task takes the query along.
    Asked(Uuid),
    Clock,
    /// A process arrived or left.
    Processes,
}

impl Hint {
    pub(crate) fn write(&self) -> String {
        match self {
            Self::Queue(Kind::Workflow, name) => format!("w{name}"),
            Self::Queue(Kind::Activity, name) => format!("a{name}"),
            Self::Run(id) => format!("r{}", id.simple()),
            Self::Query(id) => format!("q{}", id.simple()),
            Self::Asked(id) => format!("k{}", id.simple()),
            Self::Clock => "c".to_owned(),
            Self::Processes => "p".to_owned(),
        }
    }

    pub(crate) fn read(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_at_checked(1)?;
        Some(match kind {
            "w" => Self::Queue(Kind::Workflow, rest.to_owned()),
            "a" => Self::Queue(Kind::Activity, rest.to_owned()),
            "r" => Self::Run(Uuid::parse_str(rest).ok()?),
            "q" => Self::Query(Uuid::parse_str(rest).ok()?),
            "k" => Self::Asked(Uuid::parse_str(rest).ok()?),
            "c" => Self::Clock,
            "p" => Self::Processes,
            _ => return None,
        })
    }
}
