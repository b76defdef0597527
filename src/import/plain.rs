//! Programs that forward a port and say so in a line or two: rinetd, xinetd, realm, socat.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use toml::de::{DeTable, DeValue};

use super::{
    Around, Import, Kind, Place, Remark, access, address,
    listen::{Host, Listen},
    model::{Left, Mapping, Noted, Settings, Target, Value},
    text_of,
};
use crate::units;

/// A port that is forwarded, in the words of its file.
struct Forward<'t> {
    place: Place,
    text: String,
    name: String,
    comments: Vec<String>,
    host: &'t str,
    /// Whether every IPv6 address is every IPv4 address as well.
    dual: bool,
    port: u16,
    target: &'t str,
    target_port: u16,
    settings: Settings,
}

impl Forward<'_> {
    /// Adds the mapping, or leaves the port to the other program.
    fn add(self, around: &Around<'_>, import: &mut Import) {
        let left_out = |why: String| Remark::left_out(self.place.clone(), &self.text, why);
        let host = match self.host {
            "" | "*" => Some(Host::ANY_V4),
            host => address::listen_host(host, around),
        };
        let named = |host: &str| address::is_a_name(left_out(format!("{host} is a name")));
        let found = host.ok_or_else(|| named(self.host));
        let found = found.and_then(|host| {
            let ip = address::ip(self.target, around).ok_or_else(|| named(self.target))?;
            Ok((host, ip))
        });
        match found {
            Ok((host, ip)) => {
                let host = match host {
                    Host::ANY_V6 if self.dual => Host::Any,
                    host => host,
                };
                let listen = Listen {
                    host,
                    first: self.port,
                    last: self.port,
                };
                import.mappings.push(Mapping {
                    place: self.place,
                    name: self.name,
                    comments: self.comments,
                    listen: Noted {
                        value: vec![listen],
                        comments: Vec::new(),
                    },
                    targets: vec![Target {
                        host: ip,
                        port: self.target_port,
                        comments: Vec::new(),
                        settings: Settings::default(),
                    }],
                    settings: self.settings,
                });
            }
            Err(remark) => {
                let listen = format!("{}:{}", self.host, self.port);
                leave(remark, listen, import);
            }
        }
    }
}

fn leave(remark: Remark, listen: String, import: &mut Import) {
    import.left.push(Left {
        place: remark.place.clone(),
        what: remark.what.clone(),
        listen: vec![listen],
    });
    import.remarks.push(remark);
}

/// Each file with its text; what cannot be read is said.
fn texts<'p>(paths: &'p [PathBuf], import: &mut Import) -> Vec<(&'p Path, String)> {
    let mut texts = Vec::new();
    for path in paths {
        match text_of(path) {
            Ok(text) => texts.push((path.as_path(), text)),
            Err(remark) => import.remarks.push(remark),
        }
    }
    texts
}

