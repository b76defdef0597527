//! `tml-proxy reload`: have the configuration read again, and wait for what comes of it.

use std::process::ExitCode;

use http::Method;

use super::{client::Client, output};
use crate::admin::api::model::Reloaded;

/// Have the running proxy read its configuration again.
///
/// It is all or nothing: with anything wrong, nothing changes, and what is wrong is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    client: Client,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ReloadArgs) -> ExitCode {
    let reloaded = args
        .client
        .send_idempotent(&Method::POST, "/api/v1/reload", &());
    output::answer(reloaded, args.json, words)
}

fn words(reloaded: &Reloaded) -> String {
    let Reloaded {
        added,
        removed,
        retargeted,
        repolicied,
        unchanged,
        mappings_added,
        mappings_removed,
        mappings_changed,
    } = reloaded;
    let mut text = format!(
        "{added} added, {removed} removed, {retargeted} retargeted, {repolicied} repolicied, \
         {unchanged} unchanged\n"
    );
    for (what, mappings) in [
        ("added", mappings_added),
        ("removed", mappings_removed),
        ("changed", mappings_changed),
    ] {
        if let Some(mappings) = mappings.some() {
            text.push_str(&format!("{what}: {mappings}\n"));
        }
    }
    text
}
