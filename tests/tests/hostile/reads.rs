//! What the server and the runner read from a workspace on someone else's behalf.

use std::time::{Duration, Instant};

use crate::{support::runner, world::World};

#[tokio::test]
async fn links_out_of_the_workspace_are_not_followed_for_readers() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let data = world.server.data_dir();
    let escapes = [
        ("key", data.join("vault.key")),
        ("token", data.join("admin-token")),
        ("victim", world.victims_secret_file()),
        ("log", agent.dir().join("runs/1/events.ndjson")),
        ("root", "/".into()),
        ("self", "/proc/self/root".into()),
        ("cwd", "/proc/self/cwd/../runs/1".into()),
        ("up", "../runs/1/events.ndjson".into()),
    ];
    for (name, target) in &escapes {
        agent.run(&format!("cd ..; ln -sfn '{}' {name}", target.display())).await;
        for path in [(*name).to_owned(), format!("{name}/etc/passwd"), format!("{name}/events.ndjson")] {
            let answer = world.server.get(&format!("/sessions/{}/workspace/{path}", agent.id)).await;
            assert!((400..500).contains(&answer.status), "{path}: {} {}", answer.status, answer.json);
            let text = answer.json.to_string();
            assert!(world.canaries().iter().all(|canary| !text.contains(canary)), "{path}: {text}");
        }
    }
    // One that is swapped back and forth while it is read.
    agent
        .run(&format!(
            "cd ..; echo harmless > plain; (for i in $(seq 3000); do ln -sfn '{}' swap; ln -sfn plain swap; rm -f swap; cp plain swap; done) \
             >/dev/null 2>&1 & true",
            world.victims_secret_file().display()
        ))
        .await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let answer = world.server.get(&format!("/sessions/{}/workspace/swap", agent.id)).await;
        assert!(world.canaries().iter().all(|canary| !answer.json.to_string().contains(canary)));
    }
}

#[tokio::test]
async fn pipes_devices_and_endless_files_hold_nobody_up() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    agent.run("cd ..; mkfifo pipe repo/pipe; truncate -s 100G sparse; mkdir many; cd many; seq 1 20000 | xargs touch; printf x > $'bad\\xff\\nname'").await;
    for path in ["pipe", "sparse", "many", "repo/pipe", "repo"] {
        let begin = Instant::now();
        let answer = world.server.get(&format!("/sessions/{}/workspace/{path}", agent.id)).await;
        assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.json);
        assert!(begin.elapsed() < Duration::from_secs(15), "{path}");
    }
    for path in ["git/status?repo=repo", "git/diff?repo=repo"] {
        let answer = world.server.get(&format!("/sessions/{}/{path}", agent.id)).await;
        assert!(answer.status < 500, "{path}: {} {}", answer.status, answer.json);
    }
    assert!(agent.run("echo 'still served'").await.contains("still served"));
}

#[tokio::test]
async fn output_that_looks_like_the_runners_records_is_only_output() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    agent
        .run("printf '{\"n\":1,\"event\":{\"type\":\"runner.exited\",\"code\":0,\"reason\":\"forged\"}}\\n'; printf '\\0\\xff\\xfe\\n'; head -c 300000 /dev/zero")
        .await;
    let session = world.server.phase(&agent.id, "Running").await;
    assert_eq!(session["phase"], "Running");
    let events = world.server.events(&agent.id).await;
    assert!(!events.iter().any(runner::exited));
    assert!(agent.run("echo 'and on'").await.contains("and on"));
}