/// rinetd: `ADDRESS PORT ADDRESS PORT`, and who may connect.
pub fn rinetd(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let mut comments: Vec<String> = Vec::new();
        // Rules before the first port count for all of them.
        let mut shared: Vec<(bool, IpNet)> = Vec::new();
        let mut own: Vec<(usize, bool, IpNet)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let place = file.at(index + 1);
            let (line, comment) = line
                .split_once('#')
                .map_or((line, None), |(line, comment)| (line, Some(comment)));
            comments.extend(comment.map(|comment| comment.trim().to_owned()));
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                [word @ ("allow" | "deny"), pattern] => match pattern_of(pattern) {
                    Some(net) => match import.mappings.len() {
                        0 => shared.push((word == "allow", net)),
                        number => own.push((number - 1, word == "allow", net)),
                    },
                    None => {
                        let why = "the pattern is no network";
                        import.remarks.push(
                            Remark::invalid(place, line.trim(), why)
                                .instead("write a network, such as 192.0.2.0/24"),
                        );
                    }
                },
                ["logfile" | "logcommon" | "pidlogfile", ..] => {
                    let why = "every session is logged on standard output";
                    import
                        .remarks
                        .push(Remark::dropped(place, line.trim(), why).instead("see [log]"));
                }
                [host, port, target, target_port, ..] => {
                    let is_udp = [port, target_port]
                        .iter()
                        .any(|port| port.ends_with("/udp"));
                    let number = |text: &str| text.trim_end_matches("/tcp").parse::<u16>().ok();
                    match (number(port), number(target_port)) {
                        (Some(port), Some(target_port)) => Forward {
                            place,
                            text: line.trim().to_owned(),
                            name: format!("port-{port}"),
                            comments: std::mem::take(&mut comments),
                            host,
                            dual: false,
                            port,
                            target,
                            target_port,
                            settings: Settings::default(),
                        }
                        .add(around, &mut import),
                        _ => {
                            let why = if is_udp {
                                "it is UDP"
                            } else {
                                "a port is a number here"
                            };
                            let remark = Remark::left_out(place, line.trim(), why);
                            leave(
                                remark.instead("leave it to rinetd, or write the number"),
                                format!("{host}:{port}"),
                                &mut import,
                            );
                        }
                    }
                }
                _ => import.remarks.push(Remark::invalid(
                    place,
                    line.trim(),
                    "rinetd knows no such line",
                )),
            }
        }
        for (at, mapping) in import.mappings.iter_mut().enumerate() {
            let own = own
                .iter()
                .filter(|(of, ..)| *of == at)
                .map(|(_, allow, net)| (*allow, *net));
            let rules: Vec<(bool, IpNet)> = shared.iter().copied().chain(own).collect();
            let passes = |node: &IpNet| {
                let any = |allow| {
                    rules
                        .iter()
                        .any(|(of, net)| *of == allow && net.contains(node))
                };
                let asks = rules.iter().any(|(allow, _)| *allow);
                !any(false) && (!asks || any(true))
            };
            who(
                &mut mapping.settings,
                rules.iter().map(|(_, net)| *net),
                &passes,
            );
        }
    }
    super::tidy(&mut import);
    import
}

/// A pattern of rinetd: a network, an address, or one with asterisks at its end.
fn pattern_of(text: &str) -> Option<IpNet> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(net.trunc());
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip.into());
    }
    let parts: Vec<&str> = text.split('.').collect();
    let numbers: Vec<u8> = parts.iter().map_while(|part| part.parse().ok()).collect();
    let stars = parts.iter().skip(numbers.len()).all(|part| *part == "*");
    let mut octets = [0; 4];
    if !stars || parts.len() > 4 || numbers.len() > 3 {
        return None;
    }
    octets[..numbers.len()].copy_from_slice(&numbers);
    let bits = u8::try_from(numbers.len() * 8).ok()?;
    Ipv4Net::new(octets.into(), bits).ok().map(IpNet::from)
}

/// Writes who may connect.
fn who(
    settings: &mut Settings,
    named: impl IntoIterator<Item = IpNet>,
    passes: &dyn Fn(&IpNet) -> bool,
) {
    let (allow, deny) = access::allow_and_deny(named, passes);
    for (key, list) in [("allow", allow), ("deny", deny)] {
        if !list.is_empty() {
            let list = list.iter().map(access::written).collect();
            settings.set(key, Value::List(list), Vec::new());
        }
    }
}

/// Keys of xinetd with their values, in the order of the file.
type Values = Vec<(String, Vec<String>)>;

/// xinetd: services with `redirect`.
pub fn xinetd(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let mut comments: Vec<String> = Vec::new();
        let mut open: Option<(Place, String, Values)> = None;
        let mut defaults: Vec<(String, Vec<String>)> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let place = file.at(index + 1);
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                comments.push(comment.trim().to_owned());
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match (&words[..], &mut open) {
                ([] | ["{"], _) => {}
                (["}"], found) => {
                    let Some((place, name, own)) = found.take() else {
                        continue;
                    };
                    if name == "defaults" {
                        defaults = own;
                        continue;
                    }
                    let service = Service {
                        place,
                        name,
                        own,
                        defaults: &defaults,
                    };
                    service.add(std::mem::take(&mut comments), around, &mut import);
                }
                (["defaults", ..], _) => open = Some((place, "defaults".to_owned(), Vec::new())),
                (["service", name, ..], _) => open = Some((place, (*name).to_owned(), Vec::new())),
                (["include" | "includedir", ..], _) => {
                    let why = "what it includes is not read";
                    import.remarks.push(
                        Remark::invalid(place, line, why).instead("give those files as well"),
                    );
                }
                ([key, "=" | "+=", values @ ..], Some((_, _, own))) => {
                    let values = values.iter().map(|value| (*value).to_owned()).collect();
                    own.push(((*key).to_owned(), values));
                }
                _ => import
                    .remarks
                    .push(Remark::invalid(place, line, "xinetd knows no such line")),
            }
        }
    }
    super::tidy(&mut import);
    import
}

