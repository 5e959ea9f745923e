//! System calls that an agent does not need, or that have been used to break kernels: a denylist, because an agent runs any program.
//!
//! What is refused fails with EPERM, so that programs report it and continue; `clone3`, whose flags a filter cannot see, is reported
//! as missing (ENOSYS), and the C library falls back to `clone`. `ptrace` stays: debuggers work among the agent's own processes.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule, TargetArch,
};

type Rules = BTreeMap<i64, Vec<Rule>>;
type Result<T> = std::result::Result<T, String>;

/// Linux 6.15; not in the C library's list yet.
const OPEN_TREE_ATTR: i64 = 467;
/// Always refused.
const REFUSED: &[i64] = &[
    // What is mounted, and where the root is.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_fanotify_init,
    // Files by handle, past every path.
    libc::SYS_open_by_handle_at,
    // Other namespaces.
    libc::SYS_setns,
    // Keys belong to a user id, not to a namespace.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Code in the kernel, or windows into it.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_syslog,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    // Does what other calls do, but where no filter sees it.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The machine's own.
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
];
/// Only on one architecture.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[libc::SYS_kexec_file_load, libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_uselib];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Flags of `clone` and `unshare` that create namespaces: a user namespace is full of rights that have exposed kernel bugs.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];
/// Only for `unshare`; among the flags of `clone` this bit is part of a signal's number.
const NEW_TIME: u64 = 0x80;
/// Sockets that programs use. Not among them: those of virtual machines (`AF_VSOCK` reaches the host), of the kernel's ciphers
/// (`AF_ALG`), of raw packets, and of rarely used protocols.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
/// Put characters into a terminal's input, as if typed (the second through the console's selection).
const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, 0x541C];
/// Without address randomisation (debuggers), with addresses below 4 GiB, as Linux 2.6, and the query for what is set.
const PERSONALITIES: [u64; 8] = [0, 0x8, 0x0004_0000, 0x0004_0008, 0x0020_0000, 0x0002_0000, 0x0002_0008, 0xFFFF_FFFF];

/// Filters the system calls of this thread and everything it starts, permanently.
///
/// # Errors
/// In words.
pub(crate) fn refuse() -> Result<()> {
    let programs = [Some(program(refused()?, libc::EPERM)?), Some(program(absent(), libc::ENOSYS)?), x32()];
    for program in programs.into_iter().flatten() {
        seccompiler::apply_filter(&program).map_err(|e| format!("system calls cannot be filtered: {e}"))?;
    }
    Ok(())
}

fn program(rules: Rules, error: i32) -> Result<BpfProgram> {
    let words = |e: &dyn std::fmt::Display| format!("a filter of system calls cannot be made: {e}");
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| words(&e))?;
    let answer = SeccompAction::Errno(error.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, architecture).map_err(|e| words(&e))?;
    filter.try_into().map_err(|e: seccompiler::BackendError| words(&e))
}

/// Calls that are reported as missing.
fn absent() -> Rules {
    [(libc::SYS_clone3, Vec::new())].into()
}

fn refused() -> Result<Rules> {
    let mut rules: Rules = REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    let namespaces = || NAMESPACES.iter().map(|flag| u64::from(flag.cast_unsigned()));
    rules.insert(libc::SYS_clone, any(namespaces().map(|flag| has(0, flag)))?);
    rules.insert(libc::SYS_unshare, any(namespaces().chain([NEW_TIME]).map(|flag| has(0, flag)))?);
    rules.insert(libc::SYS_ioctl, any(TERMINAL_INPUT.map(|request| is(1, Compare::Eq, request)))?);
    let families = FAMILIES.map(|family| is(0, Compare::Ne, u64::from(family.cast_unsigned())));
    rules.insert(libc::SYS_socket, vec![all(families)?]);
    rules.insert(libc::SYS_personality, vec![all(PERSONALITIES.map(|which| is(0, Compare::Ne, which)))?]);
    Ok(rules)
}

/// An argument of 32 bits, as the kernel reads it.
fn is(argument: u8, compare: Compare, value: u64) -> Result<Condition> {
    Condition::new(argument, Length::Dword, compare, value).map_err(|e| e.to_string())
}

fn has(argument: u8, flag: u64) -> Result<Condition> {
    is(argument, Compare::MaskedEq(flag), flag)
}

fn any(conditions: impl IntoIterator<Item = Result<Condition>>) -> Result<Vec<Rule>> {
    conditions.into_iter().map(|condition| all([condition])).collect()
}

fn all(conditions: impl IntoIterator<Item = Result<Condition>>) -> Result<Rule> {
    let conditions = conditions.into_iter().collect::<Result<Vec<_>>>()?;
    Rule::new(conditions).map_err(|e| e.to_string())
}

/// An x86_64 kernel's x32 calls are the same calls under other numbers.
#[cfg(target_arch = "x86_64")]
fn x32() -> Option<BpfProgram> {
    use seccompiler::sock_filter;
    let statement = |code: u32, jt, jf, k| sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k };
    Some(vec![
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, 0x4000_0000),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}
#[cfg(not(target_arch = "x86_64"))]
fn x32() -> Option<BpfProgram> {
    None
}
