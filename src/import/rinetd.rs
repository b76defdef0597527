//! rinetd: `ADDRESS PORT ADDRESS PORT` on a line, and rules of who may connect.
//!
//! UDP is left to it, and so are ports by the name of a service. Rules before the first port and those behind
//! one have to let a client in both.

use std::{net::IpAddr, path::PathBuf};

use ipnet::{IpNet, Ipv4Net};

use super::{
    Around, Import, Place, Remark, access,
    forward::{Forward, Leads, LooksUp, leave, texts},
    model::{Settings, Value},
    tidy,
};
use crate::file_pattern;

/// Reads `paths`.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let mut comments: Vec<String> = Vec::new();
        // Rules before the first port count for all of them, and those behind one for it.
        let mut shared: Vec<(bool, IpNet)> = Vec::new();
        let mut own: Vec<(usize, bool, IpNet)> = Vec::new();
        let first = import.mappings.len();
        // Which mapping the last port is; none if it is left to rinetd.
        let mut last: Option<Option<usize>> = None;
        for (index, line) in text.lines().enumerate() {
            let place = file.at(index + 1);
            let (line, comment) = line
                .split_once('#')
                .map_or((line, None), |(line, comment)| (line, Some(comment)));
            comments.extend(comment.map(|comment| comment.trim().to_owned()));
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                [word @ ("allow" | "deny"), pattern] => {
                    let networks = pattern_of(pattern);
                    if networks.is_empty() {
                        let why = "the pattern is no IPv4 address with ? and *";
                        let remark = Remark::invalid(place, line.trim(), why);
                        let instead = "write addresses, such as 192.0.2.*";
                        import.remarks.push(remark.instead(instead));
                    }
                    let rules = networks.into_iter().map(|net| (word == "allow", net));
                    match last {
                        None => shared.extend(rules),
                        Some(Some(at)) => own.extend(rules.map(|(allow, net)| (at, allow, net))),
                        Some(None) => {}
                    }
                }
                ["logfile" | "logcommon" | "pidlogfile", ..] => {
                    let why = "every session is logged on standard output";
                    import
                        .remarks
                        .push(Remark::dropped(place, line.trim(), why).instead("see [log]"));
                }
                [host, port, target, target_port, ref options @ ..] => {
                    let before = import.mappings.len();
                    let listen = format!("{host}:{port}");
                    let left_out = |why: &str| Remark::left_out(place.clone(), line.trim(), why);
                    let is_udp = [port, target_port]
                        .iter()
                        .any(|port| port.ends_with("/udp"));
                    let number = |text: &str| text.trim_end_matches("/tcp").parse::<u16>().ok();
                    match (number(port), number(target_port), settings(options)) {
                        (Some(port), Some(target_port), Ok(settings)) => Forward {
                            place,
                            text: line.trim().to_owned(),
                            name: format!("port-{port}"),
                            comments: std::mem::take(&mut comments),
                            host,
                            dual: false,
                            port,
                            targets: vec![Leads {
                                host: target,
                                port: target_port,
                                weight: 1,
                            }],
                            looks_up: LooksUp::AtItsStart,
                            settings,
                        }
                        .add(around, &mut import),
                        (Some(_), Some(_), Err(why)) => {
                            let remark = left_out(&why).instead("leave it to rinetd");
                            leave(remark, listen, &mut import);
                        }
                        _ if is_udp => {
                            let remark = left_out("it is UDP").instead("leave it to rinetd");
                            leave(remark, listen, &mut import);
                        }
                        _ => {
                            let why = "a port is a number here, and not the name of a service";
                            let remark = left_out(why).instead("write the number");
                            leave(remark, listen, &mut import);
                        }
                    }
                    last = Some((import.mappings.len() > before).then_some(before));
                }
                _ => import.remarks.push(Remark::invalid(
                    place,
                    line.trim(),
                    "rinetd knows no such line",
                )),
            }
        }
        for (at, mapping) in import.mappings.iter_mut().enumerate().skip(first) {
            let own = own.iter().filter(|(of, ..)| *of == at);
            let own: Vec<(bool, IpNet)> = own.map(|(_, allow, net)| (*allow, *net)).collect();
            // A client has to pass both lists.
            let passes = |node: &IpNet| lets_in(&shared, node) && lets_in(&own, node);
            let rules = shared.iter().chain(&own);
            access::set(
                &mut mapping.settings,
                access::allow_and_deny(rules.map(|(_, net)| *net), &passes),
            );
        }
    }
    tidy(&mut import);
    import
}