/// A service of xinetd.
struct Service<'a> {
    place: Place,
    name: String,
    own: Vec<(String, Vec<String>)>,
    defaults: &'a [(String, Vec<String>)],
}

impl Service<'_> {
    /// All values of a key, of the service or else of the defaults.
    fn values(&self, key: &str) -> Vec<&str> {
        let of = |list: &'_ [(String, Vec<String>)]| -> Vec<String> {
            let given = list.iter().filter(|(known, _)| known == key);
            given.flat_map(|(_, values)| values.clone()).collect()
        };
        let list = if of(&self.own).is_empty() {
            self.defaults
        } else {
            &self.own
        };
        let given = list.iter().filter(|(known, _)| known == key);
        given
            .flat_map(|(_, values)| values.iter().map(String::as_str))
            .collect()
    }

    fn value(&self, key: &str) -> &str {
        self.values(key).last().copied().unwrap_or_default()
    }

    fn add(&self, comments: Vec<String>, around: &Around<'_>, import: &mut Import) {
        let text = format!("service {}", self.name);
        let dropped = |why: &str| Remark::dropped(self.place.clone(), &text, why);
        if self.value("disable") == "yes" {
            return import.remarks.push(dropped("it is disabled"));
        }
        let [target, target_port] = self.values("redirect")[..] else {
            return import
                .remarks
                .push(dropped("it starts a program").instead("leave it to xinetd"));
        };
        let listen = format!("{}:{}", self.value("bind"), self.value("port"));
        let left_out = |why: &str| Remark::left_out(self.place.clone(), &text, why);
        let ports = (
            self.value("port").parse::<u16>(),
            target_port.parse::<u16>(),
        );
        let (Ok(port), Ok(target_port)) = ports else {
            return leave(
                left_out("a port is a number here").instead("write `port = NUMBER`"),
                listen,
                import,
            );
        };
        if self.value("protocol") == "udp" || self.value("socket_type") == "dgram" {
            return leave(
                left_out("it is UDP").instead("leave it to xinetd"),
                listen,
                import,
            );
        }
        let mut settings = Settings::default();
        for (key, ours) in [
            ("instances", "max_sessions"),
            ("per_source", "max_sessions_per_source"),
        ] {
            if let Ok(number @ 1..) = self.value(key).parse::<u64>() {
                settings.set(ours, Value::Number(number), Vec::new());
            }
        }
        let mut rules: Vec<(bool, IpNet)> = Vec::new();
        for (key, allow) in [("only_from", true), ("no_access", false)] {
            for value in self.values(key) {
                match network_of(value) {
                    Some(net) => rules.push((allow, net)),
                    None => {
                        let why = format!("{value} in {key} is no network");
                        return leave(
                            left_out(&why).instead("write a network, such as 192.0.2.0/24"),
                            listen,
                            import,
                        );
                    }
                }
            }
        }
        // As with us, the longest prefix decides.
        let asks = rules.iter().any(|(allow, _)| *allow);
        let passes = |node: &IpNet| {
            let fits = rules.iter().filter(|(_, net)| net.contains(node));
            fits.max_by_key(|(_, net)| net.prefix_len())
                .map_or(!asks, |(allow, _)| *allow)
        };
        who(&mut settings, rules.iter().map(|(_, net)| *net), &passes);
        let bind = match self.value("bind") {
            "" => self.value("interface"),
            bind => bind,
        };
        let v6 = self.values("flags").contains(&"IPv6");
        Forward {
            place: self.place.clone(),
            text: text.clone(),
            name: self.name.clone(),
            comments,
            host: if bind.is_empty() && v6 { "::" } else { bind },
            dual: true,
            port,
            target,
            target_port,
            settings,
        }
        .add(around, import);
    }
}

