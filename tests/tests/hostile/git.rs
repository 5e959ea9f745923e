//! What an agent's repository can make git do for others.

use std::{fs, sync::Arc};

use serde_json::json;

use crate::{
    support::{clean_command, eventually, script, short_dir},
    world::{Attacker, SECRET, World, got},
};

/// A program that writes beside itself what it can read, and plants what it can write.
fn payload(world: &World) -> String {
    format!(
        "#!/bin/sh\nexec 2>/dev/null\n\
         (id; ls -A '{data}'; cat '{data}/vault.key' '{data}/admin-token' '{secret}') >> \"$0.log\"\n\
         touch '{origin}/planted'; touch '{origin}/hooks/pre-receive'; rm -f '{origin}/refs/heads/others'\nexit 1",
        data = world.server.data_dir().display(),
        secret = world.victims_secret_file().display(),
        origin = world.origin.path().display(),
    )
}

impl Attacker {
    /// Pushes the checked-out commit as a person would.
    async fn push(&self, branch: &str) -> (u16, String) {
        let path = format!("/sessions/{}/git/push", self.id);
        let answer = self.world.server.post(&path, json!({"repo": "repo", "branch": branch})).await;
        (answer.status, answer.json.to_string())
    }

    /// Every way by which people and the platform have git read the repository.
    async fn looked_at(&self) {
        for path in ["git/status?repo=repo", "git/diff?repo=repo", "repos/status"] {
            self.world.server.get(&format!("/sessions/{}/{path}", self.id)).await;
        }
        let path = format!("/sessions/{}/git/commit", self.id);
        self.world.server.post(&path, json!({"repo": "repo", "message": "a commit"})).await;
        self.push("attack").await;
    }

    /// The origin is as it was but for branches the session may push to, and nothing was read.
    async fn got_nowhere(&self) {
        let origin = self.world.origin.path();
        assert!(!origin.join("planted").exists(), "the origin was written to");
        assert!(!origin.join("hooks/pre-receive").exists(), "a hook was planted");
        assert_eq!(self.world.origin.file("main", "log.txt"), "start\n");
        assert_eq!(self.world.origin.file("others", "log.txt"), "start\n");
        self.gets_nothing("cat ../evil.sh.log 2>/dev/null").await;
    }
}

/// A world whose origin everyone may write to, with a branch of somebody else's.
async fn scene() -> Arc<World> {
    let world = World::new().await;
    world.origin.git(&world.origin.path(), &["branch", "others", "main"]);
    world.origin.open_to_everyone();
    world
}

/// An agent in such a world, with a clone.
async fn agent_in_a_scene() -> Attacker {
    scene().await.attacker(None).await
}

/// The program as `$E`.
fn program_on_disk(world: &World) -> String {
    format!("cat > ../evil.sh <<'END'\n{}\nEND\nchmod 755 ../evil.sh; E=$(cd ..; pwd)/evil.sh", payload(world))
}

#[tokio::test]
async fn a_missing_object_is_fetched_by_nobody_with_more_rights() {
    let agent = agent_in_a_scene().await;
    let world = &agent.world;
    agent
        .run(&format!(
            "{}\n\
             echo more >> log.txt; git commit -qam more; lost=$(git rev-parse HEAD:log.txt)\n\
             echo again >> log.txt; git commit -qam again\n\
             git config core.repositoryformatversion 1; git config extensions.partialClone evil\n\
             git config remote.evil.promisor true; git config remote.evil.url \"file://$PWD\"\n\
             git config remote.evil.uploadpack \"$E\"\n\
             rm -f .git/objects/$(echo $lost | sed 's,^..,&/,')",
            program_on_disk(world)
        ))
        .await;
    // An object that is in no working tree: a snapshot would write it again.
    agent.push("attack").await;
    agent.got_nowhere().await;
    agent.looked_at().await;
    agent.got_nowhere().await;
}

