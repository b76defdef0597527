//! The log's lines for a syslog daemon, beside standard output.
//!
//! A unix socket is given what syslog(3) writes, which is what daemons expect there; over UDP goes RFC
//! 5424. A thread of its own sends, so that a daemon that does not read or is away holds up neither
//! standard output nor anybody else: so many lines wait for it, and what comes then is counted as lost.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt, io,
    net::{SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rustix::{io::Errno, system::uname};

use crate::{mutex::lock, os_error::in_words};

/// Lines that wait for the daemon.
const MOST: usize = 4096;

/// The longest message, in bytes: what daemons take by default.
const LONGEST: usize = 8 << 10;

/// How long a daemon that does not read may hold up a message before it is looked whether that is to go
/// on.
const SENDING: Duration = Duration::from_millis(200);

/// The pause before a daemon that is away is asked again.
const RETRY: Duration = Duration::from_millis(200);

/// Where the daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogTo {
    /// At a unix socket for datagrams.
    Socket(PathBuf),
    /// At a UDP port.
    Udp(SocketAddr),
}

impl fmt::Display for SyslogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Udp(addr) => write!(f, "udp://{addr}"),
        }
    }
}

/// What the daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogSettings {
    /// Where it is.
    pub to: SyslogTo,
    /// The number of the facility.
    pub facility: u8,
    /// The name of the program.
    pub name: String,
}

/// The way of the log to a daemon, if it is to go there.
#[derive(Debug)]
pub struct Syslog {
    outlet: Mutex<Option<Outlet>>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Outlet {
    settings: SyslogSettings,
    host: String,
    queue: Arc<Queue>,
}

/// Messages on their way to the thread that sends.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The first is the one that is being sent.
    messages: VecDeque<Vec<u8>>,
    /// Whether the daemon could not be reached the last time.
    away: bool,
    /// Whether nothing will be added any more.
    closed: bool,
    /// Whether the thread has ended.
    finished: bool,
}

impl Syslog {
    /// Nobody is told anything yet; so much has been lost before.
    pub fn after(lost: u64) -> Self {
        Self {
            outlet: Mutex::default(),
            lost: Arc::new(lost.into()),
        }
    }

    /// From now on lines go there, or nowhere.
    ///
    /// # Errors
    ///
    /// There can be no further thread.
    pub fn set(&self, settings: Option<&SyslogSettings>) -> io::Result<()> {
        let mut outlet = lock(&self.outlet);
        if outlet.as_ref().map(|outlet| &outlet.settings) == settings {
            return Ok(());
        }
        let new = settings.map(|settings| {
            let queue = Arc::<Queue>::default();
            let sender = Sender {
                to: settings.to.clone(),
                link: None,
                queue: Arc::clone(&queue),
                lost: Arc::clone(&self.lost),
            };
            let thread = thread::Builder::new().name("syslog".to_owned());
            thread.spawn(move || sender.run())?;
            Ok::<_, io::Error>(Outlet {
                settings: settings.clone(),
                host: uname().nodename().to_string_lossy().into_owned(),
                queue,
            })
        });
        let before = std::mem::replace(&mut *outlet, new.transpose()?);
        if let Some(before) = before {
            before.queue.close();
        }
        Ok(())
    }

