//! A second apply writes nothing: counted by the program itself, and seen by strace.

use std::fs;

use crate::lab::{DUAL, Lab};
use crate::node::{CILIATE, Node, Text};

/// System calls that may write to the kernel, or to files.
const TRACED: &str = "sendto,sendmsg,sendmmsg,bpf,open,openat,openat2,creat,unlink,unlinkat,rename,\
                      renameat,renameat2,mkdir,mkdirat,rmdir,mount,umount2,ioctl,execve,chmod,\
                      fchmod,fchmodat,chown,fchown,fchownat,truncate,ftruncate,symlink,symlinkat,\
                      link,linkat,setsockopt";

/// bpf(2) commands that change nothing.
const BPF_READS: &[&str] = &[
    "BPF_OBJ_GET,",
    "BPF_OBJ_GET_INFO_BY_FD,",
    "BPF_MAP_LOOKUP_ELEM,",
    "BPF_MAP_LOOKUP_BATCH,",
    "BPF_MAP_GET_NEXT_KEY,",
    "BPF_MAP_GET_FD_BY_ID,",
    "BPF_PROG_GET_FD_BY_ID,",
    "BPF_PROG_QUERY,",
];

/// Runs `apply` under strace. Returns what it printed as JSON, and the calls that wrote.
fn traced_apply(node: &Node) -> (serde_json::Value, Vec<String>) {
    let traces = node.config.with_extension("strace");
    let _ = fs::remove_dir_all(&traces);
    fs::create_dir(&traces).expect("make a folder for the traces");
    let mut command = node.space.command("strace");
    // A file for each thread: in one for all, calls that overlap are cut in two.
    command.args(["-ff", "-qq", "-s", "64", "-o"]).arg(traces.join("thread"));
    command.args(["-e", &format!("trace={TRACED}"), CILIATE, "-c"]).arg(&node.config);
    let output = command.args(["apply", "-o", "json"]).output().expect("run strace");
    let ran = crate::node::Ran::from(output);
    assert_eq!(ran.code, 0, "{ran:?}");
    let files = fs::read_dir(&traces).expect("list the traces").flatten();
    let text: String =
        files.map(|file| fs::read_to_string(file.path()).expect("read a trace")).collect();
    let runtime = node.runtime.display().to_string();
    assert!(text.contains("RTM_GETLINK"), "strace decodes netlink:\n{text}");
    let writes = text.lines().filter(|line| writes(line, &runtime)).map(str::to_string).collect();
    (ran.json(), writes)
}

/// Whether a line of strace is a call that wrote. The lock file in the runtime folder is no kernel
/// object, and starting `nft` to list is no writing.
fn writes(line: &str, runtime: &str) -> bool {
    // A signal, the end of a thread, or a call that a thread was killed at the entry of, when another
    // ended the process: it was not made, and strace comes too late to learn which it would have been.
    if ["---", "+++", "???"].iter().any(|mark| line.starts_with(mark)) {
        return false;
    }
    let (name, arguments) = line.split_once('(').unwrap_or((line, ""));
    match name {
        "sendto" | "sendmsg" | "sendmmsg" => {
            ["RTM_NEW", "RTM_DEL", "RTM_SET"].iter().any(|what| arguments.contains(what))
                || (arguments.contains("NFNL_SUBSYS_NFTABLES")
                    && ["NFT_MSG_NEW", "NFT_MSG_DEL"].iter().any(|what| arguments.contains(what)))
        }
        "bpf" => !BPF_READS.iter().any(|read| arguments.starts_with(read)),
        "open" | "openat" | "openat2" | "creat" => {
            ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|f| arguments.contains(f))
                && !arguments.contains(runtime)
                && !arguments.contains("/dev/null")
        }
        "execve" => arguments.contains("\"-f\""),
        "ioctl" => arguments.contains("SIOCS"),
        "mkdir" | "mkdirat" => !arguments.contains(runtime),
        "setsockopt" => false,
        _ => true,
    }
}

/// What strace shows of a thread that ends with its process is no call; what it began is one.
#[test]
fn calls_are_told_from_the_end_of_a_thread() {
    for line in [
        "+++ exited with 0 +++",
        "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_status=0} ---",
        "???( <detached ...>",
        "bpf(BPF_OBJ_GET, {pathname=\"/sys/fs/bpf/x\", bpf_fd=0}, 16) = 5",
    ] {
        assert!(!writes(line, "/run/lab"), "{line}");
    }
    for line in ["unlink(\"/sys/fs/bpf/x\" <detached ...>", "bpf(BPF_MAP_CREATE, {map_type="] {
        assert!(writes(line, "/run/lab"), "{line}");
    }
}

#[test]
fn second_apply_writes_nothing() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    for text in [Text::node_a(&lab), Text::node_a(&lab).in_tunnel()] {
        lab.a.write(&text);
        let first = lab.a.apply();
        assert!(first["writes"].as_u64().is_some_and(|writes| writes > 10), "{}", first["writes"]);
        let (second, writes) = traced_apply(&lab.a);
        assert!(writes.is_empty(), "a second apply wrote:\n{}", writes.join("\n"));
        assert_eq!((&second["writes"], &second["converged"]), (&0.into(), &true.into()));
        assert_eq!(second["ops"], serde_json::json!([]));
    }
}

/// What counts the calls sees them: an apply with work to do shows some of each kind.
#[test]
fn strace_sees_what_a_first_apply_writes() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    let (first, writes) = traced_apply(&lab.a);
    assert_eq!(first["converged"], true);
    for call in [
        "RTM_NEWLINK",
        "RTM_NEWADDR",
        "RTM_NEWROUTE",
        "BPF_MAP_CREATE",
        "BPF_PROG_LOAD",
        "BPF_LINK_CREATE",
        "BPF_OBJ_PIN",
        "execve(",
        "mkdir",
        "/proc/sys/net/ipv4/conf/all/forwarding",
    ] {
        assert!(writes.iter().any(|line| line.contains(call)), "no {call} in {writes:#?}");
    }
}

/// Reading commands leave nothing behind either, not even a lock.
#[test]
fn reading_commands_change_nothing() {
    let Some(lab) = Lab::new(DUAL) else { return };
    lab.walk_through();
    let before = crate::snapshot::Snapshot::of(&lab.a.space);
    let commands = [
        (&["plan"][..], 2),
        (&["check"], 0),
        (&["status"], 3),
        (&["bpf", "ct", "list"], 1),
        (&["get", "endpoints"], 0),
        (&["destroy", "--dry-run"], 0),
    ];
    for (command, code) in commands {
        let ran = lab.a.ciliate(command);
        assert_eq!(ran.code, code, "{command:?}: {ran:?}");
        if command == ["get", "endpoints"] {
            let row = ran.stdout.lines().find(|line| line.starts_with("client "));
            let row: Vec<_> = row.expect("a row").split_whitespace().collect();
            assert!(row.contains(&"10.244.0.49") && row.contains(&"fd00:10:244::49"), "{row:?}");
        }
    }
    before.assert_same(&crate::snapshot::Snapshot::of(&lab.a.space), "after reading commands");
    assert!(!lab.a.runtime.exists() && !lab.a.bpf.exists());
}
