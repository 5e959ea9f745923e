//! Removing the workspace of a session that is over, and the run after that.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::{fs, time::Duration};

use ambient_compute::{Compute, ComputeError};
use harness::{Host, begin, session, start};

/// What an agent may have made of its home: folders that nobody may enter, a link out, and its own folder closed.
const HOSTILE: &str = "mkdir -p $HOME/a/b/c; ln -s / $HOME/a/root; echo x > $HOME/a/b/c/f; chmod 000 $HOME/a/b; \
                       head -c 300000 /dev/zero > zeros; echo ready; chmod 500 $HOME";

#[tokio::test]
async fn a_workspace_goes_as_a_whole_when_nothing_of_it_lives_and_the_next_run_has_a_new_one() {
    let host = Host::new();
    let (compute, s) = (host.compute(), session("a"));
    let paths = host.paths(&s);
    assert_eq!(compute.remove_workspace(&s, 1).await.unwrap(), Some(0), "there is none");
    let client = start(&compute, &s, 1, 1).await;
    begin(&client, "m", HOSTILE).await;
    let early = compute.remove_workspace(&s, 1).await;
    assert!(matches!(early, Err(ComputeError::Invalid(_))), "its fence is not raised: {early:?}");
    compute.raise_fence(&s, 1).await.unwrap();
    let alive = compute.remove_workspace(&s, 1).await;
    assert!(matches!(alive, Err(ComputeError::Remains { .. })), "{alive:?}");
    assert!(paths.workspace().join("zeros").exists());
    compute.terminate(&s, 1, Duration::from_secs(1)).await.unwrap();
    compute.prove_absent(&s, 1).await.unwrap();

    // Somebody died in the midst of it: some is aside, some is not.
    let aside = paths.root.join("removed/earlier");
    fs::create_dir_all(&aside).unwrap();
    fs::rename(paths.repos(), aside.join("repos")).unwrap();
    let removed = compute.remove_workspace(&s, 1).await.unwrap().unwrap();
    assert!(removed >= 300_000, "{removed}");
    for gone in [paths.workspace(), paths.home(), paths.repos(), paths.mirrors(), paths.root.join("removed")] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    assert!(!paths.event_log(1).exists() && fs::read_to_string(paths.said(1)).unwrap().contains("turn.started"));
    assert!(paths.launch(1, 1).exists(), "what proves its absence stays");
    compute.prove_absent(&s, 1).await.unwrap();
    compute.remove_workspace(&s, 1).await.unwrap().unwrap();
    assert!(fs::read_to_string(paths.said(1)).unwrap().contains("turn.started"), "a repetition takes nothing more");

    let client = start(&compute, &s, 2, 1).await;
    begin(&client, "m2", "ls -A > seen; ls -A $HOME >> seen; echo new > mine; echo ready").await;
    assert_eq!(compute.remove_workspace(&s, 1).await.unwrap(), None, "whoever is late does nothing to the new run");
    assert_eq!(fs::read_to_string(paths.workspace().join("mine")).unwrap(), "new\n");
    assert!(!fs::read_to_string(paths.workspace().join("seen")).unwrap().contains("zeros"));
    assert!(host.started(&s, 2, 1).pid > 0);
}
