//! `scripted-model`: the endpoint as a program. Prints `listening on http://…` once it does.

use std::{io::Write, net::SocketAddr, process::ExitCode};

use ambient_scripted_model::ScriptedModel;
use clap::Parser;

/// A model endpoint that follows a script.
#[derive(Parser)]
#[command(name = "scripted-model", version)]
struct Cli {
    /// Address; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Key that every request must carry.
    #[arg(long, env = "SCRIPTED_MODEL_KEY", hide_env_values = true)]
    key: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match ScriptedModel::start_at(cli.listen, cli.key.as_deref()).await {
        Ok(mut model) => {
            println!("listening on {}", model.url());
            let _ = std::io::stdout().flush();
            model.ended().await;
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("scripted-model: {}: {error}", cli.listen);
            ExitCode::FAILURE
        }
    }
}
