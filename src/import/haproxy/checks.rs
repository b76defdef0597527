//! Checks of servers: `check` with what goes with it, `option httpchk`, `tcp-check` and their like.
//!
//! They become the key `check`, which is one for all targets of a mapping. Where there are several servers,
//! a check decides who gets clients: one that cannot be written keeps the front end with HAProxy. An only
//! server goes unchecked then, and a client of one that is down is told when it comes.

use std::time::Duration;

use super::{proxy::Proxy, sections::Line, server::Server, values};
use crate::{
    import::{
        Remark,
        model::{Settings, Value},
    },
    units,
};

/// HAProxy's `inter`, and the defaults of the key.
const EVERY: Duration = Duration::from_secs(2);
const RISE: u64 = 2;
const FALL: u64 = 3;

/// What the longest of these may be: `every`, `timeout` and a number in a row.
const MOST_EVERY: Duration = Duration::from_secs(3600);
const MOST_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_IN_A_ROW: u64 = 100;

/// What `server` and `default-server` lines say of checks.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    pub on: bool,
    pub every: Option<Duration>,
    /// `fastinter` or `downinter`, as it is written.
    pub other_pace: Option<String>,
    pub rise: Option<u64>,
    pub fall: Option<u64>,
    pub port: Option<u16>,
    /// What has it be checked somewhere else, or by somebody else.
    pub elsewhere: Option<String>,
    /// Whether its sessions are closed once it is down.
    pub kills: bool,
    /// Whether a check begins with a PROXY header although sessions have none, or at another port.
    pub tells: bool,
    /// What has no counterpart and is noticed: the words, and why.
    pub ignored: Vec<(String, &'static str)>,
}

impl CheckOptions {
    /// Takes over a word, with what follows it.
    pub fn read(&mut self, word: &str, next: &str) {
        let span = || values::time(next).ok().and_then(|(span, _)| span);
        let both = || format!("{word} {next}");
        match word {
            "check" => self.on = true,
            "no-check" => self.on = false,
            "inter" => self.every = span(),
            "fastinter" | "downinter" => self.other_pace = Some(both()),
            "rise" => self.rise = next.parse().ok(),
            "fall" => self.fall = next.parse().ok(),
            "port" => self.port = next.parse().ok().filter(|port| *port > 0),
            "addr" | "track" => self.elsewhere = Some(both()),
            "agent-check" | "check-via-socks4" | "check-ssl" => {
                self.elsewhere = Some(word.to_owned());
            }
            "no-agent-check" | "no-check-ssl" => self.elsewhere = None,
            "check-send-proxy" => self.tells = true,
            "no-check-send-proxy" => self.tells = false,
            "on-marked-down" => self.kills = next == "shutdown-sessions",
            "on-marked-up" => self.ignored.push((
                both(),
                "sessions of a backup stay where they are once another target is up",
            )),
            "slowstart" => self.ignored.push((
                both(),
                "a target that is up again has its whole share of the sessions at once",
            )),
            "observe" => self.ignored.push((
                both(),
                "only checks make a target down; one that could not be connected to comes last for 10 seconds",
            )),
            _ => {}
        }
    }
}