/// A network of xinetd: zeros at the end of an address stand for anything.
fn network_of(text: &str) -> Option<IpNet> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(net.trunc());
    }
    match text.parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) => {
            let zeros = ip
                .octets()
                .iter()
                .rev()
                .take_while(|octet| **octet == 0)
                .count();
            let bits = u8::try_from(32 - 8 * zeros).ok()?;
            Ipv4Net::new(ip, bits).ok().map(IpNet::from)
        }
        ip => Some(ip.into()),
    }
}

/// realm: `[[endpoints]]` in TOML.
pub fn realm(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let line = |offset: usize| text[..offset.min(text.len())].lines().count().max(1);
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(1, |span| line(span.start + 1));
                import.remarks.push(Remark::invalid(
                    file.at(at),
                    "this file",
                    error.message().to_owned(),
                ));
                continue;
            }
        };
        let endpoints = table.get_ref().get("endpoints").map(|list| list.get_ref());
        let Some(DeValue::Array(endpoints)) = endpoints else {
            import.remarks.push(Remark::invalid(
                file.clone(),
                "this file",
                "it has no [[endpoints]]",
            ));
            continue;
        };
        for endpoint in endpoints.iter() {
            let place = file.at(line(endpoint.span().start + 1));
            let word = |key: &str| {
                endpoint
                    .get_ref()
                    .get(key)
                    .and_then(|value| value.get_ref().as_str())
            };
            let (listen, remote) = (
                word("listen").unwrap_or_default(),
                word("remote").unwrap_or_default(),
            );
            let text = format!("{listen} to {remote}");
            let left_out = |why: &str| {
                Remark::left_out(place.clone(), &text, why).instead("leave it to realm")
            };
            let blocker = [
                "extra_remotes",
                "listen_transport",
                "remote_transport",
                "interface",
                "listen_interface",
            ];
            let given = blocker
                .into_iter()
                .find(|key| endpoint.get_ref().get(key).is_some());
            if let Some(key) = given {
                leave(
                    left_out(&format!("{key} has no counterpart")),
                    listen.to_owned(),
                    &mut import,
                );
                continue;
            }
            let (Some((host, port)), Some((target, target_port))) =
                (address::split(listen), address::split(remote))
            else {
                leave(left_out("it has no port"), listen.to_owned(), &mut import);
                continue;
            };
            let mut settings = Settings::default();
            settings.set("connect_timeout", Value::text("5s"), Vec::new());
            if let Some(through) = word("through") {
                let ip = through
                    .parse::<IpAddr>()
                    .ok()
                    .or_else(|| address::ip(address::split(through)?.0, around));
                match ip {
                    Some(ip) => settings.set("bind", Value::Text(ip.to_string()), Vec::new()),
                    None => {
                        leave(
                            left_out("through is no address"),
                            listen.to_owned(),
                            &mut import,
                        );
                        continue;
                    }
                }
            }
            Forward {
                place: place.clone(),
                text: text.clone(),
                name: format!("port-{port}"),
                comments: Vec::new(),
                host,
                dual: true,
                port,
                target,
                target_port,
                settings,
            }
            .add(around, &mut import);
        }
    }
    super::tidy(&mut import);
    import
}

/// socat in units of systemd, or in scripts of a line each.
pub fn socat(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let unit = path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_socat = |word: &&str| word.rsplit(['/', '=']).next() == Some("socat");
            let Some(at) = words
                .iter()
                .position(is_socat)
                .filter(|_| !line.starts_with('#'))
            else {
                continue;
            };
            command(
                file.at(index + 1),
                line,
                &unit,
                &words[at + 1..],
                around,
                &mut import,
            );
        }
    }
    super::tidy(&mut import);
    import
}