#[tokio::test]
async fn programs_named_by_a_repositorys_configuration_get_no_further_than_the_agent() {
    let agent = agent_in_a_scene().await;
    let world = &agent.world;
    agent
        .run(&format!(
            "{}\n\
             git config remote.origin.uploadpack \"$E\"; git config remote.origin.receivepack \"$E\"\n\
             git config core.fsmonitor \"$E\"; git config core.sshCommand \"$E\"; git config core.gitProxy \"$E\"; git config core.askPass \"$E\"\n\
             git config core.pager \"$E\"; git config core.editor \"$E\"; git config diff.external \"$E\"; git config credential.helper \"!$E\"\n\
             git config gpg.program \"$E\"; git config commit.gpgSign true; git config push.gpgSign true; git config core.alternateRefsCommand \"$E\"\n\
             git config filter.evil.clean \"$E\"; git config filter.evil.smudge \"$E\"; git config filter.evil.process \"$E\"; git config filter.evil.required true\n\
             git config diff.evil.textconv \"$E\"; git config merge.evil.driver \"$E\"; git config trailer.x.command \"$E\"\n\
             git config uploadpack.packObjectsHook \"$E\"; git config core.hooksPath \"$(cd ..; pwd)/hooks\"\n\
             mkdir -p ../hooks .git/hooks; for h in pre-commit commit-msg post-commit pre-push post-checkout reference-transaction post-index-change; do cp ../evil.sh ../hooks/$h; cp ../evil.sh .git/hooks/$h; done\n\
             echo '* filter=evil diff=evil merge=evil' > .gitattributes; cp .gitattributes .git/info/attributes\n\
             echo more >> log.txt; git -c core.hooksPath=/dev/null -c commit.gpgSign=false -c filter.evil.required=false commit -qam more\n\
             git config --list | wc -l",
            program_on_disk(world)
        ))
        .await;
    agent.looked_at().await;
    agent.got_nowhere().await;
}

#[tokio::test]
async fn a_push_goes_where_it_is_said_to_go() {
    let agent = agent_in_a_scene().await;
    let world = &agent.world;
    agent
        .run(&format!(
            "git init -q --bare ../fake.git; F=\"file://$(cd ..; pwd)/fake.git\"\n\
             git config url.\"$F\".insteadOf '{url}'; git config url.\"$F\".pushInsteadOf '{url}'\n\
             git config remote.origin.url \"$F\"; git config remote.origin.pushurl \"$F\"; git config --add remote.origin.push '+HEAD:refs/heads/others'\n\
             git config --global url.\"$F\".insteadOf '{url}'; git config branch.main.pushRemote fake\n\
             echo more >> log.txt; git commit -qam more",
            url = world.origin.url()
        ))
        .await;
    let (status, answer) = agent.push("mine").await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(world.origin.file("mine", "log.txt"), "start\nmore\n", "it was said to be pushed");
    agent.got_nowhere().await;
}