/// What is to succeed.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Connection,
    /// The keys of a request, and of its answer.
    Http(Vec<(&'static str, Value)>),
    Exchange {
        send: String,
        expect: String,
    },
}

/// A check that cannot be written: which line says so, and why.
type Unfit = (Line, String);

/// How the targets of a mapping are checked.
#[derive(Debug, Default)]
pub struct Checking {
    pub settings: Settings,
    /// Comments on what is not written.
    pub comments: Vec<String>,
}

/// Reads how `servers` are checked, or says why the front end stays with HAProxy.
pub fn read(
    back: &Proxy,
    servers: &[&Server],
    remarks: &mut Vec<Remark>,
) -> Result<Checking, Remark> {
    let lines = back.protocol_check.iter().chain(back.check_rules());
    let comments: Vec<String> = lines.flat_map(|line| &line.comments).cloned().collect();
    let mut checking = Checking::default();
    let is_checked = |server: &&&Server| {
        let checks = &server.options.checks;
        checks.on || checks.elsewhere.is_some()
    };
    let checked = servers.iter().filter(is_checked);
    let checked: Vec<&Server> = checked.copied().collect();
    let Some(first) = checked.first() else {
        checking.comments = comments;
        return Ok(checking);
    };
    let mut said = Vec::new();
    match check(back, servers, &checked, &mut said) {
        Ok(check) => {
            remarks.append(&mut said);
            checking
                .settings
                .set("check", Value::Table(check), comments);
            kills(&mut checking.settings, &checked, remarks);
            for server in &checked {
                for (what, why) in &server.options.checks.ignored {
                    remarks.push(Remark::different(server.line.place.clone(), what, *why));
                }
            }
        }
        Err((line, why)) if servers.len() > 1 => {
            let remark = line.left_out(why);
            let instead = "leave it to HAProxy, or have them checked by a connection, a request of HTTP, or \
                           a text that is sent and one that is in the answer";
            return Err(remark.instead(instead));
        }
        Err((line, why)) => {
            let why = format!("{why}: the only server is not checked");
            let remark = line.dropped(why);
            remarks.push(remark.instead("see the key check"));
            if first.options.checks.kills {
                let why = "without a check no session is closed because its target is down";
                let place = first.line.place.clone();
                remarks.push(Remark::different(
                    place,
                    "on-marked-down shutdown-sessions",
                    why,
                ));
            }
            checking.comments = comments;
        }
    }
    Ok(checking)
}

/// What becomes of sessions of a server that is down.
fn kills(settings: &mut Settings, checked: &[&Server], remarks: &mut Vec<Remark>) {
    let mut kill = checked.iter().filter(|server| server.options.checks.kills);
    let Some(first) = kill.next() else {
        return;
    };
    if kill.count() + 1 == checked.len() {
        settings.set("on_down", Value::text("kill"), Vec::new());
        return;
    }
    let why =
        "sessions of this server alone are closed when it is down, and on_down is of all targets";
    let remark = Remark::different(
        first.line.place.clone(),
        "on-marked-down shutdown-sessions",
        why,
    );
    remarks.push(remark.instead("set on_down = \"kill\" to have those of all closed"));
}

/// The keys of the check, those left out that are as by default.
fn check(
    back: &Proxy,
    servers: &[&Server],
    checked: &[&Server],
    remarks: &mut Vec<Remark>,
) -> Result<Vec<(&'static str, Value)>, Unfit> {
    let (asked, port) = asked(back, remarks)?;
    let first = checked[0];
    let of_first = &first.options.checks;
    let header_of_first = header(first, port);
    for server in checked {
        let unfit = |why: String| Err((server.line.clone(), why));
        let checks = &server.options.checks;
        if let Some(word) = &checks.elsewhere {
            return unfit(format!(
                "{word} has another place say whether it takes clients"
            ));
        }
        if checks.port != of_first.port && port.is_none() {
            return unfit(
                "it is checked at another port than others, and check is of all targets".to_owned(),
            );
        }
        let header = header(server, port);
        let is_said = header.1 || header_of_first.1;
        if asked != Asked::Connection && is_said && header.0 != header_of_first.0 {
            let why =
                "its checks have another PROXY header than others, and check is of all targets";
            return unfit(why.to_owned());
        }
        if pace(checks) != pace(of_first) {
            let why = "it is checked as often as the first server, and by the same rise and fall";
            remarks.push(server.line.different(why));
        }
        if let Some(word) = &checks.other_pace {
            let why = "a target is checked as often whether it is up, down or between";
            remarks.push(Remark::different(server.line.place.clone(), word, why));
        }
    }
    if let Some(other) = servers.iter().find(|server| {
        !checked
            .iter()
            .any(|known| known.line.place == server.line.place)
    }) {
        match asked {
            Asked::Connection => {
                let why = "it is not checked in HAProxy, and here a mapping checks all its targets";
                remarks.push(other.line.different(why));
            }
            _ => {
                let why = "it takes clients whatever a check says, and here a mapping checks all its targets";
                return Err((other.line.clone(), why.to_owned()));
            }
        }
    }
    let (every, rise, fall) = pace(of_first);
    if every > MOST_EVERY || rise.max(fall) > MOST_IN_A_ROW {
        let why = "every is an hour at most, and rise and fall are 100";
        remarks.push(first.line.different(why));
    }
    // All of a check may take as long as its interval, unless it is said how long an answer may take.
    let timeout = match back.timeout("check").and_then(|timeout| timeout.span) {
        None => every,
        Some(answer) => {
            let connect = back.timeout("connect").and_then(|timeout| timeout.span);
            let connect = connect.map_or(every, |connect| connect.min(every));
            match asked {
                Asked::Connection => connect,
                _ => connect + answer,
            }
        }
    };
    let mut keys = Vec::new();
    let mut span = |key, span: Duration, least: Duration, most: Duration| {
        let span = span.clamp(least, most);
        if span != EVERY {
            keys.push((key, Value::Text(units::duration(span))));
        }
    };
    span("every", every, Duration::from_millis(100), MOST_EVERY);
    span("timeout", timeout, Duration::from_millis(10), MOST_TIMEOUT);
    for (key, number, otherwise) in [("rise", rise, RISE), ("fall", fall, FALL)] {
        let number = number.clamp(1, MOST_IN_A_ROW);
        if number != otherwise {
            keys.push((key, Value::Number(number)));
        }
    }
    if let Some(port) = port.or(of_first.port) {
        keys.push(("port", Value::Number(port.into())));
    }
    // What comes by itself is what sessions of the target have, unless there is a port.
    if let (true, false) = (header_of_first.1, asked == Asked::Connection) {
        let header = header_of_first.0.unwrap_or("off");
        keys.push(("send_proxy", Value::text(header)));
    }
    match asked {
        Asked::Connection => {}
        Asked::Http(request) => keys.extend(request),
        Asked::Exchange { send, expect } => {
            if !send.is_empty() {
                keys.push(("send", Value::Text(send)));
            }
            keys.push(("expect", Value::Text(expect)));
        }
    }
    Ok(keys)
}

/// The PROXY header of its checks, and whether that has to be said: if it is not that of its sessions, or
/// is one although there is a port.
fn header(server: &Server, port: Option<u16>) -> (Option<&'static str>, bool) {
    let of_sessions = server.options.send_proxy;
    let checks = &server.options.checks;
    let by_itself = match port.or(checks.port) {
        Some(_) => None,
        None => of_sessions,
    };
    let header = match checks.tells {
        true => Some(of_sessions.unwrap_or("v1")),
        false => by_itself,
    };
    (header, header != by_itself)
}

/// How often it is checked, and how many results in a row count.
fn pace(checks: &CheckOptions) -> (Duration, u64, u64) {
    (
        checks.every.unwrap_or(EVERY),
        checks.rise.unwrap_or(RISE),
        checks.fall.unwrap_or(FALL),
    )
}

/// What a check asks, and at which port if the rules say so.
fn asked(back: &Proxy, remarks: &mut Vec<Remark>) -> Result<(Asked, Option<u16>), Unfit> {
    let Some(option) = &back.protocol_check else {
        return Ok((Asked::Connection, None));
    };
    let unfit = |why: &str| Err((option.clone(), why.to_owned()));
    match option.word(1) {
        "httpchk" => http(option, back),
        "tcp-check" => exchange(back, remarks),
        "redis-check" => Ok((
            Asked::Exchange {
                send: "*1\r\n$4\r\nPING\r\n".to_owned(),
                expect: "+PONG\r\n".to_owned(),
            },
            None,
        )),
        "smtpchk" => {
            let why = "a greeting with 220 is enough here, and HAProxy goes on to say HELO";
            remarks.push(option.different(why));
            let (send, expect) = (String::new(), "220".to_owned());
            Ok((Asked::Exchange { send, expect }, None))
        }
        "ssl-hello-chk" => unfit("it wants an answer to the first message of TLS"),
        "external-check" => unfit("it runs a program"),
        "mysql-check" => unfit("it wants an answer in the protocol of MySQL"),
        "pgsql-check" => unfit("it wants an answer in the protocol of PostgreSQL"),
        "ldap-check" => unfit("it wants an answer in the protocol of LDAP"),
        _ => unfit("nothing here speaks that protocol"),
    }
}

/// The port of a `connect` rule, if it asks for nothing else.
fn connect(line: &Line) -> Result<Option<u16>, Unfit> {
    let unfit = |why: String| Err((line.clone(), why));
    let mut port = None;
    let mut words = line.words[2..].iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "default" | "linger" => {}
            "comment" => _ = words.next(),
            "port" => {
                port = words.next().and_then(|port| port.parse().ok());
                if port.is_none() {
                    return unfit("its port is computed".to_owned());
                }
            }
            "ssl" => return unfit("it begins TLS".to_owned()),
            word => return unfit(format!("nothing here does what {word} asks for")),
        }
    }
    Ok(port)
}

