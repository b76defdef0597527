//! xinetd: services with `redirect`.
//!
//! What starts a program is left to it, and so is UDP. What `includedir` names is not read: its files have
//! to be given.

use std::{net::IpAddr, path::PathBuf};

use ipnet::{IpNet, Ipv4Net};

use super::{
    Around, Import, Place, Remark, access,
    forward::{Forward, Leads, LooksUp, leave, texts},
    model::{Settings, Value},
    tidy,
};

/// Keys that keep clients out, or tell them something first.
const KEEPS_OUT: [&str; 5] = [
    "access_times",
    "banner",
    "banner_success",
    "banner_fail",
    "max_load",
];

/// Keys that are read, or that a port that is forwarded does not notice.
const KNOWN: [&str; 32] = [
    "bind",
    "cps",
    "deny_time",
    "disable",
    "enabled",
    "disabled",
    "env",
    "flags",
    "group",
    "groups",
    "id",
    "instances",
    "interface",
    "libwrap",
    "log_on_failure",
    "log_on_success",
    "log_type",
    "mdns",
    "nice",
    "no_access",
    "only_from",
    "passenv",
    "per_source",
    "port",
    "protocol",
    "redirect",
    "server",
    "socket_type",
    "type",
    "umask",
    "user",
    "wait",
];

/// Keys of xinetd with their values, in the order of the file.
type Values = Vec<(String, Vec<String>)>;

/// Reads `paths`.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let mut comments: Vec<String> = Vec::new();
        let mut open: Option<(Place, String, Values)> = None;
        let mut defaults: Values = Vec::new();
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
                // Who is taken out of a list of others is not known once it is read.
                ([key @ ("only_from" | "no_access"), "-=", ..], Some((_, _, own))) => {
                    own.push(((*key).to_owned(), vec!["-=".to_owned()]));
                }
                ([_, "-=", ..], Some(_)) => {}
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
    tidy(&mut import);
    import
}

/// A service of xinetd.
struct Service<'a> {
    place: Place,
    name: String,
    own: Values,
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
        let number = |text: &str| {
            text.parse::<u16>().map_err(|_| {
                let why = match text {
                    "" => "its port is that of the service of this name".to_owned(),
                    text => format!("{text} is the name of a service, and a port is a number here"),
                };
                left_out(&why).instead("write the number of the port")
            })
        };
        let port = number(self.value("port"));
        let (port, target_port) = match port.and_then(|port| Ok((port, number(target_port)?))) {
            Ok(ports) => ports,
            Err(remark) => return leave(remark, listen, import),
        };
        let all = self.own.iter().chain(self.defaults);
        if let Some((key, _)) = all
            .clone()
            .find(|(key, _)| KEEPS_OUT.contains(&key.as_str()))
        {
            let remark = left_out(&format!("{key} has no counterpart"));
            return leave(remark.instead("leave it to xinetd"), listen, import);
        }
        if let Some((key, _)) = all.clone().find(|(key, _)| !KNOWN.contains(&key.as_str())) {
            let remark = left_out(&format!("{key} is not known here"));
            let instead = "leave it out, if nothing depends on it";
            return leave(remark.instead(instead), listen, import);
        }
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
        access::set(
            &mut settings,
            access::allow_and_deny(rules.iter().map(|(_, net)| *net), &passes),
        );
        if let Some(Ok(rate @ 1..)) = self.values("cps").first().map(|rate| rate.parse::<u64>()) {
            let rate = Value::Number(rate.min(1_000_000));
            settings.set("new_sessions_per_second", rate, Vec::new());
            let why = "xinetd closes the port for a while past cps, and here the clients past it are refused";
            import
                .remarks
                .push(Remark::different(self.place.clone(), &text, why));
        }
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
            targets: vec![Leads {
                host: target,
                port: target_port,
                weight: 1,
            }],
            looks_up: LooksUp::AtItsStart,
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
