//! Why a session ended: one word for machines, and the two letters HAProxy's users know.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Defines the reasons from one list: what each means, whether it is a refusal, its code, its word.
macro_rules! reasons {
    ($($(#[$meaning:meta])+ $name:ident = $kind:ident $code:literal $word:literal;)+) => {
        /// Why a session ended.
        ///
        /// The two-letter [code](Self::code) follows HAProxy's termination states: who ended the
        /// session (`C` client, `S` target, `P` policy, `R` resources, `K` killed, `I` internal; small
        /// letters: that side's time ran out), then when (`Q` waiting for a target that has room, `C`
        /// while connecting, `D` with the session established, `-` complete).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EndReason {
            $($(#[$meaning])+ $name,)+
        }

        impl EndReason {
            /// Every reason there is, in the order of their numbers.
            pub const ALL: [Self; [$($code),+].len()] = [$(Self::$name),+];

            /// The reason in one word, as metrics and the log carry it.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }

            /// HAProxy's two letters.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// Whether the client got no session at all. Such an end is counted, but nothing was opened.
            pub const fn is_refusal(self) -> bool {
                match self {
                    $(Self::$name => is_refusal!($kind),)+
                }
            }
        }
    };
}

impl EndReason {
    /// The reason that has this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }
}

impl Serialize for EndReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.word().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EndReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        let unknown = || D::Error::custom(format_args!("{word:?} is no reason to end"));
        Self::of_word(&word).ok_or_else(unknown)
    }
}

macro_rules! is_refusal {
    (refusal) => {
        true
    };
    (end) => {
        false
    };
}

reasons! {
    /// Both sides closed, every byte was delivered.
    Closed = end "--" "closed";
    /// The client reset the connection.
    ClientReset = end "CD" "client_reset";
    /// The target reset the connection.
    TargetReset = end "SD" "target_reset";
    /// The client's host stopped answering.
    ClientLost = end "CD" "client_lost";
    /// The target's host stopped answering.
    TargetLost = end "SD" "target_lost";
    /// Neither side sent anything for `idle_timeout`.
    IdleTimeout = end "cD" "idle_timeout";
    /// The target had closed and the client was silent for `half_close_timeout`.
    ClientHalfCloseTimeout = end "cD" "client_half_close_timeout";
    /// The client had closed and the target was silent for `half_close_timeout`.
    TargetHalfCloseTimeout = end "sD" "target_half_close_timeout";
    /// The session was as old as `max_duration` allows.
    MaxDuration = end "PD" "max_duration";
    /// The client left before the target had answered.
    ClientGone = end "CC" "client_gone";
    /// The target's host refused the connection.
    ConnectRefused = end "SC" "connect_refused";
    /// No way to the target.
    ConnectUnreachable = end "SC" "connect_unreachable";
    /// The target did not answer within `connect_timeout`.
    ConnectTimeout = end "sC" "connect_timeout";
    /// This machine could not open a connection to the target.
    ConnectFailed = end "RC" "connect_failed";
    /// The client's address may not connect.
    Denied = refusal "PC" "denied";
    /// The mapping has `max_sessions` sessions already.
    MappingFull = refusal "PC" "mapping_full";
    /// None of the mapping's targets is up, or none has an address.
    NoTarget = refusal "SC" "no_target";
    /// All targets that are up have `max_sessions` sessions already.
    TargetFull = refusal "PC" "target_full";
    /// All targets are full, and `queue` has as many clients as it may.
    QueueFull = refusal "PC" "queue_full";
    /// No target had room for the client within the time of `queue`.
    QueueTimeout = refusal "sQ" "queue_timeout";
    /// The process has no room for another session.
    NoResources = refusal "RC" "no_resources";
    /// The client's network has `max_sessions_per_source` sessions already.
    SourceFull = refusal "PC" "source_full";
    /// The client's network begins more sessions than `new_sessions_per_second_per_source`.
    SourceRate = refusal "PC" "source_rate";
    /// The mapping's clients begin more sessions than `new_sessions_per_second`.
    MappingRate = refusal "PC" "mapping_rate";
    /// All clients together begin more sessions than `limits.new_sessions_per_second`.
    ProcessRate = refusal "PC" "process_rate";
    /// `max_dialling` sessions wait for their target already.
    DiallingFull = refusal "PC" "dialling_full";
    /// The client's network ran into limits too often and is banned for a while.
    Banned = refusal "PC" "banned";
    /// A front that may say whose its connections are sent no PROXY header, or none that is valid.
    ProxyHeaderInvalid = refusal "CC" "proxy_header_invalid";
    /// Such a front sent no whole header within `proxy_header_timeout`.
    ProxyHeaderTimeout = refusal "cC" "proxy_header_timeout";
    /// The target was found down, and `on_down` closes its sessions then.
    TargetDown = end "KD" "target_down";
    /// The mapping was removed, and its policy closes sessions then.
    MappingRemoved = end "KD" "mapping_removed";
    /// The mapping leads to another target now, and its policy closes sessions then.
    MappingRetargeted = end "KD" "mapping_retargeted";
    /// The time to finish after a removal, a new target or an operator's drain ran out.
    DrainDeadline = end "KD" "drain_deadline";
    /// An operator ended it.
    Killed = end "KD" "killed";
    /// The proxy stops.
    Shutdown = end "KD" "shutdown";
    /// This machine refused to move its bytes for too long: no memory, or a security module.
    SystemError = end "RD" "system_error";
    /// A fault of the proxy itself.
    Internal = end "ID" "internal";
    /// It goes on in a mapping of another name. Only counted: no session ends for it.
    Renamed = end "--" "renamed";
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
            assert_eq!(EndReason::of_word(reason.word()), Some(reason));
        }
    }

    #[test]
    fn every_reason_is_explained() {
        const DOCUMENT: &str = include_str!("manual/log.md");
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
