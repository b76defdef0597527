//! `log` lines: to a daemon, or somewhere that has no counterpart.

use std::net::{IpAddr, SocketAddr};

use super::{
    address::{self, Host, Port},
    sections::Line,
};
use crate::import::{
    Around, Import,
    address::of_name,
    syslog::{self, Daemon, Log},
};

/// The port of syslog.
const PORT: u16 = 514;

/// Takes a `log` line over.
pub fn set(line: &Line, around: &Around<'_>, import: &mut Import) {
    let to = line.word(1);
    let to = to.strip_prefix("unix@").unwrap_or(to);
    let daemon = match to {
        "global" => return,
        to if to.starts_with("stdout") || to.starts_with("stderr") || to.starts_with("fd@") => {
            return;
        }
        to if to.starts_with('/') => Some(Daemon::Socket(to.to_owned())),
        to => {
            let to = to
                .strip_prefix("udp")
                .and_then(|to| to.split_once('@'))
                .map_or(to, |(_, to)| to);
            udp(to, around).map(Daemon::Udp)
        }
    };
    let Some(daemon) = daemon else {
        let remark = line.dropped("lines go to the socket or the UDP address of a daemon");
        return import.remarks.push(remark.instead("see log.syslog"));
    };
    let mut rest = line.words[2..].iter().map(String::as_str).peekable();
    let mut sample = None;
    while let Some(word) =
        rest.next_if(|word| matches!(*word, "len" | "format" | "sample" | "profile"))
    {
        let value = rest.next();
        sample = sample.or(value.filter(|_| word == "sample"));
    }
    let facility = rest.next().unwrap_or_default();
    let level = rest.next();
    let log = Log {
        place: &line.place,
        text: &line.text,
        to: daemon,
        facility,
        comments: &line.comments,
    };
    if !syslog::set(&log, import) {
        return;
    }
    let why = "every line goes to the daemon";
    let different = line.different(why);
    if let Some(level) = level.filter(|level| !matches!(*level, "info" | "debug")) {
        let instead =
            format!("set log.sessions = false, or have it pass over what is less than {level}");
        import.remarks.push(different.instead(instead));
    } else if sample.is_some() {
        import.remarks.push(different);
    }
}

fn udp(to: &str, around: &Around<'_>) -> Option<SocketAddr> {
    let address = address::parse(to).ok()?;
    let ip: IpAddr = match address.host {
        Host::Ip(ip) => ip,
        Host::Name(name) => of_name(&name, around)?,
        Host::Unspecified => return None,
    };
    match address.port {
        Port::Missing => Some(SocketAddr::new(ip, PORT)),
        Port::Range(port, _) => Some(SocketAddr::new(ip, port)),
        Port::Offset(_) => None,
    }
}
