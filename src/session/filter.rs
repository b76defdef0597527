//! Which sessions somebody means.

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use super::SessionId;
use crate::table::{MappingName, Route};

/// Sessions that satisfy every condition given; without any, all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// The one with this number.
    pub id: Option<SessionId>,
    pub mapping: Option<MappingName>,
    /// Those of mappings of this job.
    pub job: Option<Arc<str>>,
    /// Those whose client is in this prefix.
    pub source: Option<IpNet>,
}

impl SessionFilter {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it means the session with that number, on that route, of that client.
    pub fn means(&self, session: SessionId, route: &Route, client: SocketAddr) -> bool {
        let mapping = &route.mapping.name;
        self.id.is_none_or(|id| id == session)
            && (self.mapping.as_ref()).is_none_or(|name| name == mapping)
            && (self.job.as_ref()).is_none_or(|job| mapping.job().is_some_and(|of| of.job == *job))
            && (self.source.as_ref()).is_none_or(|net| net.contains(&client.ip()))
    }
}
