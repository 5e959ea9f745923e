//! Asking a model through the runner's proxy, and directly.
//!
//! The endpoint is the scripted one, in this process; the proxy is that of a real runner, whose agent tells how it is reached.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ambient_compute::{
    Compute, LaunchRequest, OwnLimits, Secret, SecretName, SessionRef,
    local::{LocalCompute, LocalOptions, remove_control_groups},
};
use ambient_live::RunnerClient;
use ambient_persistence::new_id;
use ambient_runner_protocol::{
    DeliverMessage, GitIdentity, ModelDialect, ModelEndpoint, PermissionPolicy, SessionPaths,
};
use ambient_scripted_model::ScriptedModel;
use reqwest::{Client, Response};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    Failure,
    interleave::{interleave, millis, percentile},
    server::{UID_BASE, end_processes_of, program, short_dir},
    table::{Pair, Table},
};

const KEY: &str = "key-of-the-endpoint";
const CALLS: usize = 300;
const ROUNDS: usize = 7;
/// Pieces of a long answer, and bytes of text in each: a fast model's, several tokens in an event.
const PIECES: u64 = 100_000;
const PIECE: u64 = 32;
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

pub(crate) async fn measure(table: &mut Table) -> Result<(), Failure> {
    let model = ScriptedModel::start(Some(KEY)).await?;
    let scene = Scene::start(&model).await?;
    let (through, direct) = (scene.way().await?, Way::new(model.url(), KEY.to_owned()));
    first_bytes(table, &through, &direct).await?;
    let long = format!("SCENARIO=long COUNT={PIECES} SIZE={PIECE}");
    let pair = interleave(ROUNDS, async || through.rate(&long).await, async || direct.rate(&long).await).await?;
    table.add("long answer of a model through the proxy", "MB/s", pair, "the same without the proxy");
    Ok(())
}

/// From the request to the first piece of its answer, over connections that have served others.
async fn first_bytes(table: &mut Table, through: &Way, direct: &Way) -> Result<(), Failure> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..=CALLS {
        let (first, second) = (through.first_byte().await?, direct.first_byte().await?);
        // The first of all opens the connections.
        if round > 0 {
            ours.push(millis(first));
            theirs.push(millis(second));
        }
    }
    for percent in [50, 99] {
        let (ours, theirs) = (percentile(&ours, percent), percentile(&theirs, percent));
        let pair = Pair { ours, theirs, ratio: ours / theirs };
        let figure = format!("first byte of a model through the proxy, p{percent} of {CALLS}");
        table.add(figure, "ms", pair, "the same without the proxy");
    }
    Ok(())
}

/// One of the two ways to the model.
struct Way {
    url: String,
    key: String,
    client: Client,
}

impl Way {
    fn new(url: String, key: String) -> Self {
        Self { url, key, client: Client::new() }
    }

    async fn ask(&self, text: &str) -> Result<Response, Failure> {
        let (messages, options) = (json!([{ "role": "user", "content": text }]), json!({ "include_usage": true }));
        let body = json!({ "model": "m", "stream": true, "stream_options": options, "messages": messages });
        let request = self.client.post(format!("{}/v1/chat/completions", self.url)).bearer_auth(&self.key).json(&body);
        Ok(request.send().await?.error_for_status()?)
    }

    async fn first_byte(&self) -> Result<Duration, Failure> {
        let began = Instant::now();
        let mut response = self.ask("SCENARIO=hello").await?;
        response.chunk().await?.ok_or("an answer without a piece")?;
        let took = began.elapsed();
        while response.chunk().await?.is_some() {}
        Ok(took)
    }

    /// Megabytes a second of an answer.
    #[allow(clippy::cast_precision_loss, reason = "sizes of a benchmark are far below 2^52")]
    async fn rate(&self, text: &str) -> Result<f64, Failure> {
        let began = Instant::now();
        let (mut response, mut bytes) = (self.ask(text).await?, 0);
        while let Some(piece) = response.chunk().await? {
            bytes += piece.len();
        }
        Ok(bytes as f64 / 1_000_000.0 / began.elapsed().as_secs_f64())
    }
}

/// A runner with a proxy.
struct Scene {
    compute: LocalCompute,
    session: SessionRef,
    paths: SessionPaths,
    dir: TempDir,
}

impl Scene {
    async fn start(model: &ScriptedModel) -> Result<Self, Failure> {
        let dir = short_dir()?;
        let data = dir.path().join("d");
        let mut options = LocalOptions::new(data.clone(), program("ambient-runner")?, "model".to_owned());
        options.session_uid_base = Some(UID_BASE + 200_000);
        let compute = LocalCompute::new(options)?;
        let session = SessionRef { project_id: new_id(), session_id: new_id() };
        let root = data.join("projects").join(&session.project_id).join("sessions").join(&session.session_id);
        compute.ensure_project(&session.project_id).await?;
        compute.ensure_workspace(&session).await?;
        let keys = json!({ "openai_chat": KEY }).to_string();
        let secrets = [
            (SecretName::ServerToRunner, "token"),
            (SecretName::RunnerToServer, "token"),
            (SecretName::ModelKeys, &keys),
        ];
        for (name, value) in secrets {
            compute.write_secret(&session, 1, name, &Secret::new(value.to_owned())).await?;
        }
        let base_urls = BTreeMap::from([(ModelDialect::OpenaiChat, format!("{}/v1", model.url()))]);
        let request = LaunchRequest {
            session: session.clone(),
            run: 1,
            attempt: 1,
            interactive: true,
            agent: "script".to_owned(),
            agent_command: None,
            model: Some(ModelEndpoint { base_urls, ..ModelEndpoint::default() }),
            permissions: PermissionPolicy::default(),
            git_identity: GitIdentity { name: "bench".to_owned(), email: "bench@localhost.invalid".to_owned() },
            limits: OwnLimits::default(),
            network: None,
            setup_script: None,
        };
        compute.launch(&request).await?;
        Ok(Self { compute, session, paths: SessionPaths { root }, dir })
    }

    /// The way through the proxy, as the agent is told of it.
    async fn way(&self) -> Result<Way, Failure> {
        let text = "```\necho \"$AMBIENT_MODEL_URL $AMBIENT_MODEL_TOKEN\" > way.new; mv way.new way\n```".to_owned();
        let message = DeliverMessage { id: "1".to_owned(), seq: 1, text, attachments: Vec::new() };
        let file = self.paths.workspace().join("way");
        let told = async {
            loop {
                if let Ok(endpoint) = self.compute.endpoint(&self.session, 1).await
                    && let Ok(client) = RunnerClient::new(endpoint.socket, "token")
                {
                    let _ = client.deliver(&message).await;
                }
                if let Ok(way) = std::fs::read_to_string(&file) {
                    return way;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let way = tokio::time::timeout(PATIENCE, told).await?;
        let (url, token) = way.trim().split_once(' ').ok_or("the agent has no way to a model")?;
        Ok(Way::new(url.to_owned(), token.to_owned()))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        end_processes_of(self.dir.path());
        remove_control_groups(&self.dir.path().join("d"));
    }
}