    /// Has a line of the log sent, or counts it as lost.
    pub(super) fn send(&self, line: &[u8]) {
        let outlet = lock(&self.outlet);
        let Some(outlet) = &*outlet else { return };
        let message = outlet.message(line);
        if !outlet.queue.push(message) {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Lines lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// The same with those that wait, which nobody will send if the process is replaced now.
    pub fn lost_in_all(&self) -> u64 {
        let outlet = lock(&self.outlet);
        let waiting = outlet
            .as_ref()
            .map_or(0, |outlet| lock(&outlet.queue.state).messages.len());
        self.lost() + waiting as u64
    }

    /// Waits until everything is sent, no longer than `within`; not for a daemon that is away.
    pub fn flush(&self, within: Duration) {
        if let Some(outlet) = &*lock(&self.outlet) {
            outlet
                .queue
                .wait(within, |state| state.messages.is_empty() || state.away);
        }
    }

    /// Sends what waits, and waits for that no longer than `within`.
    pub(super) fn close(&self, within: Duration) {
        if let Some(outlet) = lock(&self.outlet).take() {
            outlet.queue.close();
            outlet.queue.wait(within, |state| state.finished);
        }
    }
}

impl Outlet {
    /// The message for a line of the log.
    fn message(&self, line: &[u8]) -> Vec<u8> {
        let Self { settings, host, .. } = self;
        let text = String::from_utf8_lossy(line);
        let text = without_colours(text.trim_end());
        let Parts { at, level, said } = Parts::of(&text);
        let priority = u16::from(settings.facility) * 8 + severity(level);
        let (name, process) = (&settings.name, std::process::id());
        let mut message = match settings.to {
            SyslogTo::Socket(_) => {
                format!("<{priority}>{} {name}[{process}]: {said}", short_time(at))
            }
            SyslogTo::Udp(_) => {
                let host = if host.is_empty() { "-" } else { host };
                format!("<{priority}>1 {at} {host} {name} {process} - - {said}")
            }
        };
        let mut end = message.len().min(LONGEST);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.into_bytes()
    }
}

/// What a line of the log consists of.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'l> {
    at: &'l str,
    level: &'l str,
    said: &'l str,
}

impl<'l> Parts<'l> {
    fn of(line: &'l str) -> Self {
        let of_json = |key: &str| {
            let (_, value) = line.split_once(&format!("\"{key}\":\""))?;
            value.split_once('"').map(|(value, _)| value)
        };
        if line.starts_with('{') {
            return Self {
                at: of_json("timestamp").unwrap_or("-"),
                level: of_json("level").unwrap_or_default(),
                said: line,
            };
        }
        let (at, rest) = line.split_once(' ').unwrap_or(("-", line));
        let (level, said) = rest.trim_start().split_once(' ').unwrap_or(("", rest));
        Self { at, level, said }
    }
}

/// The numbers of RFC 5424.
fn severity(level: &str) -> u16 {
    match level {
        "ERROR" => 3,
        "WARN" => 4,
        "DEBUG" | "TRACE" => 7,
        _ => 6,
    }
}

/// `Nov 23 21:40:11` of `2026-11-23T21:40:11.123456Z`: daemons take their own time in its place.
fn short_time(at: &str) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let part = |from: usize, to: usize| at.get(from..to).unwrap_or_default();
    let month = part(5, 7).parse::<usize>().unwrap_or(1);
    let month = MONTHS.get(month.wrapping_sub(1)).unwrap_or(&MONTHS[0]);
    let day = part(8, 10).parse::<u8>().unwrap_or(1);
    let time = match part(11, 19) {
        time if time.len() == 8 => time,
        _ => "00:00:00",
    };
    format!("{month} {day:2} {time}")
}

/// A line without what a terminal shows as colours.
fn without_colours(line: &str) -> Cow<'_, str> {
    if !line.contains('\x1b') {
        return line.into();
    }
    let mut parts = line.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain.into()
}

impl Queue {
    /// Whether there was room.
    fn push(&self, message: Vec<u8>) -> bool {
        let mut state = lock(&self.state);
        let has_room = state.messages.len() < MOST;
        if has_room {
            state.messages.push_back(message);
            drop(state);
            self.changed.notify_all();
        }
        has_room
    }

    fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    fn wait(&self, within: Duration, until: impl Fn(&State) -> bool) {
        let state = lock(&self.state);
        drop(
            self.changed
                .wait_timeout_while(state, within, |state| !until(state))
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Changes the state, and lets the others know.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut lock(&self.state));
        self.changed.notify_all();
        changed
    }

    /// The first message, which stays until it is sent; none once it is closed and empty.
    fn first(&self) -> Option<Vec<u8>> {
        let state = lock(&self.state);
        let state = self
            .changed
            .wait_while(state, |state| state.messages.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.messages.front().cloned()
    }
}

/// The thread that sends.
struct Sender {
    to: SyslogTo,
    link: Option<Link>,
    queue: Arc<Queue>,
    lost: Arc<AtomicU64>,
}

enum Link {
    Socket(UnixDatagram),
    Udp(UdpSocket),
}

impl Link {
    fn new(to: &SyslogTo) -> io::Result<Self> {
        match to {
            SyslogTo::Socket(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(SENDING))?;
                Ok(Self::Socket(socket))
            }
            SyslogTo::Udp(addr) => {
                let any: SocketAddr = match addr {
                    SocketAddr::V4(_) => ([0; 4], 0).into(),
                    SocketAddr::V6(_) => ([0; 16], 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(addr)?;
                socket.set_write_timeout(Some(SENDING))?;
                Ok(Self::Udp(socket))
            }
        }
    }

    fn send(&self, message: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.send(message),
            Self::Udp(socket) => socket.send(message),
        }
    }
}

impl Sender {
    fn run(mut self) {
        while let Some(message) = self.queue.first() {
            let sent = self.deliver(&message);
            if !sent {
                self.lost.fetch_add(1, Relaxed);
            }
            self.queue.change(|state| state.messages.pop_front());
        }
        self.queue.change(|state| state.finished = true);
    }

    /// Sends a message, however long that takes; whether it was sent.
    fn deliver(&mut self, message: &[u8]) -> bool {
        loop {
            let had_link = self.link.is_some();
            let error = match self.try_send(message) {
                Ok(()) => {
                    self.is_away(None);
                    return true;
                }
                Err(error) => error,
            };
            match Errno::from_io_error(&error) {
                Some(Errno::INTR) => {}
                Some(Errno::MSGSIZE) => return false,
                // It does not read. One that will not any more is told apart by nobody.
                Some(Errno::AGAIN) if !lock(&self.queue.state).closed => {}
                // Somebody else's word on a datagram before, which is lost; the next is on its way.
                Some(Errno::CONNREFUSED) if had_link && matches!(self.to, SyslogTo::Udp(_)) => {
                    self.lost.fetch_add(1, Relaxed);
                    let again = self.try_send(message).is_ok();
                    return again;
                }
                // The daemon may have been started again, at a new socket.
                _ if had_link => self.link = None,
                _ => {
                    self.is_away(Some(&error));
                    if lock(&self.queue.state).closed {
                        return false;
                    }
                    self.queue.wait(RETRY, |state| state.closed);
                }
            }
        }
    }

