//! Restate: the server of `RESTATE_SERVER` as a process of its own, a service of its Rust SDK in this one, calls over HTTP.
//!
//! The server's own mode is kept: one node whose log is written through to the disk before an entry counts. Its data are in a
//! directory that ends with it.
//!
//! The steps are blocks of the workflow's own handler (`run`), or with the argument `calls` calls of another service, which the
//! server puts through to it, tries again by itself, and might put through to another process.

#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "of a method that the macro makes")]

mod rounds;
mod server;

use std::process::ExitCode;

use reqwest::Client;
use restate_sdk::prelude::{Context, ContextClient, ContextSideEffects, Endpoint, HandlerError, HttpServer, RunFuture};
use rounds::{Engine, Failure, INPUT, locked};
use server::Server;
use tokio::{net::TcpListener, task::JoinHandle};

struct Three;

#[restate_sdk::service]
impl Three {
    /// Three steps, one after the other.
    #[handler]
    async fn run(&self, context: Context<'_>, mut text: String) -> Result<String, HandlerError> {
        for _ in 0..3 {
            text = context.run(|| async move { Ok(text + "x") }).name("append").await?;
        }
        Ok(text)
    }
}

struct Calling;

#[restate_sdk::service]
impl Calling {
    /// Three calls, one after the other.
    #[handler]
    async fn run(&self, context: Context<'_>, mut text: String) -> Result<String, HandlerError> {
        for _ in 0..3 {
            text = context.service_client::<StepClient>().append(text).call().await?;
        }
        Ok(text)
    }
}

struct Step;

#[restate_sdk::service]
impl Step {
    /// A step as a service.
    #[handler]
    async fn append(&self, _: Context<'_>, text: String) -> Result<String, HandlerError> {
        Ok(text + "x")
    }
}

struct Restate {
    server: Server,
    service: JoinHandle<()>,
    http: Client,
    call: String,
}

impl Restate {
    async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let workflow = match std::env::args().nth(1).as_deref() {
            None => "Three",
            Some("calls") => "Calling",
            Some(other) => return Err(format!("not calls: {other}").into()),
        };
        let services = Endpoint::builder().bind(Three).bind(Calling).bind(Step).build();
        let service = tokio::spawn(HttpServer::new(services).serve(listener));
        // Connections are kept: one for each that is in flight.
        let http = Client::builder().no_proxy().tcp_nodelay(true).build()?;
        let server = Server::start(&http).await?;
        server.register(&http, address).await?;
        let call = format!("http://{}/{workflow}/run", server.ingress);
        Ok(Self { server, service, http, call })
    }
}

impl Engine for Restate {
    async fn workflow(&self) -> Result<String, Failure> {
        let answer = self.http.post(&self.call).json(INPUT).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    fn version(&self) -> String {
        format!("{}, restate-sdk {}", self.server.version, locked("restate-sdk"))
    }

    async fn end(self) -> Result<(), Failure> {
        self.service.abort();
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    rounds::serve(Restate::start()).await
}
