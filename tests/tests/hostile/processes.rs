//! Processes: the runner's, other sessions', and the agent's own when they should be gone.

use std::fs;

use serde_json::json;

use crate::{
    support::{
        eventually,
        processes::{command_lines, runner_pid, signal},
    },
    world::World,
};

#[tokio::test]
async fn the_runner_cannot_be_signalled_limited_slowed_or_traced() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let own = runner_pid(&agent.dir(), 1, 1);
    let others = runner_pid(&world.server.session_dir(&world.victim), 1, 1);
    for pid in [own, others] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let nice = nice_of(pid);
        agent
            .gets_nothing(&format!(
                "for s in 0 STOP TERM KILL; do kill -$s {pid} 2>/dev/null && echo GOT signal $s; done\n\
                 prlimit --pid {pid} --fsize=0 2>/dev/null && echo GOT fsize\n\
                 prlimit --pid {pid} --nofile=0 2>/dev/null && echo GOT nofile\n\
                 prlimit --pid {pid} --cpu=1 2>/dev/null && echo GOT cpu\n\
                 renice -n 19 -p {pid} >/dev/null 2>&1 && echo GOT renice\n\
                 chrt -i -p 0 {pid} >/dev/null 2>&1 && echo GOT chrt\n\
                 taskset -p 1 {pid} >/dev/null 2>&1 && echo GOT taskset\n\
                 ionice -c 3 -p {pid} >/dev/null 2>&1 && echo GOT ionice\n\
                 cat /proc/{pid}/environ /proc/{pid}/maps >/dev/null 2>&1 && echo GOT proc\n\
                 (echo 1000 > /proc/{pid}/oom_score_adj) 2>/dev/null && echo GOT oom\n\
                 true"
            ))
            .await;
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/limits")).unwrap(), limits);
        assert_eq!(nice_of(pid), nice);
    }
    agent.gets_nothing("ls /proc | grep -c '^[0-9]' | awk '$1 > 12 { print \"GOT\", $1, \"processes\" }'").await;
    agent
        .gets_nothing(
            "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -a '[s]erve --launch' && echo GOT the runner",
        )
        .await;
    agent.attempt("kill -9 -1").await;
    assert!(agent.run("echo 'and goes on'").await.contains("and goes on"));
}

fn nice_of(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().to_owned()
}

#[tokio::test]
async fn stopped_is_a_proof_also_when_processes_hide_and_the_runner_was_killed() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let mark = format!("31{}", uuid::Uuid::new_v4().as_u128() % 1_000_000);
    let alive = || command_lines().iter().any(|line| line.starts_with(&format!("sleep\0{mark}")));
    agent
        .run(&format!(
            "env -i setsid sh -c '(env -i setsid sleep {mark} >/dev/null 2>&1 &)' </dev/null >/dev/null 2>&1"
        ))
        .await;
    eventually("what hides is there", async || alive().then_some(())).await;
    signal(runner_pid(&agent.dir(), 1, 1), "KILL");
    let path = format!("/sessions/{}", agent.id);
    world.server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    let session = world.server.phase(&agent.id, "Stopped").await;
    assert!(!alive(), "Stopped, and a process lives");
    let conditions = session["conditions"].as_array().unwrap();
    let torn_down = conditions.iter().find(|condition| condition["type"] == "TornDown").unwrap();
    assert_eq!(torn_down["status"], "True", "{torn_down}");
}

