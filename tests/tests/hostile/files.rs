//! Files and sockets of the server, of other sessions and of the machine.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    path::Path,
};

use serde_json::json;

use crate::{support::short_dir, world::World};

#[tokio::test]
async fn nothing_of_the_server_or_of_another_session_can_be_read() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let data = world.server.data_dir();
    let victim = world.server.session_dir(&world.victim);
    let targets = [
        data.join("admin-token"),
        data.join("vault.key"),
        world.victims_secret_file(),
        victim.join("runs/1/events.ndjson"),
        victim.join("runs/1/secrets/environment.json"),
        agent.dir().join("runs/1/events.ndjson"),
        agent.dir().join("runs/1/secrets/server-to-runner"),
        "/etc/shadow".into(),
        "/proc/1/environ".into(),
        "/proc/kcore".into(),
    ];
    for target in &targets {
        let target = target.display();
        agent
            .gets_nothing(&format!(
                "head -c 2000 '{target}' && echo GOT '{target}'\n\
                 ln -s '{target}' link; head -c 2000 link && echo GOT by link; rm -f link\n\
                 ln '{target}' hard && echo GOT a hard link; rm -f hard\n\
                 cd /proc/self/root 2>/dev/null && head -c 2000 \".{target}\" && echo GOT by root"
            ))
            .await;
    }
    // The way to its own folder is all that it sees.
    let own = agent.dir();
    let way: Vec<_> = own.iter().map(|part| part.to_string_lossy()).collect();
    let way = way.join("\n");
    for directory in
        [data.clone(), victim, data.join("projects"), data.join("run"), data.join("postgres"), own.join("..")]
    {
        let directory = directory.display();
        agent.gets_nothing(&format!("ls -A '{directory}' 2>/dev/null | grep -vxF '{way}' && echo GOT a list")).await;
    }
    agent.gets_nothing("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -aE 'AMBIENT_(DATABASE|ADMIN|TEMPORAL)' && echo GOT").await;
}

#[tokio::test]
async fn nothing_outside_the_session_can_be_written() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let outside = short_dir();
    let open = outside.path().join("open");
    fs::create_dir(&open).unwrap();
    world_writable(&open);
    let name = format!("planted-{}", uuid::Uuid::new_v4().simple());
    let victim = world.server.session_dir(&world.victim);
    let session = agent.dir();
    // Private places of the same path may be written: what counts is what the machine sees.
    let places = ["/tmp", "/var/tmp", "/dev/shm", "/run", "/etc", "/usr/bin", "/opt"].map(Path::new);
    let places = places.into_iter().chain([open.as_path(), &victim, &session, world.server.dir.path()]);
    for place in places {
        let file = place.join(&name);
        agent.gets_nothing(&format!("echo planted > '{0}'; mkdir '{0}.d'; ln -s / '{0}.l'", file.display())).await;
        for planted in [file.clone(), file.with_extension("d"), file.with_extension("l")] {
            assert!(planted.symlink_metadata().is_err(), "{} was made", planted.display());
        }
    }
    for (file, what) in [("workspace/secret.txt", "victim's file"), ("runs/1/events.ndjson", "victim's log")] {
        let file = victim.join(file);
        let before = fs::read(&file).unwrap();
        let path = file.display();
        agent
            .gets_nothing(&format!(
                "echo more >> '{path}'; : > '{path}'; truncate -s 0 '{path}'; rm -f '{path}'; chmod 777 '{path}'"
            ))
            .await;
        assert_eq!(fs::read(&file).unwrap(), before, "{what}");
    }
    let log = session.join("runs/1/events.ndjson");
    let before = fs::metadata(&log).unwrap().len();
    agent.gets_nothing(&format!(": > '{}'", log.display())).await;
    assert!(fs::metadata(&log).unwrap().len() > before, "the log only grows");
}

fn world_writable(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

#[tokio::test]
async fn sockets_of_the_machine_cannot_be_reached_by_path_or_by_name() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let open = short_dir();
    let by_path = open.path().join("socket");
    let _listener = UnixListener::bind(&by_path).unwrap();
    world_writable(&by_path);
    let abstract_name = format!("ambient-{}", uuid::Uuid::new_v4().simple());
    let _abstract = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap();
    let runner = |id: &str| {
        let directory = world.server.data_dir().join("run").join(id);
        fs::read_dir(directory).unwrap().next().unwrap().unwrap().path()
    };
    let sockets = [by_path, runner(&agent.id), runner(&world.victim)];
    for socket in sockets.iter().map(|path| path.display().to_string()).chain([format!("\\0{abstract_name}")]) {
        agent
            .gets_nothing(&format!(
                "perl -MIO::Socket::UNIX -e 'print \"GOT a connection\\n\" if IO::Socket::UNIX->new(Peer => \"{socket}\")'"
            ))
            .await;
    }
}

#[tokio::test]
async fn no_descriptor_and_no_secret_of_the_runner_is_inherited() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    // By another program: the shell has descriptors of its own.
    agent.gets_nothing("ls -l /proc/self/fd | grep -- '->' | grep -vE ' [0-3] ->' | grep . && echo GOT").await;
    agent.gets_nothing("env | grep -iE 'token|database|secret|vault' && echo GOT").await;
}

#[tokio::test]
async fn the_api_gives_nothing_to_an_agent_without_a_token() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let printed = agent
        .gets_nothing(&format!(
            "for path in /sessions /sessions/{} /projects /operations '/live/tickets'; do \
             perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0]) or exit; \
             print $s \"GET /api/ambient/v1$ARGV[1] HTTP/1.0\\r\\n\\r\\n\"; print scalar <$s>' {} $path; done",
            world.victim,
            world.server.address()
        ))
        .await;
    assert!(!printed.contains(" 200 "), "{printed}");
}

#[tokio::test]
async fn what_others_write_into_the_workspace_stays_in_it_and_is_the_agents() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let secret = world.victims_secret_file();
    let victims = secret.parent().unwrap().display().to_string();
    let at = |path: &str| format!("/sessions/{}/workspace/{path}", agent.id);
    let write = async |path: &str| {
        world.server.send(world.server.request(reqwest::Method::PUT, &at(path)).body("overwritten")).await.status
    };
    assert_eq!(write("mine").await, 201);
    assert!(agent.run("cd ..; echo more >> mine && stat -c %u mine . && echo 'as one'").await.contains("as one"));

    let link = format!("cd ..; ln -sfn '{victims}' out; ln -sfn '{}' file; mkdir turn", secret.display());
    let turn = "(for i in $(seq 3000); do mv turn aside; ln -sfn out turn; rm turn; mv aside turn; done) >/dev/null 2>&1 & true";
    agent.run(&format!("{link}; {turn}")).await;
    for path in ["out/secret.txt", "out/new", "file", "file/x", "../home/x"] {
        assert!((400..500).contains(&write(path).await), "{path}");
    }
    for i in 0..20 {
        assert!(write(&format!("turn/{i}")).await < 500);
        assert!(world.server.delete(&at("turn/secret.txt")).await.status < 500);
        let body = json!({"from": "turn/secret.txt", "to": format!("taken-{i}")});
        assert!(world.server.post(&format!("/sessions/{}/workspace_move", agent.id), body).await.status >= 400);
    }
    world.server.delete(&at("out?recursive=true")).await.expect(204);
    let left: Vec<_> =
        fs::read_dir(secret.parent().unwrap()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["secret.txt"]);
    assert_eq!(fs::read_to_string(&secret).unwrap().trim(), crate::world::SECRET);
}
