//! Why something is not exposed.

use crate::provider::switchboard::JobState;

/// Why something of a job is not exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The job is in no state in which jobs are exposed.
    State,
    /// The job says no address.
    NoAddress,
    /// No rule fits the job.
    NoRule,
    /// Its address is an IPv4 address inside an IPv6 one.
    Mapped,
    /// Its address is the unspecified one.
    Unspecified,
    /// Its address is a loopback address.
    Loopback,
    /// Its address is link-local.
    LinkLocal,
    /// Its address is that of a group, or the broadcast address.
    Multicast,
    /// Its address is in none of the allowed prefixes.
    NotAllowed,
    /// Its address is of another family than `bind`.
    Family,
    /// Its address is this machine's own.
    Own,
    /// Another live job is said to have the same address, and this one is not known to have had it
    /// first and to be alive.
    SharedAddress,
    /// Its host is gone for too long.
    HostGone,
    /// The job has as many ports as a job may have.
    TooMany,
    /// It waits for a port.
    NoPort,
    /// Its port could not be opened, and another port would do no better.
    NotOpened,
    /// The state directory cannot be written, and an allocation that is not kept is not used.
    NotKept,
    /// It was exposed before a restart, and the switchboard is asked first.
    NotConfirmed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::State,
        Self::NoAddress,
        Self::NoRule,
        Self::Mapped,
        Self::Unspecified,
        Self::Loopback,
        Self::LinkLocal,
        Self::Multicast,
        Self::NotAllowed,
        Self::Family,
        Self::Own,
        Self::SharedAddress,
        Self::HostGone,
        Self::TooMany,
        Self::NoPort,
        Self::NotOpened,
        Self::NotKept,
        Self::NotConfirmed,
    ];

    /// The reason in one word, as metrics and the log have it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::NoAddress => "no_address",
            Self::NoRule => "no_rule",
            Self::Mapped => "mapped_address",
            Self::Unspecified => "unspecified_address",
            Self::Loopback => "loopback_address",
            Self::LinkLocal => "link_local_address",
            Self::Multicast => "multicast_address",
            Self::NotAllowed => "address_not_allowed",
            Self::Family => "address_family",
            Self::Own => "own_address",
            Self::SharedAddress => "shared_address",
            Self::HostGone => "host_gone",
            Self::TooMany => "max_per_job",
            Self::NoPort => "no_port",
            Self::NotOpened => "not_opened",
            Self::NotKept => "not_kept",
            Self::NotConfirmed => "not_confirmed",
        }
    }

    /// The reason in words, for whoever asks for the job; `state` is the job's.
    pub fn text(self, state: Option<JobState>) -> String {
        match self {
            Self::State => match state {
                Some(JobState::Unknown) => "job is in a state not known here".to_owned(),
                Some(state) => format!("job is {}", state.word()),
                None => "job is not running".to_owned(),
            },
            Self::NoAddress => "job has no address yet".to_owned(),
            Self::NoRule => "no rule fits the job".to_owned(),
            Self::Mapped
            | Self::Unspecified
            | Self::Loopback
            | Self::LinkLocal
            | Self::Multicast => format!("job has no usable address: {}", self.word()),
            Self::NotAllowed => "its address is outside of targets".to_owned(),
            Self::Family => "its address is of the wrong family".to_owned(),
            Self::Own => "its address is the proxy's own".to_owned(),
            Self::SharedAddress => "another job has its address".to_owned(),
            Self::HostGone => "its host is gone".to_owned(),
            Self::TooMany => "job has max_per_job ports".to_owned(),
            Self::NoPort => "no port is free".to_owned(),
            Self::NotOpened => "its port cannot be opened".to_owned(),
            Self::NotKept => "allocations cannot be kept".to_owned(),
            Self::NotConfirmed => "the switchboard is asked first".to_owned(),
        }
    }

    /// Whether it is part of every job's life and nobody has to hear of it.
    pub const fn is_ordinary(self) -> bool {
        matches!(self, Self::State | Self::NoAddress | Self::NoRule)
    }
}
