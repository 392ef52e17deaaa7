//! What the daemon tells the journal (systemd.journal-fields(7)), heard on a socket of the test's at the
//! journal's place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};

use ciliate::daemon::classes::{self, CLASSES};

use crate::daemon::{PATIENCE, wait_until};
use crate::lab::{Lab, V4};
use crate::node::{CILIATE, Node, Text, peer};

const MESSAGE_BYTES_MAX: usize = 65536;

/// Runs with mounts of its own, so that nothing on the machine is hidden. `$1` is the folder with the
/// socket, `$2` the stream that systemd is said to have made of standard error; the rest is the command.
const SCRIPT: &str = r#"
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal
mount --bind "$1" /run/systemd/journal
own=$(stat --dereference --format %d:%i /dev/fd/2)
export JOURNAL_STREAM="${2:-$own}"
shift 2
exec "$@"
"#;

type Message = BTreeMap<String, String>;

/// A daemon that is killed in the end.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    fn start(node: &Node, socket_in: &str, stream: &str) -> Self {
        let config = node.config.to_str().expect("a path of text");
        let log = File::create(&node.log).expect("make a log");
        let mut command = node.space.command("unshare");
        command.args(["--mount", "sh", "-euc", SCRIPT, "sh", socket_in, stream]);
        command.args([CILIATE, "-c", config, "run"]);
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(streams.spawn().expect("run ciliate"))
    }
}

/// One message in the journal's native protocol: `NAME=value`, or the name, the length and the value.
fn message(mut bytes: &[u8]) -> Message {
    let mut fields = Message::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 1..];
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name.to_string(), value.to_string()),
            None => {
                let (length, rest) = bytes.split_first_chunk().expect("a length");
                let length = usize::try_from(u64::from_le_bytes(*length)).expect("a short value");
                let value = String::from_utf8_lossy(&rest[..length]).into_owned();
                assert_eq!(rest[length], b'\n', "after {line}");
                bytes = &rest[length + 1..];
                (line, value)
            }
        };
        assert_eq!(fields.insert(name.clone(), value), None, "two fields {name}");
    }
    fields
}

/// Waits for a message that begins so; returns it with these of its fields.
#[track_caller]
fn hear<const N: usize>(socket: &UnixDatagram, begin: &str, fields: [&str; N]) -> [String; N] {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let mut others = Vec::new();
    loop {
        let Ok(length) = socket.recv(&mut buffer) else { panic!("no `{begin}` in {others:#?}") };
        let message = message(&buffer[..length]);
        if message.get("MESSAGE").is_some_and(|text| text.starts_with(begin)) {
            return fields.map(|name| message.get(name).cloned().unwrap_or_default());
        }
        others.push(message);
    }
}

/// The `MESSAGE_ID` of a class.
fn id(class: &str) -> &'static str {
    CLASSES.iter().find(|(target, _)| *target == class).expect("a class").1
}

#[test]
fn messages_have_their_fields() {
    let Some(lab) = Lab::new(V4) else { return };
    let folder = lab.dir.join("journal");
    fs::create_dir(&folder).expect("make a folder");
    let socket = UnixDatagram::bind(folder.join("socket")).expect("make a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let folder = folder.to_str().expect("a path of text");
    let mut text = Text::node_a(&lab);
    text.peers += &peer("far", &["192.0.2.77"], &["10.244.7.0/24"], "");
    // Too many routes for a line each.
    let cidrs: Vec<String> = (0..120).map(|n| format!("10.64.{n}.0/24")).collect();
    let cidrs: Vec<&str> = cidrs.iter().map(String::as_str).collect();
    text.peers += &peer("many", &["172.18.0.1"], &cidrs, "");
    lab.a.write(&text);

    let service = Service::start(&lab.a, folder, "");
    let version = env!("CARGO_PKG_VERSION");
    let fields = ["PRIORITY", "SYSLOG_IDENTIFIER", "CILIATE_VERSION", "MESSAGE_ID"];
    let found = hear(&socket, &format!("ciliate {version} starts"), fields);
    assert_eq!(found, ["5", "ciliate", version, id(classes::STARTED)]);
    let fields = [
        "PRIORITY",
        "MESSAGE_ID",
        "CILIATE_GENERATION",
        "CILIATE_OBJECT",
        "CILIATE_OPERATION",
        "CILIATE_ORIGIN",
        "CILIATE_DRIFT",
    ];
    let found = hear(&socket, "+ link cilium_host", fields);
    let changed = id(classes::CHANGED);
    assert_eq!(found, ["5", changed, "1", "link cilium_host", "+", "node", "missing"]);
    // Those of the peers, of the router and of its CIDR.
    let found = hear(&socket, "+ 123 of kind route", ["CILIATE_KIND", "CILIATE_COUNT"]);
    assert_eq!(found, ["route", "123"]);
    let problem = "not as configured: 192.0.2.77 is not on-link";
    let fields = ["PRIORITY", "CILIATE_OBJECT", "MESSAGE_ID"];
    assert_eq!(hear(&socket, problem, fields), ["4", "peer far", id(classes::PROBLEM)]);
    fs::write(&lab.a.config, "[nose]\n").expect("write the configuration");
    let fields = ["PRIORITY", "CILIATE_FILE", "CILIATE_LINE", "MESSAGE_ID"];
    let file = lab.a.config.display().to_string();
    let found = hear(&socket, "configuration refused: ", fields);
    assert_eq!(found, ["3", &file, "1", id(classes::REFUSED)]);
    drop(service);
    assert_eq!(fs::read_to_string(&lab.a.log).expect("read the log"), "");

    // A child of a service, whose standard error is another stream, writes there.
    lab.a.write(&text);
    let service = Service::start(&lab.a, folder, "1:1");
    let log = || fs::read_to_string(&lab.a.log).expect("read the log");
    assert!(wait_until(PATIENCE, || log().contains(problem)), "{}", log());
    drop(service);
    socket.set_nonblocking(true).expect("no waiting");
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    while let Ok(length) = socket.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(!text.contains(" starts; configuration"), "{text}");
    }
}
