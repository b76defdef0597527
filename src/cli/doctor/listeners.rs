//! Whether each public address can be listened on, tried as `run` would.

use std::{
    collections::{BTreeMap, HashSet},
    io,
};

use rustix::io::Errno;

use super::{PATIENCE, machine::port_range, process::lowest_port, report::Finding};
use crate::{
    admin::api::model::Mappings,
    cli::client::{Client, ClientError, get_from},
    config::Config,
    listen::{ListenError, ListenStep, bind_own, check_congestion, check_transparent, try_bind},
    os_error::in_words,
    table::{ListenAddr, Route, Table},
};

/// Listeners named when they fail; the others are counted.
const NAMED: usize = 10;

/// Who has the ports that are in use.
enum Holder {
    Unknown,
    /// A proxy that cannot be asked which.
    Silent,
    /// A proxy, these.
    Proxy(HashSet<u16>),
}

impl Holder {
    /// Asks the proxy on `client`'s socket, or else at the admin address: a file without a socket
    /// may be in force as well.
    fn find(client: &Client, admin: Option<ListenAddr>) -> Self {
        const PATH: &str = "/api/v1/mappings";
        match client.get::<Mappings>(PATH) {
            Ok(mappings) => Self::Proxy(ports(&mappings)),
            Err(ClientError::Unreachable { error, .. }) if nobody(&error) => match admin {
                Some(admin) => get_from::<Mappings>(&admin.from_here().to_string(), PATH, PATIENCE)
                    .map_or(Self::Unknown, |mappings| Self::Proxy(ports(&mappings))),
                None => Self::Unknown,
            },
            Err(_) => Self::Silent,
        }
    }

    /// Whether a listener that cannot be opened may be the proxy's own.
    fn excuses(&self, error: &ListenError) -> bool {
        match self {
            Self::Unknown => false,
            Self::Silent => error.errno == Errno::ADDRINUSE,
            // It may be allowed what whoever asks here is not.
            Self::Proxy(ports) => ports.contains(&error.listen.port()),
        }
    }
}

fn nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::InvalidInput
    )
}

/// The ports of a proxy's mappings, whose listeners read `HOST:FIRST-LAST` or `HOST:PORT`.
fn ports(mappings: &Mappings) -> HashSet<u16> {
    let routes = mappings.mappings.iter().flat_map(|mapping| &mapping.routes);
    let ranges = routes.filter_map(|route| {
        let (_, ports) = route.listen.rsplit_once(':')?;
        port_range(ports)
    });
    ranges.flatten().collect()
}

pub(super) fn examine(config: &Config, table: &Table, client: &Client) -> Vec<Finding> {
    // By address, so that two runs say the same.
    let routes: BTreeMap<ListenAddr, &Route> = table
        .routes()
        .map(|route| (route.listen, route.as_ref()))
        .collect();
    let failed: Vec<ListenError> = routes
        .values()
        .filter_map(|route| {
            try_bind(route)
                .and_then(|()| check_transparent(route))
                .and_then(|()| check_congestion(route))
                .err()
        })
        .collect();
    let admin = config.admin.listen;
    let admin_failed =
        admin.and_then(|addr| Some((addr, bind_own("admin.listen", &addr, None).err()?)));
    let holder = match failed.is_empty() && admin_failed.is_none() {
        true => Holder::Unknown,
        false => Holder::find(client, admin),
    };
    let fit = routes.len() - failed.len();
    let mut findings = public(fit, failed, &holder);
    findings.extend(admin_failed.and_then(|(addr, error)| endpoint(addr, &error, &holder)));
    findings
}

/// The listeners of mappings, of which `fit` can be opened.
fn public(fit: usize, failed: Vec<ListenError>, holder: &Holder) -> Vec<Finding> {
    let check = "listeners";
    let advice = "the proxy does not start like this, and does not reload";
    let (held, failed): (Vec<_>, Vec<_>) =
        failed.into_iter().partition(|error| holder.excuses(error));
    // That a privilege is missing is said once for all ports.
    let lowest = lowest_port();
    let privileged = |error: &ListenError| {
        (error.step, error.errno) == (ListenStep::Bind, Errno::ACCESS)
            && error.listen.port() < lowest
    };
    let bad: Vec<_> = failed
        .into_iter()
        .filter(|error| !privileged(error))
        .collect();
    let mut findings: Vec<_> = bad
        .iter()
        .take(NAMED)
        .map(|error| Finding::bad(check, error.to_string(), advice))
        .collect();
    if bad.len() > NAMED {
        let more = bad.len() - NAMED;
        findings.push(Finding::bad(
            check,
            format!("{more} more cannot be opened"),
            advice,
        ));
    }
    match holder {
        Holder::Silent if !held.is_empty() => findings.push(Finding::note(
            check,
            format!(
                "{} in use, perhaps by the proxy, which cannot be asked",
                held.len()
            ),
            "",
        )),
        _ if bad.is_empty() && held.is_empty() => {
            findings.push(Finding::good(check, format!("{fit} can be opened")));
        }
        _ if bad.is_empty() => findings.push(Finding::good(
            check,
            format!(
                "{} of the running proxy, {fit} to be opened besides",
                held.len()
            ),
        )),
        _ => {}
    }
    findings
}

/// The admin address that cannot be opened, unless the proxy that runs has it.
fn endpoint(addr: ListenAddr, error: &io::Error, holder: &Holder) -> Option<Finding> {
    let in_use = error.kind() == io::ErrorKind::AddrInUse;
    let excused = in_use && !matches!(holder, Holder::Unknown);
    (!excused).then(|| {
        Finding::bad(
            "admin.listen",
            format!("{addr}: {}", in_words(error)),
            "name another address, or \"off\"; the proxy does not start like this",
        )
    })
}
