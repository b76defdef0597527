//! What is asked, and reading what comes back.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    str::FromStr,
    time::Duration,
};

use domain::{
    base::{Message, MessageBuilder, Name, Rtype, Ttl, iana::Rcode, wire::ParseError},
    rdata::{A, Aaaa, Cname},
};

/// The largest message there is.
pub(super) const LONGEST: usize = u16::MAX as usize;

/// A kind of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    /// Addresses of IPv4.
    A,
    /// Addresses of IPv6.
    Aaaa,
}

impl Records {
    /// Whether an address is of this kind.
    pub fn are_of(self, ip: &IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::A)
    }

    /// What they are, in words.
    pub fn word(self) -> &'static str {
        match self {
            Self::A => "IPv4",
            Self::Aaaa => "IPv6",
        }
    }
}

/// One question, under a number that nobody can guess.
#[derive(Debug)]
pub(super) struct Question {
    message: Message<Vec<u8>>,
    records: Records,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Possibly none.
    Addresses(Addresses),
    NoSuchName,
    /// There is more, to be asked for over TCP.
    CutShort,
    /// It does not say; what it says instead.
    Refused(String),
    Unreadable(&'static str),
}

/// The addresses of a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub addresses: Vec<IpAddr>,
    /// How long all of it is good for.
    pub ttl: Duration,
}

impl Question {
    /// Nothing for a text that is no name.
    pub fn new(name: &str, records: Records) -> Option<Self> {
        let name = Name::<Vec<u8>>::from_str(name).ok()?;
        let mut builder = MessageBuilder::new_vec();
        // Together with a port of its own for every question, this is what another would have to know.
        let id = RandomState::new().hash_one(0) as u16;
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        let kind = match records {
            Records::A => Rtype::A,
            Records::Aaaa => Rtype::AAAA,
        };
        builder.push((name, kind)).ok()?;
        Some(Self {
            message: builder.into_message(),
            records,
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.message.as_slice()
    }

    /// What `bytes` say, if they answer this question and no other.
    pub fn read(&self, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_octets(bytes).ok()?;
        if !message.is_answer(&self.message) {
            return None;
        }
        Some(self.reply(&message))
    }

    fn reply(&self, message: &Message<&[u8]>) -> Reply {
        let header = message.header();
        match header.rcode() {
            Rcode::NOERROR if header.tc() => return Reply::CutShort,
            Rcode::NOERROR => {}
            Rcode::NXDOMAIN => return Reply::NoSuchName,
            code => return Reply::Refused(code.to_string()),
        }
        let Some(name) = message.canonical_name() else {
            return Reply::Unreadable("its aliases have no end");
        };
        let Ok(answer) = message.answer() else {
            return Reply::Unreadable("it breaks off");
        };
        let aliases = answer.limit_to_in::<Cname<_>>();
        let aliases = aliases.map(|alias| Ok((None, alias?.ttl())));
        let of_name =
            |owner: bool, ip: IpAddr, ttl| owner.then_some((Some(ip.to_canonical()), ttl));
        let addresses: Result<Vec<_>, ParseError> = match self.records {
            Records::A => {
                let records = answer.limit_to_in::<A>();
                let records = records.map(|record| {
                    let record = record?;
                    let ip = record.data().addr().into();
                    Ok(of_name(*record.owner() == name, ip, record.ttl()))
                });
                records.filter_map(Result::transpose).collect()
            }
            Records::Aaaa => {
                let records = answer.limit_to_in::<Aaaa>();
                let records = records.map(|record| {
                    let record = record?;
                    let ip = record.data().addr().into();
                    Ok(of_name(*record.owner() == name, ip, record.ttl()))
                });
                records.filter_map(Result::transpose).collect()
            }
        };
        let aliases: Result<Vec<_>, ParseError> = aliases.collect();
        let (Ok(aliases), Ok(addresses)) = (aliases, addresses) else {
            return Reply::Unreadable("it breaks off");
        };
        let all = aliases.iter().chain(&addresses);
        Reply::Addresses(Addresses {
            ttl: all.map(|(_, ttl)| good_for(*ttl)).min().unwrap_or_default(),
            addresses: addresses.into_iter().filter_map(|(ip, _)| ip).collect(),
        })
    }
}

/// A TTL with its highest bit set is none (RFC 2181).
fn good_for(ttl: Ttl) -> Duration {
    match i32::try_from(ttl.as_secs()) {
        Ok(_) => Duration::from_secs(ttl.as_secs().into()),
        Err(_) => Duration::ZERO,
    }
}
