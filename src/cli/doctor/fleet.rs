//! Whether the fleet's database takes this proxy.

use std::{fs, os::unix::fs::MetadataExt};

use super::report::Finding;
use crate::fleet::{Fleet, examine as ask};

pub(super) fn examine(fleet: &Fleet) -> Vec<Finding> {
    let check = "fleet";
    let mut findings = Vec::new();
    if let Some(path) = &fleet.password_file
        && fs::metadata(path).is_ok_and(|file| file.mode() & 0o004 != 0)
    {
        findings.push(Finding::poor(
            "fleet.password_file",
            format!(
                "{} can be read by everybody on this machine",
                path.display()
            ),
            "mode 0640, and a group for the service alone",
        ));
    }
    if !fleet.database.is_encrypted {
        findings.push(Finding::note(
            "fleet.database",
            "without TLS whoever is on the way can read what proxies tell each other, and change it",
            "leave sslmode out, unless the way is private",
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    findings.push(match runtime.map(|runtime| runtime.block_on(ask(&fleet.access()))) {
        Ok(Ok(server)) => Finding::good(check, format!("{server} takes writes and has the schema")),
        Ok(Err(error)) => Finding::bad(
            check,
            error.to_string(),
            "the proxy forwards all the same, and other proxies do not know of it: see `tml-proxy help fleet`",
        ),
        Err(error) => Finding::poor(check, error.to_string(), ""),
    });
    findings
}
