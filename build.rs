//! Compiles the datapath programs in `bpf/` with clang, for `src/bpf_objects.rs` to embed.
//!
//! Imports std only. Equal sources and an equal clang give equal objects, wherever they are built.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Each becomes `$OUT_DIR/<name>.o`. The last two are for tests and benches, and in no binary.
const SOURCES: &[&str] = &[
    "bpf/bpf_host.c",
    "bpf/bpf_lxc.c",
    "bpf/bpf_overlay.c",
    "bpf/bpf_sock.c",
    "bpf/bpf_wireguard.c",
    "bpf/bpf_xdp.c",
    "tests/bpf/tunnel_key.c",
    "benches/bench/minimal.c",
];

/// Newest first; older ones are not known to produce what the verifier of Linux 6.1 accepts.
const CLANG_VERSIONS: std::ops::RangeInclusive<u32> = 14..=22;

/// Debian's names; the README lists the packages of other distributions.
const PACKAGES: &str = "clang-19 libbpf-dev linux-libc-dev";

const HEADERS: &str = "/usr/include";

const FLAGS: &[&str] = &[
    "-target",
    "bpfel",
    "-mcpu=v3",
    "-g",
    "-O2",
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-nostdlibinc",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("cannot build the BPF programs: {message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    for watched in SOURCES.iter().chain(&["bpf/lib"]) {
        println!("cargo::rerun-if-changed={watched}");
    }
    if variable("CARGO_CFG_TARGET_ENDIAN")? != "little" {
        return Err("only little-endian targets are supported".into());
    }
    let headers = header_directories()?;
    let clang = find_clang()?;
    for source in SOURCES {
        compile(&clang, &headers, &root, &out, source)?;
    }
    Ok(())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}

/// The directories of `bpf/bpf_helpers.h`, `linux/bpf.h` and `asm/types.h`. Debian keeps the last one
/// apart, by architecture; elsewhere it is where the others are.
fn header_directories() -> Result<Vec<PathBuf>, String> {
    let common = PathBuf::from(HEADERS);
    let of_target = common.join(format!("{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")?));
    let directories = [of_target, common];
    for header in ["bpf/bpf_helpers.h", "linux/bpf.h", "asm/types.h"] {
        if !directories.iter().any(|directory| directory.join(header).is_file()) {
            return Err(format!("{header} is not below {HEADERS}; apt install {PACKAGES}"));
        }
    }
    Ok(directories.into_iter().filter(|directory| directory.is_dir()).collect())
}

fn find_clang() -> Result<String, String> {
    let versioned = CLANG_VERSIONS.rev().map(|version| format!("clang-{version}"));
    for name in versioned.chain(["clang".to_owned()]) {
        let found = Command::new(&name).arg("-dumpversion").output();
        let Ok(output) = found else { continue };
        let version = String::from_utf8_lossy(&output.stdout);
        let major = version.split('.').next().and_then(|major| major.trim().parse().ok());
        if output.status.success() && major.is_some_and(|m: u32| m >= *CLANG_VERSIONS.start()) {
            return Ok(name);
        }
    }
    let (first, last) = (CLANG_VERSIONS.start(), CLANG_VERSIONS.end());
    Err(format!("no clang-{last} … clang-{first} found; apt install {PACKAGES}"))
}

fn compile(
    clang: &str,
    headers: &[PathBuf],
    root: &Path,
    out: &Path,
    source: &str,
) -> Result<(), String> {
    let mut prefix_map = OsString::from("-ffile-prefix-map=");
    prefix_map.push(root);
    prefix_map.push("=.");
    let mut command = Command::new(clang);
    // Relative to the root, so that neither debug information nor messages depend on where that is.
    command.current_dir(root).args(FLAGS).arg(prefix_map);
    for directory in headers {
        command.arg("-isystem").arg(directory);
    }
    let object = Path::new(source).with_extension("o");
    let object = object.file_name().ok_or_else(|| format!("{source} is no file"))?;
    command.arg("-c").arg(source).arg("-o").arg(out.join(object));
    let status = command.status().map_err(|error| format!("{clang}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{clang} failed on {source}")) }
}
