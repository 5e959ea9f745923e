//! A server with something to steal: keys, another session with a secret file, an origin that both use.

use std::{fs, path::PathBuf, sync::Arc};

use ambient_tests::TestDatabase;
use serde_json::json;

use crate::support::{Origin, Server, eventually, runner, script};

/// Stands in the victim's workspace and environment, and nowhere else.
pub(crate) const SECRET: &str = "victims-secret-72c1";

pub(crate) struct World {
    _database: TestDatabase,
    pub(crate) server: Server,
    pub(crate) origin: Origin,
    /// An idle session of somebody else.
    pub(crate) victim: String,
}

impl World {
    pub(crate) async fn new() -> Arc<Self> {
        let database = TestDatabase::new().await;
        let server = Server::start(&database, "one").await;
        server.project("hostile").await;
        let origin = Origin::new();
        let victim = server
            .session(json!({
                "project_id": "hostile", "name": "victim", "interactive": true,
                "prompt": script(&format!("umask 022; echo {SECRET} > secret.txt; echo 'written'")),
                "environment_variables": {"API_KEY": SECRET},
            }))
            .await;
        server.printed(&victim, "written").await;
        Arc::new(Self { _database: database, server, origin, victim })
    }

    /// An interactive session with a clone of the origin in `repo`.
    pub(crate) async fn attacker(self: &Arc<Self>, push_to: Option<&str>) -> Attacker {
        let output = json!({"target_branch": push_to});
        let repo = json!({"name": "repo", "url": self.origin.url(), "output": output, "auto_push": push_to.is_some()});
        let body = json!({"project_id": "hostile", "interactive": true, "repos": [repo], "prompt": script("echo 'here I am'")});
        let id = self.server.session(body).await;
        self.server.printed(&id, "here I am").await;
        Attacker { world: self.clone(), id }
    }

    /// An interactive session with this network.
    pub(crate) async fn attacker_in(self: &Arc<Self>, network: serde_json::Value) -> Attacker {
        let body = json!({"project_id": "hostile", "interactive": true, "network": network, "prompt": script("echo 'here I am'")});
        let id = self.server.session(body).await;
        self.server.printed(&id, "here I am").await;
        Attacker { world: self.clone(), id }
    }

    pub(crate) fn victims_secret_file(&self) -> PathBuf {
        self.server.session_dir(&self.victim).join("workspace/secret.txt")
    }

    /// Text that no session may ever see.
    pub(crate) fn canaries(&self) -> Vec<String> {
        let key = fs::read(self.server.data_dir().join("vault.key")).unwrap();
        vec![SECRET.to_owned(), self.server.token(), String::from_utf8_lossy(&key).trim().to_owned()]
    }
}

pub(crate) struct Attacker {
    pub(crate) world: Arc<World>,
    pub(crate) id: String,
}

impl Attacker {
    /// Has the agent run this to its end, whatever fails in it; what it printed.
    pub(crate) async fn run(&self, shell: &str) -> String {
        let over = format!("over-{}", uuid::Uuid::new_v4().simple());
        let (first, last) = over.split_at(8);
        // The script is in the log too: the mark is put together by the shell.
        let text = script(&format!("set +eu\n({shell}\n) 2>&1\necho {first}'{last}'"));
        let path = format!("/sessions/{}/messages", self.id);
        self.world.server.post(&path, json!({"text": text})).await.expect(201);
        self.world.server.printed(&self.id, &over).await;
        let printed = self.printed().await;
        printed.rsplit("over-").nth(1).unwrap_or_default().to_owned()
    }

    /// Has the agent run this, which may end its own shell too.
    pub(crate) async fn attempt(&self, shell: &str) {
        let ended = async || runner::ended(&self.world.server.events(&self.id).await).len();
        let before = ended().await;
        let path = format!("/sessions/{}/messages", self.id);
        self.world.server.post(&path, json!({"text": script(shell)})).await.expect(201);
        eventually("the turn has ended", async || (ended().await > before).then_some(())).await;
    }

    /// As [`Self::run`], and nothing was got: no `GOT`, no canary.
    pub(crate) async fn gets_nothing(&self, shell: &str) -> String {
        let printed = self.run(shell).await;
        assert!(!got(&printed), "{printed}");
        for canary in self.world.canaries() {
            assert!(!printed.contains(&canary), "{printed}");
        }
        printed
    }

    async fn printed(&self) -> String {
        self.world.server.events(&self.id).await.iter().filter_map(runner::output).collect()
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.world.server.session_dir(&self.id)
    }
}

/// Whether an attack says that it got something, in a text or in JSON. As a word of its own: ids have any letters.
pub(crate) fn got(output: &str) -> bool {
    output.replace("\\n", "\n").split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "GOT")
}

#[test]
fn an_attack_that_got_something_is_told_from_an_id() {
    for output in ["GOT", "x\nGOT the token", r#"{"text":"no\nGOT it\n"}"#] {
        assert!(got(output), "{output}");
    }
    assert!(!got("sessions/3Mo9GOTjefX6pJgsPUSxfscAiAP"));
}
