//! What the process may use, and whether it runs.

use std::{fs, num::NonZero, os::unix::fs::PermissionsExt};

use rustix::thread::{CapabilitySet, capabilities};

use super::{machine::kernel_setting, report::Finding};
use crate::{
    admin::api::model::Status,
    cli::client::{Client, ClientError},
    config::{AutoOr, Config},
    lifecycle::{self, Budget},
    table::Table,
};

/// Below so many sessions a public proxy is soon full.
const FEW_SESSIONS: u32 = 1000;

pub(super) fn examine(config: &Config, table: &Table) -> Vec<Finding> {
    vec![
        descriptors(config, table),
        pipes(config),
        privileged_ports(table),
    ]
}

fn descriptors(config: &Config, table: &Table) -> Finding {
    let check = "descriptors";
    let wanted = config.limits.max_sessions.value().map(NonZero::get);
    let workers = 2 * lifecycle::worker_count(config);
    let Budget {
        descriptors,
        listeners,
        fit,
        pipes,
        ..
    } = Budget::divide(config, table.routes().len(), workers);
    let found =
        format!("{descriptors} make {fit} sessions beside {listeners} listeners and {pipes} pipes");
    let advice = "raise LimitNOFILE in the unit (two descriptors a session)";
    match wanted {
        Some(wanted) if wanted > fit => Finding::bad(
            check,
            format!("{found}; max_sessions asks for {wanted}"),
            advice,
        ),
        None if fit < FEW_SESSIONS => Finding::poor(check, found, advice),
        _ => Finding::good(check, found),
    }
}

fn pipes(config: &Config) -> Finding {
    let check = "pipe memory";
    if !config.process.splice || config.process.pipes == AutoOr::Value(0) {
        return Finding::note(check, "splicing is off, everything is copied", "");
    }
    let Some(memory) = lifecycle::pipe_memory() else {
        return Finding::note(
            check,
            "whoever asks is exempt from the limit; the proxy's own user may not be",
            "ask again as that user",
        );
    };
    let size = config.process.pipe_size as u64;
    let fit = memory / size;
    let (found, mib) = (
        format!("{fit} pipes of {} KiB fit", size >> 10),
        memory >> 20,
    );
    match fit {
        0..16 => Finding::poor(
            check,
            format!(
                "{found} into {mib} MiB: as many transfers splice at a time, others are copied"
            ),
            "raise fs.pipe-user-pages-soft, or lower process.pipe_size",
        ),
        _ => Finding::good(check, found),
    }
}

fn privileged_ports(table: &Table) -> Finding {
    let check = "ports";
    let lowest = lowest_port();
    let privileged = table
        .routes()
        .filter(|route| route.listen.port() < lowest)
        .count();
    match privileged {
        0 => Finding::good(check, "none needs a privilege to be bound"),
        _ if may_bind() => Finding::good(
            check,
            format!("{privileged} are privileged, and may be bound"),
        ),
        _ => Finding::bad(
            check,
            format!("{privileged} are below {lowest} and may not be bound"),
            "give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE",
        ),
    }
}

/// The first port that anybody may bind.
pub(super) fn lowest_port() -> u16 {
    let lowest = kernel_setting("net/ipv4/ip_unprivileged_port_start");
    lowest.and_then(|text| text.parse().ok()).unwrap_or(1024)
}

fn may_bind() -> bool {
    let own = capabilities(None).map(|sets| sets.effective);
    own.is_ok_and(|own| own.contains(CapabilitySet::NET_BIND_SERVICE))
}

/// Whether a proxy answers at the admin socket, and who else may use that. `named` is whether the
/// socket is the operator's choice.
pub(super) fn running(client: &Client, named: bool) -> Finding {
    let check = "admin socket";
    let path = client.socket.display();
    match client.get::<Status>("/api/v1/status") {
        Ok(status) if open_to_all(client) => Finding::bad(
            check,
            format!(
                "{path}: {} answers, and every user may change things there",
                status.version
            ),
            "set admin.socket_mode = \"0660\" and admin.socket_group",
        ),
        Ok(status) if !status.problems.is_empty() => {
            let problems: Vec<&str> = status.problems.iter().map(|p| p.text.as_str()).collect();
            Finding::poor(
                check,
                format!("{path}: {}", problems.join(" ")),
                "see `tml-proxy status`",
            )
        }
        Ok(status) => Finding::good(check, format!("{path}: {} is serving", status.version)),
        Err(_) if !named => Finding::note(
            check,
            "the file asks for none: the commands cannot reach the proxy",
            "set admin.socket",
        ),
        Err(error @ ClientError::Unreachable { .. }) => Finding::note(
            check,
            error.to_string(),
            "start the proxy, or ask as a user of its group",
        ),
        Err(error) => Finding::poor(check, format!("{path}: {error}"), ""),
    }
}

fn open_to_all(client: &Client) -> bool {
    const OTHERS_WRITE: u32 = 0o002;
    fs::metadata(&client.socket).is_ok_and(|file| file.permissions().mode() & OTHERS_WRITE != 0)
}
