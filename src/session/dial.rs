//! Connecting to the target.

use std::{net::SocketAddr, os::fd::OwnedFd, time::Instant};

use rustix::io::Errno;

use super::{
    Choice, Connection,
    choice::{Failure, Next, address},
    error::{SessionError, Step},
};
use crate::{end_reason::EndReason, socket, table::Policy, telemetry::ConnectFailure};

/// Starts connecting to the target of a client, and to others where that fails at once.
pub(super) fn begin(
    connection: &Connection,
    choice: &mut Option<Choice>,
    now: Instant,
) -> Result<OwnedFd, SessionError> {
    let route = &connection.route;
    let client = connection.accepted.client;
    loop {
        let Some(target) = address(route, choice.as_ref()) else {
            return Err(SessionError::during(Step::Connect)(Errno::HOSTUNREACH));
        };
        let error = match start(target, &route.mapping.policy, client) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        let failure = Failure::of(error);
        let next = choice.as_mut().map_or(Next::GiveUp, |choice| {
            choice.after(failure, route, client.ip(), now)
        });
        match next {
            Next::Dial(_) => failure.count(route),
            Next::Pause => {
                failure.count(route);
                // It is in the place of the next until then.
                return socket::open(&target).map_err(SessionError::during(Step::Open));
            }
            Next::GiveUp => return Err(error),
        }
    }
}

/// Opens a socket and starts connecting it. The outcome shows as writability.
pub(super) fn start(
    target: SocketAddr,
    policy: &Policy,
    client: SocketAddr,
) -> Result<OwnedFd, SessionError> {
    let socket = socket::open(&target).map_err(SessionError::during(Step::Open))?;
    prepare(&socket, policy, client).map_err(SessionError::during(Step::Bind))?;
    match socket::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(SessionError::during(Step::Connect)(errno)),
    }
}

/// Sets the socket's options and the address it calls from.
fn prepare(socket: &OwnedFd, policy: &Policy, client: SocketAddr) -> Result<(), Errno> {
    socket::set_stream_options(socket)?;
    socket::use_any_local_port(socket);
    let congestion = policy.congestion.as_ref();
    if let Some(algorithm) = congestion.and_then(|congestion| congestion.target.as_ref()) {
        socket::set_congestion(socket, algorithm)?;
    }
    if let Some(source) = policy.bind {
        if policy.freebind {
            socket::set_freebind(socket, &SocketAddr::new(source, 0))?;
        }
        socket::bind_address(socket, source)?;
    }
    if policy.transparent {
        socket::set_transparent(socket)?;
        // The client's own port, unless another connection has it or it is a privileged one.
        match socket::bind(socket, &client) {
            Err(Errno::ADDRINUSE | Errno::ACCESS) => socket::bind_address(socket, client.ip())?,
            bound => bound?,
        }
    }
    Ok(())
}

/// What it means that connecting failed.
pub(super) fn failed(errno: Errno) -> EndReason {
    match errno {
        Errno::CONNREFUSED => EndReason::ConnectRefused,
        Errno::TIMEDOUT => EndReason::ConnectTimeout,
        // EACCES and EPERM are how ICMPv6 "administratively prohibited" and a local firewall
        // appear.
        Errno::NETUNREACH
        | Errno::HOSTUNREACH
        | Errno::NETDOWN
        | Errno::HOSTDOWN
        | Errno::ACCESS
        | Errno::PERM => EndReason::ConnectUnreachable,
        _ => EndReason::ConnectFailed,
    }
}

/// The failure to count for a session that ended for `reason`.
pub(super) fn connect_failure(reason: EndReason) -> Option<ConnectFailure> {
    match reason {
        EndReason::ConnectRefused => Some(ConnectFailure::Refused),
        EndReason::ConnectUnreachable => Some(ConnectFailure::Unreachable),
        EndReason::ConnectTimeout => Some(ConnectFailure::Timeout),
        EndReason::ConnectFailed => Some(ConnectFailure::Local),
        _ => None,
    }
}