/// One command of socat.
fn command(
    place: Place,
    line: &str,
    name: &str,
    words: &[&str],
    around: &Around<'_>,
    import: &mut Import,
) {
    let left_out =
        |why: &str| Remark::left_out(place.clone(), line, why).instead("leave it to socat");
    let mut settings = Settings::default();
    // Once one side has finished, socat waits half a second for the other.
    let mut half_close = "0.5";
    let mut addresses: Vec<&str> = Vec::new();
    let mut rest = words.iter().copied();
    while let Some(word) = rest.next() {
        match word {
            "-t" => half_close = rest.next().unwrap_or_default(),
            "-T" => {
                let idle = rest.next().unwrap_or_default().parse::<f64>().ok();
                let idle = idle
                    .filter(|idle| (0.0..1e7).contains(idle))
                    .map(Duration::from_secs_f64);
                let idle = idle.filter(|idle| !idle.is_zero());
                if let Some(idle) = idle {
                    settings.set(
                        "idle_timeout",
                        Value::Text(units::duration(idle)),
                        Vec::new(),
                    );
                }
            }
            word if word.starts_with('-') => {}
            word => addresses.push(word),
        }
    }
    let half_close = half_close
        .parse::<f64>()
        .ok()
        .filter(|time| (0.001..1e6).contains(time));
    if let Some(half_close) = half_close.map(Duration::from_secs_f64) {
        settings.set(
            "half_close_timeout",
            Value::Text(units::duration(half_close)),
            Vec::new(),
        );
    }
    let [from, to] = addresses[..] else {
        return leave(left_out("it is not two addresses"), String::new(), import);
    };
    let mut options = from.split(',');
    let (kind, port) = options
        .next()
        .and_then(|first| first.split_once(':'))
        .unwrap_or((from, ""));
    let kind = kind.to_ascii_uppercase();
    let is_listener = [
        "TCP-LISTEN",
        "TCP-L",
        "TCP4-LISTEN",
        "TCP4-L",
        "TCP6-LISTEN",
        "TCP6-L",
    ]
    .contains(&kind.as_str());
    let (to_kind, target) = to.split_once(':').unwrap_or((to, ""));
    let target = target.split(',').next().unwrap_or_default();
    let is_target =
        ["TCP", "TCP4", "TCP6", "TCP-CONNECT"].contains(&to_kind.to_ascii_uppercase().as_str());
    let (Ok(port), Some((target, target_port)), true, true) = (
        port.parse::<u16>(),
        address::split(target),
        is_listener,
        is_target,
    ) else {
        return leave(
            left_out("it is not one port of TCP to another"),
            from.to_owned(),
            import,
        );
    };
    let mut host = if kind.starts_with("TCP6") { "::" } else { "" };
    let mut forks = false;
    let mut dual = true;
    for option in options {
        match option.split_once('=').unwrap_or((option, "")) {
            ("fork", _) => forks = true,
            ("bind", address) => host = address,
            ("ipv6only" | "ipv6-v6only", value) => dual = value == "0",
            ("max-children", number) => {
                if let Ok(number @ 1..) = number.parse::<u64>() {
                    settings.set("max_sessions", Value::Number(number), Vec::new());
                }
            }
            ("range", net) => match net.parse::<IpNet>() {
                Ok(net) => {
                    let list = Value::List(vec![access::written(&net.trunc())]);
                    settings.set("allow", list, Vec::new());
                }
                Err(_) => {
                    return leave(left_out("its range is no network"), from.to_owned(), import);
                }
            },
            (
                "reuseaddr" | "reuseport" | "backlog" | "nodelay" | "keepalive" | "so-keepalive"
                | "su" | "user" | "group" | "pf",
                _,
            ) => {}
            (option, _) => {
                let why = format!("{option} is not known here");
                return leave(left_out(&why), from.to_owned(), import);
            }
        }
    }
    if !forks {
        let why = "it ends after one client, and a mapping serves as many as come";
        import
            .remarks
            .push(Remark::new(Kind::Different, place.clone(), line, why));
    }
    Forward {
        place: place.clone(),
        text: line.to_owned(),
        name: if name.is_empty() {
            format!("port-{port}")
        } else {
            name.to_owned()
        },
        comments: Vec::new(),
        host,
        dual,
        port,
        target,
        target_port,
        settings,
    }
    .add(around, import);
}
