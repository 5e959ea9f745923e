//! Real agents, of the release's catalogue, with a model that follows a script.

use std::{path::PathBuf, process::Command};

use ambient_scripted_model::ScriptedModel;
use ambient_tests::TestDatabase;

use super::{Server, binary};

/// The model's key: in no word of anything else.
pub(crate) const KEY: &str = "canary-5c0de4f1";

/// Where agents are installed: once for all tests, since that takes a network and a while.
pub(crate) fn folder() -> PathBuf {
    let given = std::env::var_os("AMBIENT_TEST_AGENTS_DIR").map(PathBuf::from);
    given.unwrap_or_else(|| binary("ambient").parent().unwrap().with_file_name("tmp").join("agents"))
}

/// A server that has the agent, and the scripted model for all dialects, with a project `agents`.
pub(crate) async fn server(database: &TestDatabase, model: &ScriptedModel, agent: &str, model_name: &str) -> Server {
    let settings = vec![
        ("AMBIENT_OPENAI_URL", format!("{}/v1", model.url())),
        ("AMBIENT_OPENAI_KEY", KEY.to_owned()),
        ("AMBIENT_ANTHROPIC_URL", model.url()),
        ("AMBIENT_ANTHROPIC_KEY", KEY.to_owned()),
        ("AMBIENT_GEMINI_URL", model.url()),
        ("AMBIENT_GEMINI_KEY", KEY.to_owned()),
        ("AMBIENT_DEFAULT_MODEL", model_name.to_owned()),
    ];
    with_settings(database, agent, settings).await
}

/// A server that has the agent, and no model, with a project `agents`.
pub(crate) async fn bare_server(database: &TestDatabase, agent: &str) -> Server {
    with_settings(database, agent, Vec::new()).await
}

async fn with_settings(database: &TestDatabase, agent: &str, settings: Vec<(&'static str, String)>) -> Server {
    let mut server = Server::new(database, "one");
    server.settings = settings;
    server.settings.push(("AMBIENT_AGENTS_DIR", folder().to_string_lossy().into_owned()));
    let (data_dir, agent) = (server.data_dir(), agent.to_owned());
    let installed = tokio::task::spawn_blocking(move || {
        let mut install = Command::new(binary("ambient"));
        install.args(["agent-type", "install", &agent]).env("AMBIENT_AGENTS_DIR", folder());
        install.env("AMBIENT_DATA_DIR", data_dir).env("AMBIENT_SERVER_CONFIG", "/dev/null").output().unwrap()
    });
    let installed = installed.await.unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    server.restart().await;
    server.project("agents").await;
    server
}
