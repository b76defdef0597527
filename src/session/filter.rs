//! Which sessions somebody means.

use ipnet::IpNet;

use super::{Session, SessionId};
use crate::table::MappingName;

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

    /// Whether it means this session.
    pub fn means(&self, session: &Session) -> bool {
        let mapping = &session.route().mapping.name;
        self.id.is_none_or(|id| id == session.id())
            && (self.mapping.as_ref()).is_none_or(|name| name == mapping)
            && (self.prefix.as_ref()).is_none_or(|prefix| mapping.as_str().starts_with(prefix))
            && (self.source.as_ref()).is_none_or(|net| net.contains(&session.client().ip()))
    }
}
