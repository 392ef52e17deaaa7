//! One throw-away network namespace: commands and sockets in it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Output};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace. The name is all there is; the lab makes and removes it. With a whole path for
/// a name it is one that ciliate makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Space {
    pub name: String,
}

impl Space {
    /// The file a configuration names.
    pub fn path(&self) -> String {
        match self.name.starts_with('/') {
            true => self.name.clone(),
            false => format!("/run/netns/{}", self.name),
        }
    }

    /// A command that will run in here. `nsenter`, not `ip netns exec`: that hides BPF file systems.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs a shell script in here.
    pub fn try_sh(&self, script: &str) -> Result<String, String> {
        let output = self.command("sh").args(["-euc", script]).output().expect("run nsenter");
        text_of(output)
    }

    /// Runs a shell script in here; it has to succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        match self.try_sh(script) {
            Ok(text) => text,
            Err(error) => panic!("in {}: {script}\n{error}", self.name),
        }
    }

    /// Runs a job on a thread in here. Sockets it opens stay in here wherever they are used.
    #[track_caller]
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let inside = || {
                self.enter().unwrap_or_else(|error| panic!("enter {}: {error}", self.name));
                job()
            };
            scope.spawn(inside).join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn enter(&self) -> io::Result<()> {
        let file = File::open(self.path())?;
        Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

/// Runs a shell script on the machine; it has to succeed.
#[track_caller]
pub fn sh(script: &str) -> String {
    match try_sh(script) {
        Ok(text) => text,
        Err(error) => panic!("{script}\n{error}"),
    }
}

/// Runs a shell script on the machine.
pub fn try_sh(script: &str) -> Result<String, String> {
    text_of(Command::new("sh").args(["-euc", script]).output().expect("run sh"))
}

fn text_of(output: Output) -> Result<String, String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