/// `option httpchk` with its `http-check` rules.
fn http(option: &Line, back: &Proxy) -> Result<(Asked, Option<u16>), Unfit> {
    let (mut method, mut path) = match (option.word(2), option.word(3)) {
        _ if back.forgets_request => ("OPTIONS", "/"),
        ("", _) => ("OPTIONS", "/"),
        (path, "") => ("OPTIONS", path),
        (method, path) => (method, path),
    };
    // Before there was `http-check send`, headers stood behind the version.
    let mut host = None;
    for header in option
        .words
        .get(4..)
        .unwrap_or_default()
        .join(" ")
        .split("\r\n")
        .skip(1)
        .filter(|_| !back.forgets_request)
    {
        match header.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("host") => {
                host = Some(value.trim().to_owned());
            }
            _ => {
                return Err((
                    option.clone(),
                    format!("it sends a header of its own, {header:?}"),
                ));
            }
        }
    }
    let mut status: Option<Vec<String>> = None;
    let mut port = None;
    let mut sends = 0;
    for line in back.check_rules() {
        let unfit = |why: &str| Err((line.clone(), why.to_owned()));
        match line.word(1) {
            "comment" | "send-state" => {}
            "connect" => port = connect(line)?,
            "send" => {
                sends += 1;
                if sends > 1 {
                    return unfit("it asks more than once");
                }
                let mut words = line.words[2..].iter().map(String::as_str);
                while let Some(word) = words.next() {
                    let value = words.next().unwrap_or_default();
                    match word {
                        "meth" => method = value,
                        "uri" => path = value,
                        "ver" | "comment" => {}
                        "hdr" if value.eq_ignore_ascii_case("host") => {
                            host = words.next().map(str::to_owned);
                        }
                        "hdr"
                            if value.eq_ignore_ascii_case("user-agent")
                                || value.eq_ignore_ascii_case("connection") =>
                        {
                            _ = words.next();
                        }
                        "hdr" => return unfit("it sends a header of its own"),
                        _ => return unfit("it sends more than a request"),
                    }
                }
            }
            "expect" if status.is_some() => return unfit("it waits for more than one answer"),
            "expect" => match line.words.get(2..).unwrap_or_default() {
                [word, codes] if word == "status" => {
                    status = Some(codes.split(',').map(str::to_owned).collect());
                }
                _ => return unfit("it is no list of statuses"),
            },
            "disable-on-404" => {
                return unfit("404 takes new clients from a server and leaves it those it has");
            }
            _ => return unfit("it is more than a request and the status of its answer"),
        }
    }
    if back.forgets_request && sends == 0 {
        let why = "HAProxy sends no request where it stands in defaults and the rules in a proxy, so that no \
                   server is ever up";
        return Err((option.clone(), why.to_owned()));
    }
    if !path.starts_with('/') || host.as_ref().is_some_and(|host| host.contains('%')) {
        return Err((option.clone(), "what is asked for is no path".to_owned()));
    }
    let mut keys = vec![("http", Value::text(path))];
    if method != "GET" {
        keys.push(("method", Value::text(method)));
    }
    if let Some(host) = host {
        keys.push(("host", Value::Text(host)));
    }
    match status.as_deref() {
        None => {}
        Some([one]) => keys.push((
            "status",
            one.parse().map_or(Value::text(one), Value::Number),
        )),
        Some(several) => keys.push(("status", Value::List(several.to_vec()))),
    }
    Ok((Asked::Http(keys), port))
}

