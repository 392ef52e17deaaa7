//! `ciliate wireguard …`: this node's key.

use super::{EXIT_OK, Failure, Format, LOCK_PATIENCE, Output, apply, load, open};
use crate::config::Search;
use crate::engine::{self, Loaded};
use crate::kernel::private_key;
use std::path::PathBuf;

/// Show this node's WireGuard public key, or make a new key
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print the public key, which the other nodes have as this one's `public-key`
    Pubkey,
    /// Make a new private key in place of the old one, put it to use, and print the public key
    ///
    /// Each peer goes on as soon as its configuration has the new public key; until then nothing gets through
    /// between the two, and connections wait.
    Rotate,
}

pub fn run(arguments: &Arguments, search: &Search, output: &mut Output) -> Result<u8, Failure> {
    let loaded = load(search)?;
    match arguments.what {
        What::Pubkey => pubkey(&loaded, output),
        What::Rotate => rotate(&loaded, output),
    }
}

/// The file of the key.
fn place(loaded: &Loaded) -> PathBuf {
    let asked = loaded.intent.encryption.as_ref().and_then(|asked| asked.key_file.as_deref());
    private_key::place(asked, &loaded.intent.paths.state)
}

fn pubkey(loaded: &Loaded, output: &mut Output) -> Result<u8, Failure> {
    let path = place(loaded);
    let Some(key) = private_key::read(&path)? else {
        return Err(Failure::Error(format!(
            "there is no key yet: {} is made by the first `ciliate apply` or `ciliate run` with encryption, or now \
             by `ciliate wireguard rotate`",
            path.display()
        )));
    };
    output.line(&key.public().to_string())?;
    Ok(EXIT_OK)
}

/// The file first: whatever becomes of the rest, a daemon's next round finds it.
fn rotate(loaded: &Loaded, output: &mut Output) -> Result<u8, Failure> {
    let scope = engine::lock(&loaded.intent.paths.runtime, LOCK_PATIENCE)?;
    let public = private_key::replace(&place(loaded))?;
    output.line(&public.to_string())?;
    if loaded.intent.encryption.is_none() {
        return Ok(EXIT_OK);
    }
    output.note("the other nodes need this as the public-key of their [[peer]] for this one");
    let mut kernel = open(loaded)?;
    let view = engine::view(&mut kernel, &loaded.intent)?;
    // Before the first `apply` there is nothing that the key could be put to use in.
    if view.observed.wireguards.is_empty() {
        return Ok(EXIT_OK);
    }
    let look = |kernel: &mut _| engine::view(kernel, &loaded.intent);
    let converged = engine::converge(&scope, &mut kernel, look, |_, _| {})?;
    match converged.succeeded() {
        true => Ok(EXIT_OK),
        false => apply::finish(Format::Text, &converged, output),
    }
}
