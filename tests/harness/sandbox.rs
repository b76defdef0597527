//! Programs in a kernel that lacks something, or may not be asked for it: seccomp(2) answers in its
//! place.

use std::{collections::BTreeMap, env::consts::ARCH, thread};

use libc::{EAFNOSUPPORT, EPERM, EPROTONOSUPPORT};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// What a kernel may lack.
#[derive(Debug, Clone, Copy)]
pub enum Lack {
    /// IPv6: booted with `ipv6.disable=1`, or a unit without `AF_INET6`.
    Ipv6,
    /// sock_diag(7), as in gVisor.
    SockDiag,
    /// prlimit(2), which asks for limits and sets them.
    Prlimit,
}

impl Lack {
    fn filter(self) -> SeccompFilter {
        let is = |argument, value: i32| {
            let value = u64::try_from(value).expect("it is positive");
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
                .expect("a call has six arguments")
        };
        let rule = |conditions| SeccompRule::new(conditions).expect("it has conditions");
        let (call, rules, errno) = match self {
            Self::Ipv6 => {
                let of_family = rule(vec![is(0, libc::AF_INET6)]);
                (libc::SYS_socket, vec![of_family], EAFNOSUPPORT)
            }
            Self::SockDiag => {
                let family = is(0, libc::AF_NETLINK);
                let protocol = is(2, libc::NETLINK_SOCK_DIAG);
                let of_both = rule(vec![family, protocol]);
                (libc::SYS_socket, vec![of_both], EPROTONOSUPPORT)
            }
            Self::Prlimit => (libc::SYS_prlimit64, Vec::new(), EPERM),
        };
        SeccompFilter::new(
            BTreeMap::from([(call, rules)]),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.unsigned_abs()),
            ARCH.try_into().expect("an architecture with seccomp"),
        )
        .expect("a small filter")
    }
}

/// Runs a piece of the test in such a kernel; programs started there stay there.
pub fn without<T: Send>(lack: Lack, act: impl FnOnce() -> T + Send) -> T {
    let filter: BpfProgram = lack.filter().try_into().expect("a small filter");
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            apply_filter(&filter).expect("anybody may restrict himself");
            act()
        });
        match inside.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
