//! `access_log` and `error_log` that go to a syslog daemon.

use std::net::{IpAddr, SocketAddr};

use super::directive::Directive;
use crate::import::{
    Import,
    syslog::{self, Daemon, Log},
};

/// The port of syslog.
const PORT: u16 = 514;

/// Whether a log goes to a daemon that ours can go to.
pub fn is_to_one(directive: &Directive) -> bool {
    daemon(directive).is_some()
}

/// Takes over where a log goes, if this is one that goes to a daemon.
pub fn set(directive: &Directive, import: &mut Import) {
    if let Some((to, facility)) = daemon(directive) {
        let log = Log {
            place: &directive.place,
            text: &directive.text(),
            to,
            facility,
            comments: &directive.comments,
        };
        syslog::set(&log, import);
    }
}

fn daemon(directive: &Directive) -> Option<(Daemon, &str)> {
    if !matches!(directive.name(), "access_log" | "error_log") {
        return None;
    }
    let parts = directive.word(1).strip_prefix("syslog:")?;
    let value = |key: &str| {
        let mut pairs = parts.split(',').filter_map(|part| part.split_once('='));
        pairs.find_map(|(known, value)| (known == key).then_some(value))
    };
    let server = value("server")?;
    let to = match server.strip_prefix("unix:") {
        Some(path) => Daemon::Socket(path.to_owned()),
        None => {
            let alone = server.trim_matches(['[', ']']).parse::<IpAddr>();
            let alone = alone.map(|ip| SocketAddr::new(ip, PORT));
            Daemon::Udp(alone.or_else(|_| server.parse()).ok()?)
        }
    };
    Some((to, value("facility").unwrap_or("local7")))
}
