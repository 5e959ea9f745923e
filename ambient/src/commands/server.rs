//! `ambient server`: only the server, on a database that someone else runs.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
};

use tokio::signal::unix::{SignalKind, signal};

use super::CommandError;
use super::say::say;
use crate::{
    compose::Server,
    config::ServerConfig,
    data_dir,
    instance::{self, InstanceKind},
    keys,
    port_holder::port_holder,
    telemetry,
};

/// Project that `up` creates.
const FIRST_PROJECT: &str = "local";
/// Context that `up` writes.
const CONTEXT: &str = "local";

pub(super) async fn run(config: ServerConfig) -> Result<ExitCode, CommandError> {
    config.require_database_url()?;
    telemetry::init(config.log_format, &config.log_level)?;
    let listener = listen(config.listen)?;
    serve(config, listener, InstanceKind::Server).await
}

/// Takes the address before anything else is started, so that a taken port changes nothing.
pub(super) fn listen(listen: SocketAddr) -> Result<TcpListener, CommandError> {
    let listener = TcpListener::bind(listen).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => CommandError::PortTaken { listen, holder: port_holder(listen.port()) },
        _ => CommandError::Listen { listen, source },
    })?;
    listener.set_nonblocking(true).map_err(|source| CommandError::Listen { listen, source })?;
    Ok(listener)
}

/// Serves until SIGTERM or SIGINT.
pub(super) async fn serve(
    config: ServerConfig,
    listener: TcpListener,
    kind: InstanceKind,
) -> Result<ExitCode, CommandError> {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let address = listener.local_addr().map_err(|source| CommandError::Listen { listen: config.listen, source })?;
    let url = format!("http://{address}");
    let database = config.require_database_url()?.expose().to_owned();
    data_dir::prepare(&config.data_dir).map_err(CommandError::file(&config.data_dir))?;
    let server = Server::start(&config, &database).await?;
    if kind == InstanceKind::Up {
        server.ensure_project(FIRST_PROJECT).await?;
        write_context(&config, &url);
    }
    let ended = shutdown().map_err(|error| CommandError::Process(format!("signals: {error}")))?;
    let published = instance::publish(&config.data_dir, kind, &url).map_err(CommandError::file(&config.data_dir))?;
    tracing::info!(%url, "ready");
    say(&url);
    server.serve(listener, ended).await?;
    drop(published);
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// So that nothing has to be copied for the next command on this machine. A server without it works just as well.
pub(super) fn write_context(config: &ServerConfig, url: &str) {
    let written = keys::admin_token(&config.admin_token_file).map_err(|error| error.to_string()).and_then(|token| {
        ambient_cli::config::write_context(CONTEXT, url, &token, FIRST_PROJECT).map_err(|error| error.to_string())
    });
    match written {
        Ok(file) => tracing::info!(file = %file.display(), "wrote context '{CONTEXT}'"),
        Err(error) => tracing::warn!(error, "the context for the command line was not written"),
    }
}

/// Ends when this process is asked to end. Registered from the first call on, not from the first poll: whoever reads the URL
/// may send a signal at once.
pub(super) fn shutdown() -> io::Result<impl Future<Output = ()> + Send> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "shutting down"),
            _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "shutting down"),
        }
    })
}
