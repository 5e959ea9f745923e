//! How an agent is told where its models are.

/// How an agent reaches the proxy.
#[derive(Clone)]
pub(crate) struct Access {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// What it gives for a key. Valid for this attempt.
    pub(crate) token: String,
    /// Model that the agent is told to ask.
    pub(crate) model: Option<String>,
}

impl Access {
    pub(crate) fn new(port: u16, token: String, model: Option<String>) -> Self {
        Self { url: format!("http://127.0.0.1:{port}"), token, model }
    }
}