    fn try_send(&mut self, message: &[u8]) -> io::Result<()> {
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(Link::new(&self.to)?),
        };
        link.send(message).map(|_| ())
    }

    /// Says when the daemon goes away and when it is back.
    fn is_away(&self, error: Option<&io::Error>) {
        let before = self
            .queue
            .change(|state| std::mem::replace(&mut state.away, error.is_some()));
        let lost = self.lost.load(Relaxed);
        match (before, error) {
            (false, Some(error)) => {
                let error = in_words(error);
                tracing::warn!(to = %self.to, error, "the log does not get through to syslog");
            }
            (true, None) => {
                tracing::info!(to = %self.to, lost, "the log gets through to syslog again")
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(to: SyslogTo, line: &str) -> String {
        let outlet = Outlet {
            settings: SyslogSettings {
                to,
                facility: 3,
                name: "tml-proxy".to_owned(),
            },
            host: "vm".to_owned(),
            queue: Arc::default(),
        };
        String::from_utf8(outlet.message(line.as_bytes())).expect("text")
    }

    fn udp() -> SyslogTo {
        SyslogTo::Udp(([127, 0, 0, 1], 514).into())
    }

    #[test]
    fn a_line_becomes_a_message_of_each_format() {
        let process = std::process::id();
        let socket = || SyslogTo::Socket("/dev/log".into());
        let text = "2026-11-03T21:40:11.123456Z  WARN reload failed error=\"x y\"\n";
        assert_eq!(
            message(udp(), text),
            format!(
                "<28>1 2026-11-03T21:40:11.123456Z vm tml-proxy {process} - - reload failed error=\"x y\""
            )
        );
        assert_eq!(
            message(socket(), text),
            format!("<28>Nov  3 21:40:11 tml-proxy[{process}]: reload failed error=\"x y\"")
        );
        let coloured = "\x1b[2m2026-11-23T21:40:11.123456Z\x1b[0m \x1b[32m INFO\x1b[0m session ended \x1b[3msession\x1b[0m\x1b[2m=\x1b[0m1\n";
        assert_eq!(
            message(socket(), coloured),
            format!("<30>Nov 23 21:40:11 tml-proxy[{process}]: session ended session=1")
        );
        let json = "{\"timestamp\":\"2026-11-23T21:40:11.123456Z\",\"level\":\"ERROR\",\"message\":\"x\"}\n";
        assert_eq!(
            message(udp(), json),
            format!(
                "<27>1 2026-11-23T21:40:11.123456Z vm tml-proxy {process} - - {}",
                json.trim_end()
            )
        );
    }

    #[test]
    fn no_line_makes_a_message_that_is_too_long_or_breaks_a_letter() {
        for line in ["", " ", "{", "x", "\x1b", &"é".repeat(LONGEST)] {
            assert!(message(udp(), line).len() <= LONGEST);
        }
    }

    #[test]
    fn lines_wait_for_a_daemon_that_is_away_and_the_rest_is_counted() {
        let dir = tempfile::tempdir().expect("a directory for temporary files");
        let path = dir.path().join("log");
        let syslog = Syslog::after(5);
        let settings = SyslogSettings {
            to: SyslogTo::Socket(path.clone()),
            facility: 3,
            name: "p".to_owned(),
        };
        syslog.set(Some(&settings)).expect("a thread");
        for number in 0..MOST + 7 {
            syslog.send(format!("2026-11-23T21:40:11.123456Z  INFO {number}\n").as_bytes());
        }
        assert_eq!(
            (syslog.lost(), syslog.lost_in_all()),
            (12, 12 + MOST as u64)
        );
        let daemon = UnixDatagram::bind(&path).expect("a fresh name");
        let mut room = [0; 100];
        for number in 0..MOST {
            let length = daemon.recv(&mut room).expect("a message");
            let text = String::from_utf8_lossy(&room[..length]);
            assert!(text.ends_with(&format!(": {number}")), "{text}");
        }
        // Another daemon at the same place.
        drop(daemon);
        std::fs::remove_file(&path).expect("own socket");
        let daemon = UnixDatagram::bind(&path).expect("a fresh name");
        syslog.send(b"2026-11-23T21:40:11.123456Z  INFO again\n");
        let length = daemon.recv(&mut room).expect("a message");
        assert!(room[..length].ends_with(b": again"));
        syslog.close(Duration::from_secs(60));
        assert_eq!(syslog.lost(), 12);
    }
}
