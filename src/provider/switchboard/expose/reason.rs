//! Why something is not exposed, or no longer.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use crate::provider::switchboard::JobState;

/// Why something of a job is not exposed.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    IntoStaticStr,
    VariantArray,
    Serialize,
    Deserialize,
)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The job is in no state in which jobs are exposed.
    State,
    /// The job says no address.
    NoAddress,
    /// No rule fits the job.
    NoRule,
    /// The rule is for jobs on other hosts.
    OtherHosts,
    /// The rule has a port for each host, and that of the job is not known.
    HostUnknown,
    /// Its address is an IPv4 address inside an IPv6 one.
    #[strum(serialize = "mapped_address")]
    Mapped,
    /// Its address is the unspecified one.
    #[strum(serialize = "unspecified_address")]
    Unspecified,
    /// Its address is a loopback address.
    #[strum(serialize = "loopback_address")]
    Loopback,
    /// Its address is link-local.
    #[strum(serialize = "link_local_address")]
    LinkLocal,
    /// Its address is that of a group, or the broadcast address.
    #[strum(serialize = "multicast_address")]
    Multicast,
    /// Its address is in none of the allowed prefixes.
    #[strum(serialize = "address_not_allowed")]
    NotAllowed,
    /// Its address is of another family than `bind`.
    #[strum(serialize = "address_family")]
    Family,
    /// Its address is this machine's own.
    #[strum(serialize = "own_address")]
    Own,
    /// Another live job is said to have the same address, and this one is not known to have had it
    /// first and to be alive.
    SharedAddress,
    /// Its host is gone for too long.
    HostGone,
    /// The job has as many ports as a job may have.
    #[strum(serialize = "max_per_job")]
    TooMany,
    /// It waits for a port.
    NoPort,
    /// Its port could not be opened, and another port would do no better.
    NotOpened,
    /// The state directory cannot be written, and an allocation that is not kept is not used.
    NotKept,
    /// It was exposed before a restart, and the switchboard is asked first.
    NotConfirmed,
    /// Another proxy of the region gave it a port that is not among this one's.
    OtherPorts,
    /// The proxies of the region have not agreed on its port yet: it is not in the database.
    NotAgreed,
    /// The database was not heard of for longer than the lease: its port may be another's.
    LeaseOver,
}

impl Reason {
    /// Every reason.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The reason in one word, as metrics and the log have it.
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// The reason in words, for whoever asks for the job; `state` is the job's.
    pub fn text(self, state: Option<JobState>) -> String {
        let text = match self {
            Self::State => match state {
                Some(JobState::Unknown) => "job is in a state not known here",
                Some(state) => return format!("job is {}", state.word()),
                None => "job is not running",
            },
            Self::NoAddress => "job has no address yet",
            Self::NoRule => "no rule fits the job",
            Self::OtherHosts => "the rule is for jobs on other hosts",
            Self::HostUnknown => "the switchboard does not say on which host the job is",
            Self::Mapped
            | Self::Unspecified
            | Self::Loopback
            | Self::LinkLocal
            | Self::Multicast => return format!("job has no usable address: {}", self.word()),
            Self::NotAllowed => "its address is outside of targets",
            Self::Family => "its address is of the wrong family",
            Self::Own => "its address is the proxy's own",
            Self::SharedAddress => "another job has its address",
            Self::HostGone => "its host is gone",
            Self::TooMany => "job has max_per_job ports",
            Self::NoPort => "no port is free",
            Self::NotOpened => "its port cannot be opened",
            Self::NotKept => "allocations cannot be kept",
            Self::NotConfirmed => "the switchboard is asked first",
            Self::OtherPorts => "its port is outside of switchboard.ports",
            Self::NotAgreed => "its port is not in the fleet's database yet",
            Self::LeaseOver => "the fleet's database was not heard of for longer than the lease",
        };
        text.to_owned()
    }

    /// Whether it is part of every job's life and nobody has to hear of it.
    pub const fn is_ordinary(self) -> bool {
        matches!(
            self,
            Self::State | Self::NoAddress | Self::NoRule | Self::OtherHosts
        )
    }
}

/// Why something that was open no longer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Closing {
    /// The job has ended.
    Ended,
    /// The rule is no longer in the configuration.
    RuleRemoved,
    /// The rule no longer fits the job: it announces other services.
    RuleUnfit,
    /// It may no longer be exposed.
    Refused(Reason),
}

impl Closing {
    /// It in one word, as metrics and the log have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::RuleRemoved => "rule_removed",
            Self::RuleUnfit => "rule_unfit",
            Self::Refused(reason) => reason.word(),
        }
    }
}
