//! Whether the switchboard answers, to this token, and for how long it will.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::SystemTime};

use super::{PATIENCE, report::Finding};
use crate::{
    provider::switchboard::{
        Switchboard,
        client::{Client, Failure, Fault, Patience},
        read::Rights,
        token_file::SOON,
    },
    units::{duration_ms, millis},
};

/// Where systemd puts credentials, which stay as they are while the service runs.
const CREDENTIALS: &str = "/run/credentials/";

pub(super) fn examine(switchboard: &Switchboard) -> Vec<Finding> {
    let mut findings = vec![state_dir(switchboard)];
    findings.extend(token_file(&switchboard.token_file));
    if !switchboard.url.is_secure() && !switchboard.url.is_loopback() {
        findings.push(Finding::poor(
            "switchboard url",
            "over http the token can be read on the way",
            "use https",
        ));
    }
    let patience = Patience {
        connect: PATIENCE,
        ..Patience::default()
    };
    let client = match Client::new(&switchboard.client(), patience, Arc::default()) {
        Ok(client) => client,
        Err(error) => {
            let advice = "the proxy forwards what is in the file and asks again";
            findings.push(Finding::bad("switchboard", error.to_string(), advice));
            return findings;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => findings.extend(runtime.block_on(ask(&client, switchboard))),
        Err(error) => findings.push(Finding::poor("switchboard", error.to_string(), "")),
    }
    findings
}

async fn ask(client: &Client, switchboard: &Switchboard) -> Vec<Finding> {
    let check = "switchboard";
    let url = &switchboard.url;
    let listing = match client.jobs(1, None).await {
        Ok(_) => Finding::good(check, format!("{url} answers and lets the token list jobs")),
        Err(failure) => {
            let advice = advice(&failure);
            return vec![Finding::bad(check, format!("{url}: {failure}"), advice)];
        }
    };
    vec![
        listing,
        rights(client.rights().await),
        expiry(client.token_expiry().await),
    ]
}

fn rights(found: Result<Rights, Failure>) -> Finding {
    let check = "switchboard account";
    match found {
        Ok(Rights::All) => Finding::good(check, "it may read all jobs"),
        Ok(Rights::Some) => Finding::poor(
            check,
            "it may not read all jobs: jobs of others are not exposed, unless it was allowed each",
            "make the token's user a member of the group \"admins\" of the switchboard",
        ),
        Ok(Rights::Unknown) => Finding::note(check, "the switchboard does not say what it may", ""),
        Err(failure) => Finding::note(
            check,
            format!("what it may read is not to be had: {failure}"),
            "",
        ),
    }
}

fn expiry(found: Result<Option<SystemTime>, Failure>) -> Finding {
    let check = "switchboard token";
    let advice = "put a new token into switchboard.token_file; it is read when the file changes";
    match found {
        Ok(Some(at)) => match at.duration_since(SystemTime::now()) {
            Ok(left) if left < SOON => Finding::poor(
                check,
                format!("it expires in {}", duration_ms(millis(left))),
                advice,
            ),
            Ok(left) => Finding::good(check, format!("good for {}", duration_ms(millis(left)))),
            Err(_) => Finding::bad(check, "it has expired", advice),
        },
        Ok(None) => Finding::note(check, "the switchboard does not say how long it lasts", ""),
        Err(failure) => Finding::note(
            check,
            format!("how long it lasts is not to be had: {failure}"),
            "",
        ),
    }
}

fn advice(failure: &Failure) -> &'static str {
    match failure.kind().fault() {
        Fault::Network => "see to the network, the name and the certificate (switchboard.ca_file)",
        Fault::Account => {
            "the token's user has to be allowed to read all jobs: put a good token into \
             switchboard.token_file"
        }
        Fault::Switchboard => "is this the URL of a switchboard, and how does it do?",
    }
}

/// Who may read the token, and whether it can be replaced.
fn token_file(path: &Path) -> Option<Finding> {
    let check = "switchboard.token_file";
    let shown = path.display();
    if path.starts_with(CREDENTIALS) {
        return Some(Finding::note(
            check,
            format!(
                "{shown} is a credential of systemd, which a new token reaches by a restart only"
            ),
            "for tokens that expire, name a file that the service may read: see `tml-proxy help switchboard`",
        ));
    }
    let mode = fs::metadata(path).ok()?.mode();
    (mode & 0o004 != 0).then(|| {
        Finding::poor(
            check,
            format!("{shown} can be read by everybody on this machine"),
            "mode 0640, and a group for the service alone",
        )
    })
}

fn state_dir(switchboard: &Switchboard) -> Finding {
    let check = "switchboard.state_dir";
    let path = switchboard.state_dir.display();
    match fs::metadata(&switchboard.state_dir) {
        Ok(found) if found.is_dir() && found.mode() & 0o002 != 0 => Finding::bad(
            check,
            format!("everybody may write in {path}"),
            "make it private to the user of the proxy: chmod 0700",
        ),
        Ok(found) if found.is_dir() => Finding::good(check, format!("{path} is there")),
        Ok(_) => Finding::bad(
            check,
            format!("{path} is no directory"),
            "name another path",
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::note(
            check,
            format!("{path} is not there yet; the proxy makes it if it may"),
            "under systemd: StateDirectory=tml-proxy",
        ),
        Err(error) => Finding::note(check, format!("{path}: {error}"), ""),
    }
}
