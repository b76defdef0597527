//! Opening one listening socket.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    sync::Once,
};

use rustix::io::Errno;

use crate::{
    os_error::in_words,
    socket,
    table::{ListenAddr, ListenHost, Policy, Route},
};

/// What was being done when a listener failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenStep {
    /// socket(2) and its options.
    Open,
    Bind,
    Listen,
    /// Asking for what connections from clients' addresses need.
    Transparent,
    /// Choosing how congestion is controlled.
    Congestion,
}

/// A listening socket that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen on {listen} for mapping {mapping:?}: {}", explain(*step, *errno, listen))]
pub struct ListenError {
    pub listen: ListenAddr,
    pub mapping: String,
    pub step: ListenStep,
    /// How the kernel put it.
    pub errno: Errno,
}

fn explain(step: ListenStep, errno: Errno, listen: &ListenAddr) -> String {
    let port = listen.port();
    match (step, errno) {
        (ListenStep::Bind | ListenStep::Listen, Errno::ADDRINUSE) => format!(
            "the port is in use by another socket (`ss -ltnp 'sport = {port}'` shows whose)"
        ),
        (ListenStep::Bind, Errno::ACCESS) => format!(
            "port {port} is privileged: it needs CAP_NET_BIND_SERVICE, \
             or a lower net.ipv4.ip_unprivileged_port_start"
        ),
        (ListenStep::Bind, Errno::ADDRNOTAVAIL) => "this machine does not have the address; \
             if it appears later, set `freebind = true`"
            .to_owned(),
        (ListenStep::Transparent, Errno::PERM) => {
            "`transparent` needs the capability CAP_NET_RAW or CAP_NET_ADMIN, and this process has neither"
                .to_owned()
        }
        (ListenStep::Transparent, _) => {
            format!("`transparent` is not possible on this machine: {errno}")
        }
        (ListenStep::Congestion, Errno::PERM) => format!(
            "`congestion` needs the capability CAP_NET_ADMIN for what is not among {}",
            congestion_names("allowed")
        ),
        (ListenStep::Congestion, Errno::NOENT) => format!(
            "`congestion` names what this kernel does not have, or has not loaded: there are {}",
            congestion_names("available")
        ),
        (ListenStep::Open, Errno::AFNOSUPPORT) => format!(
            "this kernel has no IPv6: listen on an IPv4 address, or on {port}, which is then every IPv4 address"
        ),
        (ListenStep::Open, Errno::MFILE | Errno::NFILE) => {
            format!(
                "{}: raise the limit on open files (RLIMIT_NOFILE)",
                in_words(&errno.into())
            )
        }
        _ => in_words(&errno.into()),
    }
}

/// The algorithms that the kernel says are available or allowed.
fn congestion_names(which: &str) -> String {
    let name = format!("tcp_{which}_congestion_control");
    let found = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
    // Where there is no /proc, the name says where to look.
    format!("net.ipv4.{name} = {}", found.unwrap_or_default().trim())
}

/// Opens the listening socket of a route.
///
/// `leaving` are sockets of ours whose addresses may overlap: they are about to be closed and do not
/// stand in its way.
///
/// # Errors
///
/// The step that failed and the kernel's reason; no socket stays behind.
pub fn bind(route: &Route, leaving: &[&OwnedFd]) -> Result<OwnedFd, ListenError> {
    let (socket, addr) = open(route)?;
    let backlog = route.mapping.policy.backlog;
    match listen_beside(&socket, &addr, backlog, leaving) {
        Ok(()) => Ok(socket),
        Err((step, errno)) => Err(failed(route, step)(errno)),
    }
}

/// Whether a socket listens exactly where [`bind`] would have one listen for this address.
pub fn listens_at(socket: &OwnedFd, addr: &ListenAddr) -> bool {
    let any = addr.host() == ListenHost::Any;
    let without_v6 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
    socket::listens(socket, &addr.socket_addr(), !any)
        || (any && !has_ipv6() && socket::listens(socket, &without_v6, false))
}

/// Has a socket that listens at the address of a route serve it, in the place of [`bind`].
pub(super) fn take_on(route: &Route, socket: &OwnedFd) -> Result<(), ListenError> {
    let policy = &route.mapping.policy;
    let options = socket::set_nonblocking(socket)
        .and_then(|()| socket::set_reuse_port(socket, false))
        .and_then(|()| socket::set_stream_options(socket));
    options.map_err(failed(route, ListenStep::Open))?;
    adjust(socket, policy).map_err(failed(route, ListenStep::Listen))
}

