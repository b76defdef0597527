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

/// Keys of xinetd with their values, in the order of the file.
type Values = Vec<(String, Vec<String>)>;

/// Reads `paths`.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
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
    tidy(&mut import);
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
        access::set(
            &mut settings,
            access::allow_and_deny(rules.iter().map(|(_, net)| *net), &passes),
        );
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
