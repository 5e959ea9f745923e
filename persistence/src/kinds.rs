//! The registry of Kinds: what has a stream of operations and a table.
//!
//! Everything that covers all Kinds uses this list: verification, re-decision, who may see an operation, what is deleted
//! with its project, which kinds the API knows. [`KINDS`] is the list as data; [`visit_kinds`] is for code that needs the types.

use ambient_domain::{Entity, Part};

use crate::{
    entity::{StoredEntity, Table, column_names},
    replay::{ReplayState, replay_of},
};

/// One line per Kind: position in the order in which tables are locked, type (by its path, so that one line is all there is to add),
/// table.
macro_rules! registry {
    ($($lock_rank:literal $kind:ty => $table:literal,)+) => {
        $(
            impl StoredEntity for $kind {
                const TABLE: &'static Table = &Table {
                    name: $table,
                    lock_rank: $lock_rank,
                    columns: &column_names::<Self, { <$kind as Entity>::COLUMNS.len() }>(<$kind as Entity>::COLUMNS),
                };
            }
        )+

        /// Every Kind.
        pub const KINDS: &[Kind] = &[$(Kind::of::<$kind>()),+];

        /// Shows a visitor every Kind's type, until it fails.
        ///
        /// # Errors
        /// The visitor's.
        pub async fn visit_kinds<V: KindVisitor>(visitor: &mut V) -> Result<(), V::Error> {
            $(visitor.visit::<$kind>().await?;)+
            Ok(())
        }
    };
}

registry! {
    0 ambient_domain::project::Project => "ambient.projects",
    1 ambient_domain::session::Session => "ambient.sessions",
    2 ambient_domain::agent::Agent => "ambient.agents",
    3 ambient_domain::repository_ref::RepositoryRef => "ambient.repository_refs",
}

// Two tables of the same rank would be locked as one, and one of them not at all.
const _: () = assert!(ranks_are_unique(KINDS), "two Kinds have the same lock rank");

/// A Kind, as data.
#[derive(Debug)]
pub struct Kind {
    /// Name in the operation log.
    pub name: &'static str,
    /// Name in the API.
    pub title: &'static str,
    /// Its table.
    pub table: &'static Table,
    /// Kinds of the API that are kept in its stream.
    pub parts: &'static [Part],
    /// An entity before its first operation.
    pub(crate) replay: fn() -> Box<dyn ReplayState>,
}

impl Kind {
    const fn of<E: StoredEntity>() -> Self {
        Self { name: E::KIND, title: E::TITLE, table: E::TABLE, parts: E::PARTS, replay: replay_of::<E> }
    }

    /// By its name in the operation log.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }
}

/// What is done with every Kind's type.
pub trait KindVisitor: Send {
    /// Why it stops.
    type Error;

    /// Sees one Kind.
    fn visit<E: StoredEntity>(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

const fn ranks_are_unique(kinds: &[Kind]) -> bool {
    let mut i = 0;
    while i < kinds.len() {
        let mut j = i + 1;
        while j < kinds.len() {
            if kinds[i].table.lock_rank == kinds[j].table.lock_rank {
                return false;
            }
            j += 1;
        }
        i += 1;
    }
    true
}
