//! The runner's routes through the client, with a real runner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ambient_live::{RunnerClient, RunnerClientError};
use ambient_runner_protocol::{DeliverMessage, ReaderHello, RepoSpec, RunnerFrame};
use ambient_tests::TestDatabase;
use ambient_wire::{
    git::{GitCommit, GitDiffQuery, GitPush, Submodules},
    repo::RepoOutput,
};
use futures::StreamExt;
use support::{Server, runner::Runner, tokens};

fn git(directory: &std::path::Path, arguments: &[&str]) {
    let output = std::process::Command::new("git")
        .args(["-c", "user.name=Bob", "-c", "user.email=bob@example.com", "-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn origin(runner: &Runner) -> String {
    let work = runner.directory().join("work");
    std::fs::create_dir_all(&work).unwrap();
    git(&work, &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(work.join("README.md"), "hello\n").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "--quiet", "-m", "first"]);
    let bare = runner.directory().join("origin.git");
    git(&work, &["clone", "--quiet", "--bare", ".", &bare.to_string_lossy()]);
    format!("file://{}", bare.display())
}

fn refused<T: std::fmt::Debug>(result: Result<T, RunnerClientError>) -> (u16, Option<String>) {
    match result {
        Err(RunnerClientError::Refused { error, status }) => (status, error.field),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_works_and_failures_keep_their_kind() {
    let database = TestDatabase::new().await;
    let server = Server::on(&database).await;
    let session = server.new_session(|_| {}).await;
    let mut runner = Runner::of(&session);
    let client = runner.client();
    assert!(matches!(client.health().await, Err(RunnerClientError::Unreachable(_))));
    runner.start().await;
    let health = client.health().await.unwrap();
    assert_eq!((health.session_id.as_str(), health.run, health.attempt), (session.id.as_str(), 1, 1));

    let stranger = RunnerClient::new(&runner.spec.socket, tokens().server_to_runner(&session.id, 2)).unwrap();
    assert!(matches!(stranger.repos().await, Err(RunnerClientError::Unauthorized)));
    let hello = ReaderHello { epoch: 5, log_id: String::new(), after: 0 };
    assert!(matches!(stranger.events(&hello).await, Err(RunnerClientError::Unauthorized)));

    let repo = RepoSpec {
        url: origin(&runner),
        branch: None,
        output: RepoOutput::default(),
        auto_push: false,
        main: false,
        submodules: Submodules::None,
    };
    let cloned = client.ensure_repo("code", &repo).await.unwrap();
    assert_eq!(client.repos().await.unwrap(), [cloned]);
    std::fs::write(runner.paths.workspace().join("code/ä ?#%.txt"), "0123456789").unwrap();
    assert_eq!(client.git_status("code").await.unwrap().files.len(), 1);
    let commit = GitCommit { repo: "code".to_owned(), message: "more".to_owned() };
    let committed = client.git_commit(&commit).await.unwrap().commit.unwrap();
    let of_code = GitDiffQuery { repo: Some("code".to_owned()), ..GitDiffQuery::default() };
    assert!(String::from_utf8_lossy(&client.git_diff(&of_code).await.unwrap().patch).contains("+0123456789"));
    let push = GitPush { repo: "code".to_owned(), branch: "result".to_owned() };
    assert_eq!(client.git_push(&push).await.unwrap().commit, committed);

    assert!(client.list("code").await.unwrap().entries.iter().any(|entry| entry.name == "README.md"));
    let file = client.read("code/ä ?#%.txt", Some("bytes=2-4")).await.unwrap();
    assert_eq!((file.status, file.content_length), (206, Some(3)));
    assert_eq!(file.content_range.as_deref(), Some("bytes 2-4/10"));
    assert_eq!(file.sha256.unwrap().len(), 64);
    let bytes: Vec<u8> = file.body.map(Result::unwrap).collect::<Vec<_>>().await.concat();
    assert_eq!(bytes, b"234");
    assert_eq!(refused(client.read("code/../../x", None).await), (400, Some("path".to_owned())));
    assert_eq!(refused(client.read("code/absent", None).await).0, 404);
    assert_eq!(refused(client.read("code/README.md", Some("bytes=99-")).await).0, 416);

    let mut events = client.events(&hello).await.unwrap();
    let (RunnerFrame::Welcome { log_id, .. }, _) = events.next().await.unwrap().unwrap() else { panic!() };
    assert_eq!(log_id, health.log_id);
    let mut stale = client.events(&ReaderHello { epoch: 4, ..hello }).await.unwrap();
    assert_eq!(stale.next().await.unwrap().unwrap().0, RunnerFrame::Superseded { epoch: 5 });

    client.remove_repo("code").await.unwrap();
    client.remove_repo("code").await.unwrap();

    let message = DeliverMessage { id: "m1".to_owned(), seq: 1, text: "hello".to_owned(), attachments: Vec::new() };
    assert!(client.deliver(&message).await.unwrap().new);
    assert!(!client.deliver(&message).await.unwrap().new);
    client.halt().await.unwrap();
    client.shutdown().await.unwrap();
}
