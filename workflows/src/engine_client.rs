//! The client of the engine that runs the workflows. An embedded engine's is there from the start; a cluster's appears when the cluster
//! does.

use temporalio_client::Client;
use tokio::sync::watch;

/// A client, or why there is none yet. Clones see the same.
#[derive(Clone)]
pub struct EngineClient(watch::Receiver<Result<Client, String>>);

impl EngineClient {
    /// A client that is there.
    #[must_use]
    pub fn ready(client: Client) -> Self {
        // What was sent stays readable when the sender is gone.
        Self(watch::channel(Ok(client)).1)
    }

    pub(crate) fn awaited(receiver: watch::Receiver<Result<Client, String>>) -> Self {
        Self(receiver)
    }

    /// The client.
    ///
    /// # Errors
    /// Why there is none yet, for people.
    pub fn get(&self) -> Result<Client, String> {
        self.0.borrow().clone()
    }

    /// The client, once it is there. Waits forever if nobody is connecting any more.
    pub async fn connected(&self) -> Client {
        let mut receiver = self.0.clone();
        loop {
            if let Ok(client) = self.get() {
                return client;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
