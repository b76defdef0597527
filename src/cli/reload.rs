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
    let reloaded = args.client.send(&Method::POST, "/api/v1/reload", &());
    output::answer(reloaded, args.json, |reloaded: &Reloaded| {
        let Reloaded {
            added,
            removed,
            retargeted,
            repolicied,
            unchanged,
        } = reloaded;
        format!(
            "{added} added, {removed} removed, {retargeted} retargeted, {repolicied} repolicied, \
             {unchanged} unchanged\n"
        )
    })
}
