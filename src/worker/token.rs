//! What epoll hands back for a descriptor: whose it is.

use super::slots::Key;
use crate::relay::Side;

/// Whose descriptor became ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// The command queue.
    Commands,
    /// A listener.
    Listener(Key),
    /// One side of a session.
    Session(Key, Side),
    /// A connection whose header is awaited.
    ProxyHeader(Key),
}

const KIND_SHIFT: u32 = 61;

impl Token {
    /// The token as the 64 bits epoll carries: three of kind, 29 of generation, 32 of index.
    pub(super) fn to_bits(self) -> u64 {
        let (kind, key) = match self {
            Self::Commands => (0, Key::default()),
            Self::Listener(key) => (1, key),
            Self::Session(key, Side::Client) => (2, key),
            Self::Session(key, Side::Target) => (3, key),
            Self::ProxyHeader(key) => (4, key),
        };
        kind << KIND_SHIFT | key.to_bits()
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        let key = Key::from_bits(bits & ((1 << KIND_SHIFT) - 1));
        match bits >> KIND_SHIFT {
            0 => Self::Commands,
            1 => Self::Listener(key),
            2 => Self::Session(key, Side::Client),
            3 => Self::Session(key, Side::Target),
            _ => Self::ProxyHeader(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_way_through_epoll() {
        let key = Key::from_bits(0x1fff_ffff_ffff_fffe);
        for token in [
            Token::Commands,
            Token::Listener(key),
            Token::Session(key, Side::Client),
            Token::Session(key, Side::Target),
            Token::ProxyHeader(key),
        ] {
            assert_eq!(Token::from_bits(token.to_bits()), token);
        }
    }
}
