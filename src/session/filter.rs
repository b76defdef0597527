//! Which sessions somebody means.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::SessionId;
use crate::table::{MappingName, Route};

/// Sessions that satisfy every condition given; without any, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// The one with this number.
    pub id: Option<SessionId>,
    /// Those of this mapping.
    pub mapping: Option<MappingName>,
    /// Those of mappings whose names begin like this.
    pub prefix: Option<String>,
    /// Those whose client is in this prefix.
    pub source: Option<IpNet>,
}

impl SessionFilter {
    /// Whether no condition is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it means the session with that number, on that route, of that client.
    pub fn means(&self, session: SessionId, route: &Route, client: SocketAddr) -> bool {
        let mapping = &route.mapping.name;
        self.id.is_none_or(|id| id == session)
            && (self.mapping.as_ref()).is_none_or(|name| name == mapping)
            && (self.prefix.as_ref()).is_none_or(|prefix| mapping.as_str().starts_with(prefix))
            && (self.source.as_ref()).is_none_or(|net| net.contains(&client.ip()))
    }
}
