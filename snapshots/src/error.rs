//! What can go wrong with the store.

/// Why a pack could not be stored or had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there.
    #[error("the pack is not in the snapshot store")]
    NotFound,
    /// The store cannot be used right now.
    #[error("the snapshot store cannot be used: {0}")]
    Unavailable(String),
    /// A limit.
    #[error("{0}")]
    TooLarge(String),
    /// Something of ours: a folder, a name.
    #[error("{0}")]
    Local(String),
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound,
            other => {
                let why = one_line(&other);
                tracing::warn!(why, "the snapshot store cannot be used");
                // Users are told of it; the server's own folders are none of their business.
                let is_folder = why.contains("LocalFileSystem");
                Self::Unavailable(if is_folder { "the server's log says why".to_owned() } else { why })
            }
        }
    }
}

/// An error with its causes, on one line and not endless: a store's answer may be a page.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = inner.source();
    }
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(500).collect()
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        Self::Local(format!("a file of the snapshot store: {error}"))
    }
}