/// Has a socket listen at `addr`. `leaving` is as in [`bind`].
fn listen_beside(
    socket: &OwnedFd,
    addr: &SocketAddr,
    backlog: u32,
    leaving: &[&OwnedFd],
) -> Result<(), (ListenStep, Errno)> {
    let at = |step| move |errno| (step, errno);
    let _shared = Shared::begin(leaving, socket).map_err(at(ListenStep::Open))?;
    socket::bind(socket, addr).map_err(at(ListenStep::Bind))?;
    socket::listen(socket, backlog).map_err(at(ListenStep::Listen))
}

/// Whether the listening socket of a route could be opened now. No client can connect meanwhile:
/// bind(2) already says whether another socket listens there.
pub fn try_bind(route: &Route) -> Result<(), ListenError> {
    let (socket, addr) = open(route)?;
    socket::bind(&socket, &addr).map_err(failed(route, ListenStep::Bind))
}

/// Opens a listening socket that is no mapping's, but what the setting `key` asks for. An address means
/// what it means in a mapping; one that this machine does not have yet is served once it is there.
///
/// `leaving` is as in [`bind`].
pub fn bind_own(
    key: &str,
    addr: &ListenAddr,
    leaving: Option<&OwnedFd>,
) -> io::Result<TcpListener> {
    /// Few connect, and most of them once in a while.
    const BACKLOG: u32 = 1024;
    let (socket, bound) = socket_for(addr)?;
    match listen_beside(&socket, &bound, BACKLOG, leaving.as_slice()) {
        Err((_, Errno::ADDRNOTAVAIL)) => {
            tracing::warn!(key, %addr, "this machine does not have the address yet");
            socket::set_freebind(&socket, &bound)?;
            listen_beside(&socket, &bound, BACKLOG, leaving.as_slice())
        }
        done => done,
    }
    .map_err(|(_, errno)| errno)?;
    Ok(TcpListener::from(socket))
}

fn failed(route: &Route, step: ListenStep) -> impl FnOnce(Errno) -> ListenError {
    move |errno| ListenError {
        listen: route.listen,
        mapping: route.mapping.name.to_string(),
        step,
        errno,
    }
}

/// Sockets that share their port for as long as this lives.
///
/// Linux lets a socket listen beside another that overlaps it if both have `SO_REUSEPORT` at that
/// moment and one user, whatever they had when they were bound. Each has an address of its own, so
/// they do not become a group that shares connections: the more specific address gets them.
struct Shared<'a>(Vec<&'a OwnedFd>);

impl<'a> Shared<'a> {
    fn begin(leaving: &[&'a OwnedFd], new: &'a OwnedFd) -> Result<Self, Errno> {
        if leaving.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let shared = Self(leaving.iter().copied().chain([new]).collect());
        for socket in &shared.0 {
            socket::set_reuse_port(socket, true)?;
        }
        Ok(shared)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        for socket in &self.0 {
            // It was set a moment ago; left as it is, other processes of the user could listen too.
            static SAID: Once = Once::new();
            if let Err(errno) = socket::set_reuse_port(socket, false) {
                let error = in_words(&errno.into());
                SAID.call_once(|| tracing::warn!(error, "SO_REUSEPORT stays set on a listener"));
            }
        }
    }
}

/// Whether connections to the target of a route can have what its policy asks for.
pub fn check_transparent(route: &Route) -> Result<(), ListenError> {
    if !route.mapping.policy.transparent {
        return Ok(());
    }
    // They are of one family.
    let Some(target) = route.target.addresses().first().copied() else {
        return Ok(());
    };
    socket::open(&target)
        .and_then(|socket| socket::set_transparent(&socket))
        .map_err(failed(route, ListenStep::Transparent))
}

/// Whether the sockets of a route can have the algorithms that its policy asks for.
pub fn check_congestion(route: &Route) -> Result<(), ListenError> {
    let Some(congestion) = &route.mapping.policy.congestion else {
        return Ok(());
    };
    let set = || {
        // The same algorithms serve both families.
        let socket = socket::open(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        let names = [&congestion.client, &congestion.target];
        let mut names = names.into_iter().flatten();
        names.try_for_each(|name| socket::set_congestion(&socket, name))
    };
    set().map_err(failed(route, ListenStep::Congestion))
}

/// The socket of a route and what to bind it to.
fn open(route: &Route) -> Result<(OwnedFd, SocketAddr), ListenError> {
    prepared(&route.listen, &route.mapping.policy).map_err(failed(route, ListenStep::Open))
}

fn prepared(addr: &ListenAddr, policy: &Policy) -> Result<(OwnedFd, SocketAddr), Errno> {
    let (socket, bound) = socket_for(addr)?;
    if policy.freebind {
        socket::set_freebind(&socket, &bound)?;
    }
    socket::set_stream_options(&socket)?;
    socket::set_keepalive(&socket, policy.keepalive.map(Into::into))?;
    if let Some(algorithm) = towards_clients(policy) {
        socket::set_congestion(&socket, algorithm)?;
    }
    Ok((socket, bound))
}

/// How congestion is controlled on accepted sockets, which inherit it.
fn towards_clients(policy: &Policy) -> Option<&str> {
    policy.congestion.as_ref()?.client.as_deref()
}

/// A socket for a public address, and what to bind it to: without IPv6 in the kernel, every address
/// is every IPv4 address.
fn socket_for(addr: &ListenAddr) -> Result<(OwnedFd, SocketAddr), Errno> {
    let mut bound = addr.socket_addr();
    let socket = match (socket::open(&bound), addr.host()) {
        (Err(Errno::AFNOSUPPORT), ListenHost::Any) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::warn!(
                    "this kernel has no IPv6: ports of every address are listened on with IPv4 alone"
                );
            });
            bound = SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
            socket::open(&bound)
        }
        (opened, _) => opened,
    }?;
    socket::set_reuse_address(&socket)?;
    if bound.is_ipv6() {
        socket::set_only_v6(&socket, addr.host() != ListenHost::Any)?;
    }
    Ok((socket, bound))
}

