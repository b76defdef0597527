//! socat in units of systemd, or in scripts of a line each.
//!
//! Of its many addresses only ports of TCP that lead to one of TCP are read.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{
    Around, Import, Kind, Place, Remark, access, address,
    forward::{Forward, Leads, LooksUp, leave, texts},
    model::{Settings, Value},
    tidy,
};
use crate::units;

/// Reads `paths`.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let unit = path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let words = line.split_whitespace();
            let words: Vec<&str> = words.map(|word| word.trim_matches(['"', '\''])).collect();
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
    tidy(&mut import);
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
    // What a shell has behind a command.
    let is_shell = |word: &&&str| {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        !word.starts_with(['&', '|', ';', '>', '<'])
    };
    let mut rest = words.iter().take_while(is_shell).copied();
    while let Some(word) = rest.next() {
        // A value may stand in the same word.
        let mut value = |flag: &str| match &word[flag.len()..] {
            "" => rest.next().unwrap_or_default(),
            value => value,
        };
        match word {
            word if word.starts_with("-t") => half_close = value("-t"),
            word if word.starts_with("-T") => {
                let idle = value("-T").parse::<f64>().ok();
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
            "-b" | "-lf" | "-lp" | "-lm" | "-L" | "-W" | "-r" | "-R" => _ = rest.next(),
            "-u" | "-U" => {
                let why = "it passes bytes on in one direction alone";
                return leave(left_out(why), String::new(), import);
            }
            word if word.starts_with('-') => {}
            word => addresses.push(word.trim_end_matches(';')),
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
    let mut target_options = target.split(',');
    let target = target_options.next().unwrap_or_default();
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
    for option in target_options {
        let (option, value) = option.split_once('=').unwrap_or((option, ""));
        match (option, value.parse::<f64>()) {
            ("connect-timeout", Ok(seconds)) if (0.001..1e6).contains(&seconds) => {
                let span = units::duration(Duration::from_secs_f64(seconds));
                settings.set("connect_timeout", Value::Text(span), Vec::new());
            }
            ("retry", Ok(times)) if (0.0..=100.0).contains(&times) => {
                let times = match times as u64 {
                    0 => Value::text("off"),
                    times => Value::Number(times),
                };
                settings.set("retries", times, Vec::new());
            }
            ("bind", _) => match value.trim_matches(['[', ']']).parse::<IpAddr>() {
                Ok(ip) => settings.set("bind", Value::Text(ip.to_string()), Vec::new()),
                Err(_) => {
                    return leave(left_out("its bind is no address"), from.to_owned(), import);
                }
            },
            ("nodelay" | "keepalive" | "so-keepalive" | "pf" | "interval" | "reuseaddr", _) => {}
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
        targets: vec![Leads {
            host: target,
            port: target_port,
            weight: 1,
        }],
        looks_up: LooksUp::ForEachClient,
        settings,
    }
    .add(around, import);
}
