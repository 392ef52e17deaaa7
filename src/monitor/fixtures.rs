//! The fixtures in `cases/`: a record's bytes, and exactly what is made of them.

use std::path::Path;

use serde::Deserialize;

use super::text::Style;
use super::{RecordError, decode, json, text};
use crate::bpf_abi::{EventHead, Record};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    why: String,
    /// Name of the device that the event names.
    link: String,
    /// Hexadecimal; `#` begins a comment.
    record: String,
    line: String,
    numeric: Option<String>,
    full: Option<String>,
    hex: Option<String>,
    json: Option<String>,
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let words = self
            .record
            .lines()
            .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace());
        words.map(|word| u8::from_str_radix(word, 16).expect("hexadecimal")).collect()
    }
}

fn cases() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/monitor/cases");
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a file");
        let case: Case =
            toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!case.why.is_empty());
        cases.push((path.display().to_string(), case));
    }
    assert!(cases.len() > 25, "only {} cases", cases.len());
    cases
}

#[test]
fn events_are_shown_as_in_the_fixtures() {
    for (path, case) in cases() {
        let bytes = case.bytes();
        let event = decode(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
        let shown = |style| {
            let mut out = String::new();
            text::write(&mut out, &event, &case.link, style);
            out
        };
        let plain = Style::default();
        assert_eq!(shown(plain), case.line, "{path}");
        for (expected, style) in [
            (&case.numeric, Style { numeric: true, ..plain }),
            (&case.full, Style { full: true, ..plain }),
            (&case.hex, Style { full: true, hex: true, ..plain }),
        ] {
            let Some(expected) = expected else { continue };
            assert_eq!(shown(style), *expected, "{path}: {style:?}");
        }
        if let Some(expected) = &case.json {
            let mut out = String::new();
            json::write(&mut out, &event, &case.link);
            assert_eq!(out, *expected, "{path}");
        }
    }
}

/// Whatever a program writes or the ring holds: an event or an error, in every form, and no panic.
#[test]
fn records_are_read_at_every_length_and_with_every_byte_changed() {
    for (_, case) in cases() {
        let bytes = case.bytes();
        let show = |bytes: &[u8]| {
            let Ok(event) = decode(bytes) else { return };
            let mut out = String::new();
            for full in [false, true] {
                text::write(&mut out, &event, "", Style { full, ..Style::default() });
            }
            json::write(&mut out, &event, "");
            serde_json::from_str::<serde_json::Value>(out.lines().last().expect("a line"))
                .expect("JSON");
        };
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Err(RecordError::CutOff(len)));
        }
        for at in 0..bytes.len() {
            for value in [0, 0x7f, 0xff, bytes[at] ^ 1, bytes[at] << 1] {
                let mut changed = bytes.clone();
                changed[at] = value;
                show(&changed);
            }
        }
        // Cut off inside the packet, with lengths that say so: what the programs do.
        for len in (EventHead::SIZE + 16..bytes.len()).rev() {
            let mut cut = bytes[..len].to_vec();
            let record_len = (len - EventHead::SIZE) as u32;
            cut[12..16].copy_from_slice(&record_len.to_ne_bytes());
            let fields = match cut[16] {
                1 => 40,
                3 => 24,
                _ => 48,
            };
            let captured = record_len.saturating_sub(fields) as u16;
            cut[28..30].copy_from_slice(&captured.to_ne_bytes());
            show(&cut);
        }
    }
}

#[test]
fn records_of_other_versions_are_refused() {
    let case = &cases()[0].1;
    let mut bytes = case.bytes();
    bytes[16] = 9;
    assert_eq!(decode(&bytes), Err(RecordError::Type(9)));
    let (_, trace) = cases().into_iter().find(|(path, _)| path.contains("trace-arp")).expect("it");
    let mut bytes = trace.bytes();
    bytes[30] = 0;
    assert_eq!(decode(&bytes), Err(RecordError::Version { event_type: 4, version: 0 }));
}

#[test]
fn what_follows_a_record_in_the_ring_is_not_of_it() {
    for (path, case) in cases() {
        let mut bytes = case.bytes();
        let event = decode(&bytes).expect("an event");
        let (packet, body) = (event.packet.to_vec(), event.body);
        bytes.extend([0xaa; 13]);
        let event = decode(&bytes).expect("an event");
        assert_eq!((event.packet, event.body), (packet.as_slice(), body), "{path}");
    }
}

#[test]
fn lost_events_are_lines_too() {
    let mut out = String::new();
    text::write_lost(&mut out, 3, 17);
    json::write_lost(&mut out, 12, 1);
    assert_eq!(
        out,
        "CPU 03: Lost 17 events\n\
         {\"format_version\":1,\"cpu\":\"CPU 12:\",\"type\":\"lost\",\"events\":1}\n"
    );
}

#[test]
fn the_banner_and_the_ring_are_of_one_size() {
    assert_eq!(
        text::banner(8),
        ["Listening for events on 8 CPUs with 64x4096 of shared memory", "Press Ctrl-C to quit"]
    );
    for (cpus, bytes) in [(0, 1 << 20), (1, 1 << 20), (4, 1 << 20), (5, 1 << 21), (8, 1 << 21)] {
        assert_eq!(super::ring_bytes(cpus), bytes, "{cpus} CPUs");
    }
    assert_eq!(super::ring_bytes(usize::MAX), 1 << 28);
}