#[tokio::test]
async fn the_kernel_gives_no_further_rights() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    agent
        .gets_nothing(
            "mount -t tmpfs none /tmp 2>/dev/null && echo GOT mount\n\
             umount /proc 2>/dev/null && echo GOT umount\n\
             unshare -U true 2>/dev/null && echo GOT a user namespace\n\
             unshare -m true 2>/dev/null && echo GOT a mount namespace\n\
             unshare -Urn true 2>/dev/null && echo GOT a network namespace\n\
             nsenter -t 1 -m true 2>/dev/null && echo GOT init\n\
             chroot / true 2>/dev/null && echo GOT chroot\n\
             mknod disk b 254 0 2>/dev/null && echo GOT a device\n\
             hostname stolen 2>/dev/null && echo GOT the name\n\
             (echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo GOT sysctl\n\
             (echo x > /proc/sysrq-trigger) 2>/dev/null && echo GOT sysrq\n\
             find /sys -maxdepth 4 -name cgroup.procs -writable 2>/dev/null | grep . && echo GOT a control group\n\
             dmesg 2>/dev/null | grep -q . && echo GOT dmesg\n\
             cp /bin/true own && chmod u+s own && chmod g+s own; setcap cap_net_raw+ep own 2>/dev/null && echo GOT a capability\n\
             grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | grep -v '0000000000000000' && echo GOT capabilities\n\
             grep -q '^NoNewPrivs:.1' /proc/self/status || echo GOT new privileges\n\
             true",
        )
        .await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_entered_does_not_keep_a_session_from_starting_again() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    agent
        .run(
            "mkdir -p \"$TMPDIR/shut/inner\" /tmp/shut/inner; touch \"$TMPDIR/shut/inner/file\"\n\
             chmod 000 \"$TMPDIR/shut/inner\" /tmp/shut/inner; chmod 500 \"$TMPDIR/shut\" /tmp/shut\n\
             cd \"$TMPDIR\"; for i in $(seq 600); do mkdir deeper-and-deeper && cd deeper-and-deeper || break; done",
        )
        .await;
    let path = format!("/sessions/{}", agent.id);
    world.server.post(&format!("{path}/stop"), json!({})).await.expect(202);
    world.server.phase(&agent.id, "Stopped").await;
    world.server.post(&format!("{path}/start"), json!({})).await.expect(202);
    world.server.phase(&agent.id, "Running").await;
    assert!(agent.run("echo 'again here'").await.contains("again here"));
    world.server.delete(&path).await.expect(204);
    let directory = agent.dir();
    eventually("its files are gone", async || (!directory.exists()).then_some(())).await;
}

#[tokio::test]
async fn a_file_system_in_memory_serves_programs_that_need_one() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    let printed = agent
        .run("echo shared > /dev/shm/mine && cat /dev/shm/mine && echo private > /tmp/mine && cat /tmp/mine")
        .await;
    assert!(printed.contains("shared") && printed.contains("private"), "{printed}");
    assert!(fs::metadata("/dev/shm/mine").is_err() && fs::metadata("/tmp/mine").is_err());
}

#[tokio::test]
async fn queues_and_shared_memory_are_the_sessions_own() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    // A size that nobody else asks for.
    let bytes = 1_000_000 + uuid::Uuid::new_v4().as_u128() % 1_000_000;
    let printed = agent.run(&format!("ipcmk -Q; ipcmk -M {bytes}; ipcs")).await;
    assert!(printed.contains("Message queue id") && printed.contains(&bytes.to_string()), "{printed}");
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    assert!(!segments.contains(&bytes.to_string()), "the machine has it: {segments}");
}

#[tokio::test]
async fn what_else_runs_on_the_machine_has_no_name_here() {
    let world = World::new().await;
    let agent = world.attacker(None).await;
    agent
        .gets_nothing(&format!(
            "own=$(cut -d: -f3 /proc/self/cgroup | grep -v '^/$' | sed 's,/agent$,,' | sort -u)\n\
             find /sys/fs/cgroup -type f 2>/dev/null | grep -vF \"${{own:-nothing}}/\" && echo GOT control groups\n\
             find /sys/fs/cgroup -type f -writable 2>/dev/null | grep . && echo GOT to change one\n\
             grep -ra '{}' /sys/fs 2>/dev/null | head -n 3 | grep . && echo GOT another session\n\
             true",
            world.victim
        ))
        .await;
}
