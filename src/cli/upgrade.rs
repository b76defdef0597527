//! `tml-proxy upgrade`: have another build of the program take over, and wait until it serves.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use http::Method;
use serde::Serialize;

use super::{
    client::{Client, ClientError},
    code, output,
};
use crate::{
    admin::api::model::{Status, Upgrade, UpgradeBegun, Upgraded},
    os_error::in_words,
    units::count,
};

/// How long the new version may take until it answers.
const WITHIN: Duration = Duration::from_secs(60);

/// Between two questions for the outcome.
const PAUSE: Duration = Duration::from_millis(20);

/// Have another build of the program take over from the running proxy; no session ends.
///
/// It is the one that is now at the path from which the running proxy was started, or another.
/// A child of it first shows that it can go on with everything there is; with anything wrong,
/// nothing changes, and what is wrong is printed.
#[derive(Debug, Clone, clap::Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    client: Client,
    /// The executable to go on with.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Do nothing if the executable at that path is the one that runs.
    ///
    /// Only root and the user of the proxy can see which one that is.
    #[arg(long)]
    if_changed: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &UpgradeArgs) -> ExitCode {
    if args.if_changed {
        match unchanged(args) {
            Ok(None) => {}
            Ok(Some(unchanged)) => return output::answer(Ok(unchanged), args.json, nothing_to_do),
            Err(error) => return output::give_up(&error, args.json),
        }
    }
    let upgraded = begin(args).and_then(|begun| outcome(&args.client, &begun));
    match upgraded {
        Ok(Upgraded {
            error: Some(error), ..
        }) if !args.json => {
            output::complain(&format_args!("tml-proxy: {error}"));
            ExitCode::from(code::REFUSED)
        }
        upgraded => {
            let failed = (upgraded.as_ref()).is_ok_and(|upgraded| upgraded.error.is_some());
            let code = output::answer(upgraded, args.json, words);
            match failed {
                true => ExitCode::from(code::REFUSED),
                false => code,
            }
        }
    }
}

/// Why there is nothing to do.
#[derive(Debug, Serialize)]
struct Unchanged {
    /// The version that runs.
    version: String,
    /// Where its executable is.
    binary: PathBuf,
}

/// The executable that would take over, if it is the one that runs.
fn unchanged(args: &UpgradeArgs) -> Result<Option<Unchanged>, ClientError> {
    let status: Status = args.client.get("/api/v1/status")?;
    let (pid, at_start) = (status.process.pid, status.upgrade.binary);
    let binary = args.binary.clone().unwrap_or_else(|| at_start.into());
    let which = |path: &Path| {
        let found = fs::metadata(path).map_err(|error| {
            let why = in_words(&error);
            ClientError::Refused(format!("{}: {why}", path.display()))
        })?;
        Ok((found.dev(), found.ino()))
    };
    let running = which(&PathBuf::from(format!("/proc/{pid}/exe")))?;
    Ok((which(&binary)? == running).then_some(Unchanged {
        version: status.version,
        binary,
    }))
}

fn nothing_to_do(Unchanged { version, binary }: &Unchanged) -> String {
    let binary = binary.display();
    format!("nothing to do: {binary}, version {version}, is what runs\n")
}

fn begin(args: &UpgradeArgs) -> Result<UpgradeBegun, ClientError> {
    let absolute = |path: &PathBuf| {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let text = absolute.into_os_string().into_string();
        text.map_err(|_| ClientError::Usage("--binary: the path is no text".to_owned()))
    };
    let binary = args.binary.as_ref().map(absolute).transpose()?;
    let upgrade = Upgrade { binary };
    args.client.send(&Method::POST, "/api/v1/upgrade", &upgrade)
}

/// Waits for what comes of it. The proxy answers nobody while it changes, and ends all connections.
fn outcome(client: &Client, begun: &UpgradeBegun) -> Result<Upgraded, ClientError> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let status: Result<Status, _> = client.get("/api/v1/status");
        let late = Instant::now() >= deadline;
        match status {
            Ok(Status { upgrade, .. }) => match upgrade.last {
                Some(last) if last.upgrade >= begun.upgrade => return Ok(last),
                _ if late => {
                    let what = format!("no outcome within {} s", WITHIN.as_secs());
                    return Err(ClientError::Refused(what));
                }
                _ => {}
            },
            Err(error) if late => return Err(error),
            Err(ClientError::Unreachable { .. }) => {}
            Err(error) => return Err(error),
        }
        thread::sleep(PAUSE);
    }
}

fn words(upgraded: &Upgraded) -> String {
    let Upgraded {
        from,
        to,
        sessions,
        pause_ms,
        ..
    } = upgraded;
    let to = to.as_deref().unwrap_or("unknown");
    let sessions = count(*sessions, "session");
    format!("{from} -> {to}, {sessions} went on, {pause_ms:.1} ms pause at most\n")
}
