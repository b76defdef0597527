//! rinetd: `ADDRESS PORT ADDRESS PORT` on a line, and rules of who may connect.
//!
//! UDP is left to it, and so are ports by the name of a service.

use std::{net::IpAddr, path::PathBuf};

use ipnet::{IpNet, Ipv4Net};

use super::{
    Around, Import, Place, Remark, access,
    forward::{Forward, Leads, LooksUp, leave, texts},
    model::Settings,
    tidy,
};

/// Reads `paths`.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
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
                            targets: vec![Leads {
                                host: target,
                                port: target_port,
                                weight: 1,
                            }],
                            looks_up: LooksUp::AtItsStart,
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
            access::set(
                &mut mapping.settings,
                access::allow_and_deny(rules.iter().map(|(_, net)| *net), &passes),
            );
        }
    }
    tidy(&mut import);
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