/// Whether a list of rules has nothing against a client.
fn lets_in(rules: &[(bool, IpNet)], node: &IpNet) -> bool {
    let any = |allow| {
        let mut of_kind = rules.iter().filter(|(of, _)| *of == allow);
        of_kind.any(|(_, net)| net.contains(node))
    };
    let asks = rules.iter().any(|(allow, _)| *allow);
    !any(false) && (!asks || any(true))
}

/// Options in brackets, separated by commas.
fn settings(options: &[&str]) -> Result<Settings, String> {
    let mut settings = Settings::default();
    let text = options.join("");
    let inside = text.trim_matches(['[', ']']).split(',');
    for option in inside.filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            // It is for UDP.
            ("timeout", _) => {}
            ("src", address) => match address.parse::<IpAddr>() {
                Ok(ip) => settings.set("bind", Value::Text(ip.to_string()), Vec::new()),
                Err(_) => return Err("its src is no address".to_owned()),
            },
            (option, _) => return Err(format!("{option} is not known here")),
        }
    }
    Ok(settings)
}

/// The networks that a pattern stands for: `?` is any character, and `*` any number of them.
fn pattern_of(text: &str) -> Vec<IpNet> {
    if let Ok(net) = text.parse::<IpNet>() {
        return vec![net.trunc()];
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return vec![ip.into()];
    }
    let parts: Vec<&str> = text.split('.').collect();
    let numbers: Vec<u8> = parts.iter().map_while(|part| part.parse().ok()).collect();
    let Some((part, behind)) = parts[numbers.len()..].split_first() else {
        return Vec::new();
    };
    // An asterisk stands for dots, too: what is behind it may be anything.
    let is_whole = match parts.len() {
        4 => behind.iter().all(|part| *part == "*"),
        more => more < 4 && part.ends_with('*') && behind.iter().all(|part| *part == "*"),
    };
    if !is_whole {
        return Vec::new();
    }
    let network = |octet: Option<u8>| {
        let mut octets = [0; 4];
        let all = numbers.iter().copied().chain(octet);
        let bits = octets
            .iter_mut()
            .zip(all)
            .map(|(octet, of)| *octet = of)
            .count()
            * 8;
        Ipv4Net::new(octets.into(), u8::try_from(bits).ok()?)
            .ok()
            .map(IpNet::from)
    };
    if *part == "*" {
        return network(None).into_iter().collect();
    }
    let fits = |octet: &u8| file_pattern::matches(part.as_bytes(), octet.to_string().as_bytes());
    (0..=255)
        .filter(fits)
        .filter_map(|octet| network(Some(octet)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_networks() {
        for (text, networks) in [
            ("192.0.2.7", &["192.0.2.7/32"][..]),
            ("192.0.2.*", &["192.0.2.0/24"]),
            ("10.*", &["10.0.0.0/8"]),
            ("*", &["0.0.0.0/0"]),
            (
                "192.0.2.25?",
                &[
                    "192.0.2.250/32",
                    "192.0.2.251/32",
                    "192.0.2.252/32",
                    "192.0.2.253/32",
                    "192.0.2.254/32",
                    "192.0.2.255/32",
                ],
            ),
            (
                "10.25*",
                &[
                    "10.25.0.0/16",
                    "10.250.0.0/16",
                    "10.251.0.0/16",
                    "10.252.0.0/16",
                    "10.253.0.0/16",
                    "10.254.0.0/16",
                    "10.255.0.0/16",
                ],
            ),
        ] {
            let found: Vec<String> = pattern_of(text).iter().map(ToString::to_string).collect();
            assert_eq!(found, networks, "{text}");
        }
        for text in [
            "192.0.2",
            "192.0.?",
            "192.*.7",
            "board.example",
            "1.2.3.4.5",
            "",
        ] {
            assert!(pattern_of(text).is_empty(), "{text}");
        }
    }
}
