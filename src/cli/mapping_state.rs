//! `tml-proxy pause`, `drain` and `resume`: keep a mapping from taking new sessions for a while.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use http::Method;

use super::{
    client::{Client, ClientError},
    output,
};
use crate::{
    admin::api::model::{MappingChange, MappingQuery, MappingState, Mappings},
    units::{count, duration_ms},
};

/// A mapping of a running proxy.
#[derive(Debug, Clone, clap::Args)]
pub struct MappingArgs {
    #[command(flatten)]
    client: Client,
    /// The mapping.
    #[arg(value_name = "MAPPING")]
    mapping: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Close a mapping's ports and let its sessions end.
///
/// New clients are refused. The mapping stays drained through reloads that keep its name, until it
/// is resumed or the proxy restarts. Resuming it lifts the time its sessions have left, draining it
/// again sets it anew.
#[derive(Debug, Clone, clap::Args)]
pub struct DrainArgs {
    #[command(flatten)]
    mapping: MappingArgs,
    /// End the sessions that are left after this time, such as 30s.
    #[arg(long, value_name = "TIME")]
    within: Option<String>,
    /// Wait until no session is left, and say how many are meanwhile; with --json, a line each time.
    #[arg(long)]
    wait: bool,
}

pub fn pause(args: &MappingArgs) -> ExitCode {
    let paused = set(args, "pause", None);
    output::answer(paused, args.json, words)
}

pub fn resume(args: &MappingArgs) -> ExitCode {
    let resumed = set(args, "resume", None);
    output::answer(resumed, args.json, words)
}

pub fn drain(args: &DrainArgs) -> ExitCode {
    let DrainArgs {
        mapping,
        within,
        wait,
    } = args;
    let drained = set(mapping, "drain", within.clone());
    match drained {
        Ok(drained) if *wait => until_empty(mapping, drained),
        drained => output::answer(drained, mapping.json, words),
    }
}

fn set(
    args: &MappingArgs,
    what: &str,
    within: Option<String>,
) -> Result<MappingState, ClientError> {
    let which = MappingChange {
        mapping: args.mapping.clone(),
        within,
    };
    let path = format!("/api/v1/mappings/{what}");
    args.client.send_idempotent(&Method::POST, &path, &which)
}

fn words(state: &MappingState) -> String {
    format!("{}\n", line(state))
}

fn line(state: &MappingState) -> String {
    let MappingState {
        mapping,
        state,
        sessions,
        sessions_end_in_ms,
    } = state;
    let (are, they) = match sessions {
        1 => ("is", "it is"),
        _ => ("are", "they are"),
    };
    let left = match (state.as_str(), sessions, sessions_end_in_ms) {
        ("drained", 0, _) => ", no session is left".to_owned(),
        ("drained", _, end) => {
            let left = format!(", {} {are} left", count(*sessions, "session"));
            match end {
                None => left,
                Some(time) => format!("{left}; in {} {they} ended", duration_ms(*time)),
            }
        }
        _ => String::new(),
    };
    format!("{mapping} is {state}{left}")
}

/// Between two questions how many are left.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a proxy may not answer: while a new version takes over it answers nobody.
const AWAY: Duration = Duration::from_secs(10);

/// Says how many sessions are left until there is none.
fn until_empty(args: &MappingArgs, drained: MappingState) -> ExitCode {
    let live = io::stdout().is_terminal() && !args.json;
    let mut state = drained;
    let mut said = None;
    loop {
        // The countdown is news only where it takes the place of what was said before.
        let text = match (args.json, live) {
            (true, _) => output::json_line(&state),
            (false, true) => format!("\r\x1b[K{}", line(&state)),
            (false, false) => words(&state),
        };
        if live || said != Some(state.sessions) {
            said = Some(state.sessions);
            if let Some(code) = output::print_one(&text) {
                return code;
            }
        }
        let next = match state.sessions {
            0 => None,
            _ => Some(ask_again(args)),
        };
        if live && !matches!(next, Some(Ok(_))) {
            output::print("\n");
        }
        state = match next {
            None => return ExitCode::SUCCESS,
            Some(Ok(next)) => next,
            Some(Err(error)) => return output::give_up(&error, args.json),
        };
    }
}

fn ask_again(args: &MappingArgs) -> Result<MappingState, ClientError> {
    let asked = Instant::now();
    let query = MappingQuery {
        mapping: Some(args.mapping.clone()),
    };
    let found: Mappings = loop {
        thread::sleep(PAUSE);
        match args.client.find("/api/v1/mappings", &query) {
            Err(ClientError::Unreachable { .. }) if asked.elapsed() < AWAY => {}
            answer => break answer?,
        }
    };
    let Some(found) = found.mappings.into_iter().next() else {
        let why = format!("there is no mapping {:?} any more", args.mapping);
        return Err(ClientError::Refused(why));
    };
    if found.state != "drained" {
        let why = format!("{} is {}, no longer drained", found.mapping, found.state);
        return Err(ClientError::Refused(why));
    }
    Ok(MappingState {
        mapping: found.mapping,
        state: found.state,
        sessions: found.sessions,
        sessions_end_in_ms: found.sessions_end_in_ms,
    })
}