pub fn has_ipv6() -> bool {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    !matches!(socket::open(&any), Err(Errno::AFNOSUPPORT))
}

/// Applies a changed policy to a socket that stays open.
pub(super) fn adjust(socket: &OwnedFd, policy: &Policy) -> Result<(), Errno> {
    socket::set_keepalive(socket, policy.keepalive.map(Into::into))?;
    match towards_clients(policy) {
        Some(algorithm) => socket::set_congestion(socket, algorithm)?,
        None => socket::set_default_congestion(socket)?,
    }
    socket::listen(socket, policy.backlog)
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, path::Path};

    use proptest::prelude::*;

    use super::*;
    use crate::config;

    /// Addresses of every kind there is, most of them special.
    fn addresses() -> impl Strategy<Value = IpAddr> {
        let v4 = prop_oneof![
            any::<u32>(),
            (
                any::<u32>(),
                prop::sample::select(&[0_u32, 127, 169, 224, 240, 255][..])
            )
                .prop_map(|(bits, first)| bits >> 8 | first << 24),
            Just(u32::MAX),
        ];
        let v6 = prop_oneof![
            any::<u128>(),
            (
                any::<u128>(),
                prop::sample::select(&[0xfe80_u128, 0xfebf, 0xfec0, 0xff02, 0xfd00][..])
            )
                .prop_map(|(bits, first)| bits >> 16 | first << 112),
            any::<u32>().prop_map(u128::from),
            any::<u32>().prop_map(|v4| 0xffff << 32 | u128::from(v4)),
        ];
        prop_oneof![
            v4.prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
            v6.prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        ]
    }

    fn policy(ip: IpAddr) -> Option<Policy> {
        let target = if ip.is_ipv4() {
            "127.0.0.1:9"
        } else {
            "[::1]:9"
        };
        let text = format!(
            "version = 1\n[[mapping]]\nname = \"m\"\nlisten = 1\ntarget = \"{target}\"\nbind = \"{ip}\""
        );
        let config = config::parse(&text, Path::new("f")).ok()?;
        Some((*config.mappings[0].policy).clone())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Whether this machine has them is another question, which freebind does not ask.
        #[test]
        fn addresses_that_a_configuration_may_have_can_be_bound(ip in addresses()) {
            let bound = |socket: OwnedFd, to: SocketAddr| {
                socket::set_freebind(&socket, &to).expect("an option of every socket");
                socket::bind(&socket, &to)
            };
            let written = SocketAddr::new(ip, 1 << 15).to_string();
            if let Ok(addr) = ListenAddr::parse(&written) {
                let (socket, to) = socket_for(&addr).expect("both families");
                let done = bound(socket, to);
                prop_assert!(matches!(done, Ok(()) | Err(Errno::ADDRINUSE)), "listen {ip}: {done:?}");
            }
            if let Some(source) = policy(ip).and_then(|policy| policy.bind) {
                let to = SocketAddr::new(source, 0);
                let socket = socket::open(&to).expect("both families");
                let done = bound(socket, to);
                prop_assert!(done.is_ok(), "bind {ip}: {done:?}");
            }
        }
    }
}