#[tokio::test]
async fn a_push_moves_one_branch_forward_and_nothing_else() {
    let agent = agent_in_a_scene().await;
    let world = &agent.world;
    agent.run("git checkout -q --orphan other; git commit -qm unrelated; git tag evil; git update-ref refs/heads/extra HEAD; git config push.followTags true; git config remote.origin.mirror true").await;
    for branch in ["main", "others"] {
        let (status, answer) = agent.push(branch).await;
        assert_eq!(status, 409, "{answer}");
    }
    for branch in ["+main", "a:main", "refs/heads/../x", ":main", "-d", "*"] {
        let (status, answer) = agent.push(branch).await;
        assert!((400..500).contains(&status), "{branch}: {status} {answer}");
    }
    agent.got_nowhere().await;
    let refs = world.origin.git(&world.origin.path(), &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/heads/main\nrefs/heads/others\n");
}

#[tokio::test]
async fn an_origins_own_configuration_runs_nothing() {
    let world = scene().await;
    let hooks = world.origin.path().join("evil-hooks");
    fs::create_dir(&hooks).unwrap();
    let log = world.origin.path().join("evil.log");
    let program =
        format!("#!/bin/sh\n(id; cat '{}') >> '{}' 2>&1\n", world.victims_secret_file().display(), log.display());
    for hook in ["pre-receive", "update", "post-update", "post-receive", "reference-transaction", "proc-receive"] {
        world_executable(&hooks.join(hook), &program);
        world_executable(&world.origin.path().join("hooks").join(hook), &program);
    }
    let run = hooks.join("update").display().to_string();
    for (key, value) in [
        ("core.hooksPath", hooks.to_str().unwrap()),
        ("core.fsmonitor", &run),
        ("core.alternateRefsCommand", &run),
        ("uploadpack.packObjectsHook", &run),
        ("core.sshCommand", &run),
    ] {
        world.origin.git(&world.origin.path(), &["config", key, value]);
    }
    world.origin.open_to_everyone();
    let agent = world.attacker(None).await;
    agent.run("echo more >> log.txt; git commit -qam more").await;
    let (status, answer) = agent.push("mine").await;
    assert_eq!(status, 200, "{answer}");
    assert!(!log.exists(), "{}", fs::read_to_string(&log).unwrap_or_default());
}

fn world_executable(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn objects_and_work_trees_elsewhere_open_nothing() {
    let agent = agent_in_a_scene().await;
    let world = &agent.world;
    let data = world.server.data_dir();
    let victim = world.server.session_dir(&world.victim).join("workspace");
    agent
        .run(&format!(
            "printf '/\\n{0}\\n{1}\\n' >> .git/objects/info/alternates; git config core.worktree '{1}'\n\
             git config include.path '{0}/vault.key'; git config core.excludesFile '{0}/admin-token'; git config core.attributesFile '{0}/vault.key'\n\
             git config commit.template '{1}/secret.txt'; git config mailmap.file '{1}/secret.txt'; git config blame.ignoreRevsFile '{1}/secret.txt'",
            data.display(),
            victim.display()
        ))
        .await;
    agent.looked_at().await;
    agent.run(&format!("rm -rf .git; echo 'gitdir: {}' > .git", world.origin.path().display())).await;
    agent.looked_at().await;
    agent.run(&format!("cd ..; rm -rf repo; ln -s '{}' repo", victim.display())).await;
    agent.looked_at().await;
    let listed = world.server.get(&format!("/sessions/{}/workspace/repo", agent.id)).await;
    assert!(!listed.json.to_string().contains("secret.txt"), "{}", listed.json);
    agent.got_nowhere().await;
}

#[tokio::test]
async fn an_origin_in_or_around_what_is_ours_is_refused() {
    let world = scene().await;
    let data = world.server.data_dir();
    let victim = world.server.session_dir(&world.victim).join("workspace");
    let linked = world.origin.path().with_file_name("linked.git");
    std::os::unix::fs::symlink(&data, &linked).unwrap();
    let around = world.server.dir.path();
    for origin in
        [data.as_path(), &victim, &linked, around, &linked.join("projects"), "/".as_ref(), &data.join("postgres")]
    {
        let repo = json!({"name": "repo", "url": format!("file://{}", origin.display())});
        let body = json!({"project_id": "hostile", "repos": [repo], "prompt": "```sh\nls -A repo && echo G\"\"OT\n```", "start": true});
        let answer = world.server.post("/sessions", body).await;
        if answer.status == 201 {
            let id = answer.json["id"].as_str().unwrap().to_owned();
            world.server.phase(&id, "Failed").await;
            let events = world.server.events(&id).await;
            assert!(events.iter().all(|event| !got(&event.to_string())), "{}", origin.display());
        } else {
            assert_eq!(answer.status, 400, "{}: {}", origin.display(), answer.json);
        }
    }
}

#[tokio::test]
async fn what_one_session_pushes_reaches_no_further_through_another() {
    let agent = agent_in_a_scene().await;
    // Files with git's own names, attributes and links in the tree itself.
    agent
        .run(
            "git config core.protectNTFS false; git config core.protectHFS false\n\
             b=$(printf '[core]\\n\\thooksPath = evil\\n' | git hash-object -w --stdin); t=$(printf '100644 blob %s\\tconfig\\n' $b | git mktree)\n\
             r=$(printf '040000 tree %s\\t.git\\n' $t | git mktree --missing); c=$(git commit-tree $r -p HEAD -m planted); git update-ref refs/heads/main $c",
        )
        .await;
    let (status, answer) = agent.push("mine").await;
    assert!(status >= 400, "a tree with .git in it was taken: {answer}");
    agent.got_nowhere().await;
}

#[tokio::test]
async fn objects_that_a_clone_borrows_cannot_be_changed_through_it() {
    let agent = agent_in_a_scene().await;
    agent
        .gets_nothing(
            "for from in $(cat .git/objects/info/alternates 2>/dev/null); do\n\
             find $from/.. -type f | while read -r file; do\n\
             chmod u+w $file 2>/dev/null && echo GOT $file; (echo x >> $file) 2>/dev/null && echo GOT $file\n\
             ln $file ../hard 2>/dev/null && echo GOT a hard link; rm -f ../hard; rm -f $file 2>/dev/null && echo GOT $file; done\n\
             touch $from/planted $from/../planted $from/info/alternates 2>/dev/null && echo GOT planted\n\
             mv $from ../moved 2>/dev/null && echo GOT moved; done\n\
             true",
        )
        .await;
    agent.run("git fsck --full && echo more >> log.txt && git commit -qam more").await;
    let (status, answer) = agent.push("mine").await;
    assert_eq!(status, 200, "{answer}");
    agent.got_nowhere().await;
}

#[tokio::test]
async fn a_repository_is_not_put_where_the_agent_points() {
    let agent = agent_in_a_scene().await;
    let world = &agent.world;
    let victim = world.server.session_dir(&world.victim).join("workspace");
    agent
        .run(&format!(
            "cd ..; ln -s '{}' one; ln -s '{}/new' two; mkfifo three; touch four",
            victim.display(),
            victim.display()
        ))
        .await;
    for name in ["one", "two", "three", "four"] {
        let path = format!("/sessions/{}/repos", agent.id);
        let answer = world.server.post(&path, json!({"name": name, "url": world.origin.url()})).await;
        assert!(answer.status < 500, "{name}: {} {}", answer.status, answer.json);
    }
    agent.run("sleep 2").await;
    let files: Vec<_> = fs::read_dir(&victim).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["secret.txt"]);
}

#[tokio::test]
async fn a_repository_that_was_removed_is_told_in_the_sessions_conditions_and_of_the_repository() {
    let agent = agent_in_a_scene().await;
    let server = &agent.world.server;
    let standing = async || server.get(&format!("/sessions/{}/repos/status", agent.id)).await.json["items"][0].clone();
    let condition = async || {
        let session = server.get(&format!("/sessions/{}", agent.id)).await.json;
        let conditions = session["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|condition| condition["type"] == "ReposReconciled").unwrap()
    };
    assert_eq!(standing().await["status"], "Reconciled");
    agent.run("cd ..; mv repo aside; ln -s aside repo").await;
    let missing = eventually("it is told", async || {
        let condition = condition().await;
        (condition["reason"] == "RepoMissing").then_some(condition)
    })
    .await;
    assert_eq!(missing["status"], "False");
    assert!(missing["message"].as_str().unwrap().contains("something else has its name"), "{missing}");
    let repo = standing().await;
    assert!(repo["status"] == "Missing" && !repo["notices"].as_array().unwrap().is_empty(), "{repo}");
    let (status, answer) = agent.push("mine").await;
    assert!(status == 409 && answer.contains("something else has its name"), "{status} {answer}");
    // Without it the agent works in the workspace.
    agent.run("rm repo; mv aside repo").await;
    eventually("it is there again", async || (condition().await["status"] == "True").then_some(())).await;
    assert_eq!(standing().await["status"], "Reconciled");
}

#[tokio::test]
async fn a_git_that_hangs_is_answered_with_its_name() {
    let agent = agent_in_a_scene().await;
    agent.run("rm .git/HEAD; mkfifo .git/HEAD").await;
    let path = format!("/sessions/{}/git/status?repo=repo", agent.id);
    let answer = agent.world.server.get(&path).await;
    let text = answer.json.to_string();
    assert!(answer.status == 409 && text.contains("did not end within"), "{} {text}", answer.status);
}

#[tokio::test]
async fn submodules_and_content_come_from_nothing_of_ours_or_of_another_session() {
    let world = scene().await;
    let other = world.attacker(None).await;
    let secret = other.run(&format!("echo {SECRET} > s; git add s; git commit -qm s; git rev-parse HEAD")).await;
    let commit = secret.split_whitespace().last().unwrap_or_default().to_owned();
    assert_eq!(commit.len(), 40, "{secret}");
    let theirs = other.dir();
    let up = "../".repeat(world.origin.path().components().count());
    let places = [
        format!("file://{}/workspace/repo", theirs.display()),
        format!("file://{}/mirrors/repo.git", theirs.display()),
        format!("file://{}/workspace/repo/.git", theirs.display()),
        format!("{up}{}/workspace/repo", theirs.display()),
        format!("--upload-pack=cat {}", world.victims_secret_file().display()),
        format!("ext::sh -c 'cat {} >&2'", world.victims_secret_file().display()),
    ];
    let mut attack = String::from("git checkout -q -b attack\n");
    for (at, place) in places.iter().enumerate() {
        attack += &format!(
            "git config -f .gitmodules submodule.m{at}.path m{at}; git config -f .gitmodules submodule.m{at}.url \"{place}\"\n"
        );
        attack += &format!("git update-index --add --cacheinfo 160000,{commit},m{at}\n");
    }
    attack += &format!(
        "git config -f .lfsconfig lfs.url 'file://{dir}/workspace/repo'; echo 's filter=lfs' > .gitattributes\n\
         printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:%s\\nsize %s\\n' $(echo {SECRET} | sha256sum | cut -c1-64) {size} > s\n\
         git add -f .gitmodules .lfsconfig .gitattributes s; git -c user.name=t -c user.email=t@t.invalid commit -qm attack",
        dir = theirs.display(),
        size = SECRET.len() + 1,
    );
    // By somebody who may write to the origin: a push of ours refuses such a `.gitmodules`.
    let place = short_dir();
    world.origin.git(place.path(), &["clone", "-q", &world.origin.url(), "clone"]);
    let made = clean_command("sh").args(["-euc", &attack]).current_dir(place.path().join("clone")).status().unwrap();
    assert!(made.success());
    world.origin.git(&place.path().join("clone"), &["push", "-q", "origin", "attack"]);
    world.origin.open_to_everyone();
    let repo = json!({"name": "repo", "url": world.origin.url(), "branch": "attack", "submodules": "recursive"});
    let body =
        json!({"project_id": "hostile", "interactive": true, "repos": [repo], "prompt": script("echo 'here too'")});
    let id = world.server.session(body).await;
    world.server.printed(&id, "here too").await;
    let heir = Attacker { world: world.clone(), id };
    heir.gets_nothing("git log -1 --format=%s; cd ..; grep -rs '' . | head -c 200000").await;
    let notices = world.server.get(&format!("/sessions/{}/repos/status", heir.id)).await.expect(200).to_string();
    assert!(notices.contains("submodules are not all here: m0: "), "what is refused is told: {notices}");
}