/// `option tcp-check` with its `tcp-check` rules: what is sent, and the one answer that is waited for.
fn exchange(back: &Proxy, remarks: &mut Vec<Remark>) -> Result<(Asked, Option<u16>), Unfit> {
    let mut port = None;
    let mut send = String::new();
    let mut expect: Option<String> = None;
    for (number, line) in back.check_rules().enumerate() {
        let unfit = |why: &str| Err((line.clone(), why.to_owned()));
        let rest = line.words.get(2..).unwrap_or_default();
        let without_comment = match rest {
            [before @ .., word, _] if word == "comment" => before,
            all => all,
        };
        match (line.word(1), without_comment) {
            ("comment", _) => {}
            ("connect", _) if number > 0 => return unfit("it connects more than once"),
            ("connect", _) => port = connect(line)?,
            ("send" | "send-lf" | "send-binary" | "send-binary-lf", [text]) => {
                let text = match line.word(1) {
                    "send" => Some(text.clone()),
                    "send-lf" => Some(text.clone()).filter(|text| !text.contains('%')),
                    "send-binary" => of_hex(text),
                    _ => None,
                };
                let Some(text) = text else {
                    return unfit("what it sends is no text");
                };
                match &expect {
                    None => send.push_str(&text),
                    Some(_) => {
                        let why = "the connection is closed as soon as the right answer has come";
                        remarks.push(line.dropped(why));
                    }
                }
            }
            ("expect", _) if expect.is_some() => return unfit("it waits for more than one answer"),
            ("expect", [kind, text]) if kind == "string" => expect = Some(text.clone()),
            ("expect", [kind, text]) if kind == "binary" => match of_hex(text) {
                Some(text) => expect = Some(text),
                None => return unfit("what it waits for is no text"),
            },
            ("expect", _) => {
                return unfit("only a text that has to be in the answer is waited for");
            }
            _ => return unfit("nothing here does that"),
        }
    }
    match expect {
        Some(expect) => Ok((Asked::Exchange { send, expect }, port)),
        None => {
            if let (Some(line), false) = (back.protocol_check.as_ref(), send.is_empty()) {
                let why = "nothing is sent where no answer is waited for: a connection is enough";
                remarks.push(line.different(why));
            }
            Ok((Asked::Connection, port))
        }
    }
}

/// The text of bytes in hexadecimal digits, if it is one.
fn of_hex(digits: &str) -> Option<String> {
    let pairs = digits.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect();
    String::from_utf8(bytes?)
        .ok()
        .filter(|text| text.is_ascii())
}
