//! Logs that go to a syslog daemon.
//!
//! Every line goes to standard output, and to one daemon at most. What reads `/dev/log` gets standard output
//! already where systemd runs: a line would be there twice.

use std::net::SocketAddr;

use super::{Import, Place, Remark, model::Value};

/// The facilities that can be said.
const FACILITIES: [&str; 12] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp",
];

/// Where a log goes, as it is written somewhere else.
pub struct Log<'t> {
    pub place: &'t Place,
    pub text: &'t str,
    pub to: Daemon,
    pub facility: &'t str,
    pub comments: &'t [String],
}

/// A syslog daemon.
pub enum Daemon {
    /// At a socket: its path.
    Socket(String),
    /// At a UDP port.
    Udp(SocketAddr),
}

/// Sends our lines where the log went, and says whether they go there.
pub fn set(log: &Log<'_>, import: &mut Import) -> bool {
    let daemon = match &log.to {
        Daemon::Socket(path) => path.clone(),
        Daemon::Udp(address) => format!("udp://{address}"),
    };
    let local = log
        .facility
        .strip_prefix("local")
        .and_then(|number| number.parse().ok());
    let is_known = FACILITIES.contains(&log.facility) || local.is_some_and(|number: u8| number < 8);
    let facility = if is_known { log.facility } else { "daemon" };
    if daemon == "/dev/log" {
        let why = "every line is on standard output, which systemd hands to the same daemon";
        let remark = Remark::dropped(log.place.clone(), log.text, why);
        let instead = format!(
            "set log.syslog = \"/dev/log\" and syslog_facility = \"{facility}\" if a daemon sorts lines by it"
        );
        import.remarks.push(remark.instead(instead));
        return false;
    }
    let settings = import.section("log");
    let known = settings.get("syslog").map(|known| known.value.clone());
    match known {
        None => {
            settings.set("syslog", Value::Text(daemon), log.comments.to_vec());
            settings.set("syslog_facility", Value::text(facility), Vec::new());
            true
        }
        Some(known) if known == Value::Text(daemon) => true,
        Some(_) => {
            let why = "lines go to one daemon, and another is said before";
            let remark = Remark::dropped(log.place.clone(), log.text, why);
            let instead = "let that one pass them on";
            import.remarks.push(remark.instead(instead));
            false
        }
    }
}
