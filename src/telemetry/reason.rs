//! Why a session ended: one word for machines, and the two letters HAProxy's users know.

/// Why a session ended.
///
/// The two-letter [code](Self::code) follows HAProxy's termination states: who ended the session
/// (`C` client, `S` target, `P` policy, `R` resources, `K` killed, `I` internal; small letters:
/// that side's time ran out), then when (`C` while connecting, `D` with the session established,
/// `-` complete).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Both sides closed, every byte was delivered.
    Closed,
    /// The client reset the connection.
    ClientReset,
    /// The target reset the connection.
    TargetReset,
    /// The client's host stopped answering.
    ClientLost,
    /// The target's host stopped answering.
    TargetLost,
    /// Neither side sent anything for `idle_timeout`.
    IdleTimeout,
    /// The target had closed and the client was silent for `half_close_timeout`.
    ClientHalfCloseTimeout,
    /// The client had closed and the target was silent for `half_close_timeout`.
    TargetHalfCloseTimeout,
    /// The client left before the target had answered.
    ClientGone,
    /// The target's host refused the connection.
    ConnectRefused,
    /// No way to the target.
    ConnectUnreachable,
    /// The target did not answer within `connect_timeout`.
    ConnectTimeout,
    /// This machine could not open a connection to the target.
    ConnectFailed,
    /// The client's address may not connect.
    Denied,
    /// The mapping has `max_sessions` sessions already.
    MappingFull,
    /// The process has no room for another session.
    NoResources,
    /// The client's network has `max_sessions_per_source` sessions already.
    SourceFull,
    /// The client's network begins more sessions than `new_sessions_per_second_per_source`.
    SourceRate,
    /// The mapping's clients begin more sessions than `new_sessions_per_second`.
    MappingRate,
    /// All clients together begin more sessions than `limits.new_sessions_per_second`.
    ProcessRate,
    /// `max_dialling` sessions wait for their target already.
    DiallingFull,
    /// The client's network ran into limits too often and is put aside.
    PutAside,
    /// A front that may say whose its connections are sent no PROXY header, or none that is valid.
    ProxyHeaderInvalid,
    /// Such a front sent no whole header within `proxy_header_timeout`.
    ProxyHeaderTimeout,
    /// The mapping was removed, and its policy closes sessions then.
    MappingRemoved,
    /// The mapping leads to another target now, and its policy closes sessions then.
    MappingRetargeted,
    /// The time to finish after a removal, a new target or an operator's drain ran out.
    DrainDeadline,
    /// An operator ended it.
    Killed,
    /// The proxy stops.
    Shutdown,
    /// This machine refused to move its bytes for too long: no memory, or a security module.
    SystemError,
    /// A fault of the proxy itself.
    Internal,
    /// It goes on in a mapping of another name. Only counted: no session ends for it.
    Renamed,
}

impl EndReason {
    /// Every reason there is, in the order of their numbers.
    pub const ALL: [Self; 32] = [
        Self::Closed,
        Self::ClientReset,
        Self::TargetReset,
        Self::ClientLost,
        Self::TargetLost,
        Self::IdleTimeout,
        Self::ClientHalfCloseTimeout,
        Self::TargetHalfCloseTimeout,
        Self::ClientGone,
        Self::ConnectRefused,
        Self::ConnectUnreachable,
        Self::ConnectTimeout,
        Self::ConnectFailed,
        Self::Denied,
        Self::MappingFull,
        Self::NoResources,
        Self::SourceFull,
        Self::SourceRate,
        Self::MappingRate,
        Self::ProcessRate,
        Self::DiallingFull,
        Self::PutAside,
        Self::ProxyHeaderInvalid,
        Self::ProxyHeaderTimeout,
        Self::MappingRemoved,
        Self::MappingRetargeted,
        Self::DrainDeadline,
        Self::Killed,
        Self::Shutdown,
        Self::SystemError,
        Self::Internal,
        Self::Renamed,
    ];

    /// The reason in one word, as metrics and the log carry it.
    pub const fn word(self) -> &'static str {
        self.words().1
    }

    /// HAProxy's two letters.
    pub const fn code(self) -> &'static str {
        self.words().0
    }

    /// Whether the client got no session at all. Such an end is counted, but nothing was opened.
    pub const fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Denied
                | Self::MappingFull
                | Self::NoResources
                | Self::SourceFull
                | Self::SourceRate
                | Self::MappingRate
                | Self::ProcessRate
                | Self::DiallingFull
                | Self::PutAside
                | Self::ProxyHeaderInvalid
                | Self::ProxyHeaderTimeout
        )
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Closed => ("--", "closed"),
            Self::ClientReset => ("CD", "client_reset"),
            Self::TargetReset => ("SD", "target_reset"),
            Self::ClientLost => ("CD", "client_lost"),
            Self::TargetLost => ("SD", "target_lost"),
            Self::IdleTimeout => ("cD", "idle_timeout"),
            Self::ClientHalfCloseTimeout => ("cD", "client_half_close_timeout"),
            Self::TargetHalfCloseTimeout => ("sD", "target_half_close_timeout"),
            Self::ClientGone => ("CC", "client_gone"),
            Self::ConnectRefused => ("SC", "connect_refused"),
            Self::ConnectUnreachable => ("SC", "connect_unreachable"),
            Self::ConnectTimeout => ("sC", "connect_timeout"),
            Self::ConnectFailed => ("RC", "connect_failed"),
            Self::Denied => ("PC", "denied"),
            Self::MappingFull => ("PC", "mapping_full"),
            Self::NoResources => ("RC", "no_resources"),
            Self::SourceFull => ("PC", "source_full"),
            Self::SourceRate => ("PC", "source_rate"),
            Self::MappingRate => ("PC", "mapping_rate"),
            Self::ProcessRate => ("PC", "process_rate"),
            Self::DiallingFull => ("PC", "dialling_full"),
            Self::PutAside => ("PC", "put_aside"),
            Self::ProxyHeaderInvalid => ("CC", "proxy_header_invalid"),
            Self::ProxyHeaderTimeout => ("cC", "proxy_header_timeout"),
            Self::MappingRemoved => ("KD", "mapping_removed"),
            Self::MappingRetargeted => ("KD", "mapping_retargeted"),
            Self::DrainDeadline => ("KD", "drain_deadline"),
            Self::Killed => ("KD", "killed"),
            Self::Shutdown => ("KD", "shutdown"),
            Self::SystemError => ("RD", "system_error"),
            Self::Internal => ("ID", "internal"),
            Self::Renamed => ("--", "renamed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::EndReason;

    #[test]
    fn every_reason_has_its_number_and_a_word_of_its_own() {
        let mut words = std::collections::HashSet::new();
        for (number, reason) in EndReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            assert!(words.insert(reason.word()), "{} twice", reason.word());
        }
    }

    #[test]
    fn every_reason_is_explained() {
        const DOCUMENT: &str = include_str!("../../config/session-log.md");
        let rows: Vec<&str> = DOCUMENT
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        for reason in EndReason::ALL {
            let start = format!("| `{}` | `{}` | ", reason.code(), reason.word());
            let count = rows.iter().filter(|row| row.starts_with(&start)).count();
            assert_eq!(count, 1, "{start}");
        }
    }
}
