//! What the kernel said when a session failed, and what was being done.

use std::fmt;

use rustix::io::Errno;

use crate::os_error::in_words;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Opening the socket to the target.
    Open,
    /// Binding it to the address to call from.
    Bind,
    Connect,
    Relay,
}

/// An error of the kernel that a session failed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionError {
    pub(super) step: Step,
    pub(super) errno: Errno,
}

impl SessionError {
    /// Makes one of what the kernel says during a step.
    pub(super) fn during(step: Step) -> impl Fn(Errno) -> Self {
        move |errno| Self { step, errno }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One number means different things in different places.
        let cause = match (self.step, self.errno) {
            (Step::Open, Errno::MFILE | Errno::NFILE) => "no descriptor is left: ",
            (Step::Bind, Errno::ADDRNOTAVAIL) => "this machine does not have the source address: ",
            (Step::Bind, Errno::ADDRINUSE) => "no local port is left at the source address: ",
            (Step::Connect, Errno::ADDRNOTAVAIL | Errno::AGAIN) => {
                "no local port is left towards the target: "
            }
            _ => "",
        };
        write!(f, "{cause}{}", in_words(&self.errno.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_port_a_missing_address_and_a_missing_descriptor_do_not_look_alike() {
        let said = |step, errno| SessionError { step, errno }.to_string();
        let texts = [
            said(Step::Connect, Errno::ADDRNOTAVAIL),
            said(Step::Bind, Errno::ADDRNOTAVAIL),
            said(Step::Open, Errno::MFILE),
            said(Step::Relay, Errno::TIMEDOUT),
        ];
        assert_eq!(
            texts,
            [
                "no local port is left towards the target: Cannot assign requested address",
                "this machine does not have the source address: Cannot assign requested address",
                "no descriptor is left: Too many open files",
                "Connection timed out",
            ]
        );
    }
}
