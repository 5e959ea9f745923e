//! A model endpoint that follows a script, for tests and demonstrations: it needs no network, costs nothing, and says the same every time.
//!
//! It speaks the dialects of OpenAI (chat completions and responses), Anthropic (messages) and Gemini (`generateContent`), streamed or
//! whole. The newest text of the user that contains `SCENARIO=name` chooses what it says ([`scenario`]); the number of tool results after
//! that text is the step. Tools are called by the names and arguments that the agent declares. Texts without a scenario, such as requests
//! for a title, get a short answer.
//!
//! It remembers every request with its headers, and whether the client closed the connection before the answer was whole: [`Seen`],
//! also at `GET /seen`.

mod conversation;
mod dialect;
mod figures;
mod lines;
mod play;
pub mod scenario;
mod seen;
mod serve;
mod tools;

use std::{net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, task::JoinHandle};

pub use figures::Figures;
use seen::Calls;
pub use seen::{Ending, Seen};

/// A running endpoint; it ends with this.
pub struct ScriptedModel {
    address: SocketAddr,
    calls: Arc<Calls>,
    server: JoinHandle<()>,
}

impl ScriptedModel {
    /// Starts one on a port of the loopback interface that the system chooses. With a key, requests without it get 401.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(key: Option<&str>) -> std::io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), key).await
    }

    /// Starts one at an address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start_at(address: SocketAddr, key: Option<&str>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let calls = Arc::new(Calls::default());
        let server = tokio::spawn(serve::serve(listener, calls.clone(), key.map(str::to_owned)));
        Ok(Self { address, calls, server })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address`, without a path: agents of OpenAI's dialects add `/v1` to it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every call so far, oldest first; the last 1000.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.calls.all()
    }

    /// Waits until the calls satisfy a condition, and returns them.
    pub async fn until(&self, condition: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        self.calls.until(condition).await
    }

    /// Waits until the endpoint ends, which it does not by itself.
    pub async fn ended(&mut self) {
        // An end by cancellation or panic is an end.
        let _ = (&mut self.server).await;
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.server.abort();
    }
}
