//! What the system call filter refuses, and that agents' programs work under it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::path::Path;

use harness::{Session, answers, run};

/// Whether a program is on this machine.
fn there(program: &str) -> bool {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/go/bin"].iter().any(|at| Path::new(at).join(program).exists())
}

#[tokio::test]
async fn system_calls_that_open_kernels_are_refused() {
    let session = Session::new(true);
    let runner = session.start().await;
    let script = "try unshare --user true; try unshare --user --map-root-user --mount true; try unshare --pid --fork true\n\
                  try mount -t tmpfs none $TMPDIR; try umount /tmp; try chroot / true; try nsenter --target 1 --all true\n\
                  try dmesg; try unshare --net true; try pivot_root / /; try hostname evil";
    let output = run(&runner, "m", script).await;
    assert_eq!(answers(&output, "no ").len(), 11, "{output}");
    if !there("python3") {
        return;
    }
    std::fs::write(session.paths.workspace().join("calls.py"), include_str!("programs/calls.py")).unwrap();
    let output = run(&runner, "n", "python3 calls.py").await;
    let answer = |call: &str| output.lines().find_map(|line| line.strip_prefix(&format!("{call} "))).unwrap_or("?");
    for refused in [
        "keyctl",
        "bpf",
        "perf",
        "userfaultfd",
        "io_uring",
        "handle",
        "fsopen",
        "open_tree",
        "newuser",
        "newtime",
        "vsock",
        "alg",
        "packet",
        "tiocsti",
        "readexec",
    ] {
        assert_eq!(answer(refused), "EPERM", "{refused} in {output}");
    }
    for absent in ["clone3", "x32"] {
        assert_eq!(answer(absent), "ENOSYS", "{absent} in {output}");
    }
    for allowed in ["inet", "unshare", "norandom"] {
        assert!(answer(allowed).parse::<i32>().is_ok(), "{allowed} in {output}");
    }
}

#[tokio::test]
async fn the_programs_of_agents_work_under_all_of_it() {
    let session = Session::new(true);
    let workspace = session.paths.workspace();
    for (name, text) in [
        ("a.js", include_str!("programs/a.js")),
        ("A.java", include_str!("programs/A.java")),
        ("a.go", include_str!("programs/a.go")),
        ("a.py", include_str!("programs/a.py")),
        ("a.c", "int main(void) { return 0; }\n"),
    ] {
        std::fs::write(workspace.join(name), text).unwrap();
    }
    let runner = session.start().await;
    let programs = [
        ("node", "node a.js"),
        ("javac", "java A.java"),
        ("go", "PATH=$PATH:/usr/local/go/bin go run a.go"),
        ("python3", "python3 a.py"),
        (
            "gdb",
            "cc -g a.c && gdb -q -nx -batch -ex 'break main' -ex run -ex 'print 3+4' -ex continue ./a.out | sed 's/^.1 = /works /'",
        ),
        ("script", "script -qec 'test -t 0 && echo works 7' /dev/null"),
        ("chromium", "chromium --no-sandbox --headless --disable-gpu --dump-dom 'data:text/html,<p>works 7' 2>&1"),
    ];
    // One takes a minute to build its library, the other to be installed at all.
    let all = std::env::var_os("AMBIENT_TEST_SLOW_PROGRAMS").is_some();
    let wanted = |program: &str| there(program) && (all || !matches!(program, "go" | "chromium"));
    for (program, script) in programs.into_iter().filter(|(program, _)| wanted(program)) {
        let output =
            run(&runner, program, &format!("set +e\nwhile sleep 5; do echo .; done &\n{script}\nkill $!")).await;
        assert!(output.contains("works 7"), "{program}: {output}");
    }
}
