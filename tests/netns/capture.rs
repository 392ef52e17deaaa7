//! Packets seen on a device, as tcpdump prints them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::space::Space;

/// A tcpdump that runs.
pub struct Capture {
    child: Child,
}

impl Capture {
    /// Starts capturing up to `count` packets and waits until it really does.
    pub fn start(space: &Space, device: &str, count: usize, filter: &str) -> Self {
        Self::start_as(space, device, count, &[], filter)
    }

    /// The same, with what VXLAN and Geneve carry as well.
    pub fn start_tunnel(space: &Space, device: &str, count: usize, port: u16) -> Self {
        let filter = format!("udp port {port}");
        // tcpdump knows Geneve by its port, and takes what is on others for VXLAN if told so.
        let kind: &[&str] = if port == 6081 { &[] } else { &["-T", "vxlan"] };
        Self::start_as(space, device, count, kind, &filter)
    }

    fn start_as(space: &Space, device: &str, count: usize, more: &[&str], filter: &str) -> Self {
        let count = count.to_string();
        let mut child = space
            .command("tcpdump")
            .args(["-i", device, "-nn", "-e", "-t", "-l", "--immediate-mode", "-c", &count])
            .args(more)
            .arg(filter)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run tcpdump");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let listening =
            lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
        assert!(listening, "tcpdump did not start");
        // Somebody has to read the closing words.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child }
    }

    /// Waits for the packets; fewer than asked for after five seconds.
    pub fn lines(mut self) -> Vec<String> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5)
            && self.child.try_wait().expect("wait for tcpdump").is_none()
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let output = BufReader::new(self.child.stdout.take().expect("stdout"));
        output.lines().map_while(Result::ok).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
