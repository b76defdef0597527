//! HAProxy, `mode tcp`: as 2.6 reads its files, and what 3.x reads differently said.

mod address;
mod bandwidth;
mod bind;
mod checks;
mod conditions;
mod forward;
mod keywords;
mod limits;
mod names;
mod proxy;
mod requests;
mod rules;
mod sections;
mod server;
mod servers;
mod syslog;
mod values;
mod words;

use std::{collections::HashMap, path::PathBuf};

use self::{
    forward::Forwarded,
    proxy::Proxy,
    sections::{Line, Section, SectionKind},
    words::Variables,
};
use super::{
    Around, Import, Kind, Place, Remark,
    listen::Listen,
    model::{Left, Value},
    tidy,
};

/// Reads `paths`: files, and directories of them.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let (found, variables) = sections::read(paths, around.variable);
    let mut import = Import {
        remarks: found.remarks,
        ..Import::default()
    };
    let proxies = proxies(&found.sections, &variables, around, &mut import);
    for section in &found.sections {
        match keywords::of_section(section.kind) {
            Some((why, instead)) => {
                let head = &section.head;
                let remark = head.dropped(why);
                import.remarks.push(remark.instead(instead));
            }
            None if section.kind == SectionKind::Global => global(section, around, &mut import),
            None if section.kind == SectionKind::LogForward => {
                let head = &section.head;
                let remark = head.left_out("it takes in log lines");
                import
                    .remarks
                    .push(remark.instead("leave it to HAProxy, or to a log daemon"));
                let binds = section
                    .lines
                    .iter()
                    .filter(|line| line.word(0).ends_with("bind"));
                import.left.push(Left {
                    place: head.place.clone(),
                    what: head.text.clone(),
                    listen: binds.map(|line| line.word(1).to_owned()).collect(),
                });
            }
            None => {}
        }
    }
    let resolvers = found.sections.iter();
    let resolvers: Vec<&Section> = resolvers
        .filter(|section| section.kind == SectionKind::Resolvers)
        .collect();
    forward(&proxies, &resolvers, around, &mut import);
    import.comments.extend(found.tail);
    if let (Some(first), false) = (paths.first(), import.mappings.is_empty()) {
        said_once(Place::whole(first), &mut import);
    }
    tidy(&mut import);
    import
}

/// Each proxy with what it inherits.
fn proxies(
    sections: &[Section],
    variables: &Variables<'_>,
    around: &Around<'_>,
    import: &mut Import,
) -> Vec<Proxy> {
    let mut defaults: Vec<(&Section, Vec<Line>)> = Vec::new();
    let mut proxies: Vec<Proxy> = Vec::new();
    for section in sections {
        let head = &section.head;
        let mut invalid = |line: &Line, why: String| {
            import.remarks.push(line.invalid(why));
        };
        let mut named = |name: &str| {
            let mut of_name = defaults.iter().filter(|(section, _)| section.name == name);
            let found = of_name.next_back();
            match (found, of_name.next()) {
                (Some((_, lines)), None) => lines.clone(),
                (Some(_), Some(_)) => {
                    invalid(head, format!("there are two defaults called {name:?}"));
                    Vec::new()
                }
                (None, _) => {
                    invalid(head, format!("there is no defaults {name:?} above"));
                    Vec::new()
                }
            }
        };
        let inherited = section.from.as_deref().map(&mut named);
        if section.kind == SectionKind::Defaults {
            for line in &section.lines {
                match line.word(0) {
                    "bind" | "server" | "use_backend" | "dispatch" | "stick-table"
                    | "server-template" => {
                        invalid(line, "it must not stand in defaults".to_owned());
                    }
                    "acl" | "tcp-request" if section.name.is_empty() => {
                        invalid(
                            line,
                            "it must not stand in defaults without a name".to_owned(),
                        );
                    }
                    _ => {}
                }
            }
            let mut lines = inherited.unwrap_or_default();
            lines.extend(section.lines.iter().cloned());
            let above = section.head.comments.iter().chain(&section.tail);
            import.comments.extend(above.cloned());
            defaults.push((section, lines));
        } else if section.kind.is_proxy() {
            let last = || defaults.last().map(|(_, lines)| lines.clone());
            let inherited = inherited.or_else(last).unwrap_or_default();
            let proxy = Proxy::read(section, &inherited, variables, around);
            let clashes = |known: &&Proxy| {
                known.name == proxy.name
                    && (known.has_clients() == proxy.has_clients()
                        || known.kind == SectionKind::Listen
                        || proxy.kind == SectionKind::Listen)
            };
            if let Some(known) = proxies.iter().find(clashes) {
                let why = format!("{} has the same name", known.head.place);
                invalid(head, why);
            }
            proxies.push(proxy);
        }
    }
    proxies
}

/// Whether a syslog daemon can be told this name of the program.
fn is_program(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    (1..=32).contains(&name.len()) && name.chars().all(fits)
}

/// Settings of the process.
fn global(section: &Section, around: &Around<'_>, import: &mut Import) {
    let above = section.head.comments.iter().chain(&section.tail);
    import.comments.extend(above.cloned());
    for line in &section.lines {
        let value = line.word(1);
        let remark = |kind, why: String, instead: &str| line.remark(kind, why).instead(instead);
        let (section, key, setting) = match line.word(0) {
            "maxconn" | "maxpipes" | "maxconnrate" | "maxsessrate" => {
                let (number, rest) = values::leading_number(value);
                if !rest.is_empty() {
                    let why = format!(
                        "HAProxy 2 passes over {rest:?} and takes it for {number}, HAProxy 3 refuses it"
                    );
                    import
                        .remarks
                        .push(remark(Kind::Different, why, "set what was meant"));
                }
                let (section, key) = match line.word(0) {
                    "maxconn" => ("limits", "max_sessions"),
                    "maxpipes" => ("process", "pipes"),
                    _ => ("limits", "new_sessions_per_second"),
                };
                if number == 0 {
                    continue;
                }
                (section, key, Value::Number(number.min(1_000_000)))
            }
            "hard-stop-after" => match values::time(value) {
                Ok((Some(span), _)) => {
                    let span = crate::units::duration(span);
                    ("process", "shutdown_timeout", Value::Text(span))
                }
                _ => continue,
            },
            "log" => {
                syslog::set(line, around, import);
                continue;
            }
            "log-tag" if is_program(value) => ("log", "syslog_name", Value::text(value)),
            "nosplice" => ("process", "splice", Value::Flag(false)),
            "tune.pipesize" => match value.parse::<u64>() {
                Ok(size) if size.is_power_of_two() && (4096..=1 << 20).contains(&size) => (
                    "process",
                    "pipe_size",
                    Value::Text(format!("{}KiB", size >> 10)),
                ),
                _ => {
                    let why = "a pipe has a power of two from 4 KiB to 1 MiB".to_owned();
                    import
                        .remarks
                        .push(remark(Kind::Dropped, why, "see process.pipe_size"));
                    continue;
                }
            },
            // What they set is written where it is used.
            "setenv" | "presetenv" => {
                import.comments.extend(line.comments.iter().cloned());
                continue;
            }
            word => {
                let (why, instead) = match keywords::of_global(word) {
                    Some(said) => said,
                    None if word == "no" => ("it concerns HAProxy's own process", ""),
                    None => (
                        "it has no counterpart",
                        "see whether anything depends on it",
                    ),
                };
                import
                    .remarks
                    .push(remark(Kind::Dropped, why.to_owned(), instead));
                import.comments.extend(line.comments.iter().cloned());
                continue;
            }
        };
        import
            .section(section)
            .set(key, setting, line.comments.clone());
    }
}

/// Mappings of all front ends, and what stays with HAProxy.
fn forward(proxies: &[Proxy], resolvers: &[&Section], around: &Around<'_>, import: &mut Import) {
    let mut forwarded: Vec<(&Proxy, Forwarded)> = Vec::new();
    for front in proxies.iter().filter(|proxy| proxy.has_clients()) {
        match forward::front(front, proxies, resolvers) {
            Ok(found) => forwarded.push((front, found)),
            Err(blockers) => leave(front, blockers, import),
        }
    }
    for (at, blocker) in clashes(&forwarded).into_iter().rev() {
        let (front, _) = forwarded.remove(at);
        leave(front, vec![blocker], import);
    }
    limits::place(&mut forwarded, import);
    for proxy in proxies
        .iter()
        .filter(|proxy| proxy.kind == SectionKind::Backend)
    {
        let leads = |front: &&Proxy| forward::backends(front).any(|name| name == proxy.name);
        let is_used = proxies.iter().any(|front| leads(&front));
        if !is_used && !proxy.servers.is_empty() {
            let why = "no front end leads to it";
            import.remarks.push(proxy.head.dropped(why));
        }
    }
    let used: Vec<String> = forwarded
        .iter()
        .flat_map(|(_, found)| found.resolvers.clone())
        .collect();
    names::section(resolvers, &used, import);
    for (front, found) in forwarded {
        for line in &front.logs {
            syslog::set(line, around, import);
        }
        import.remarks.extend(found.remarks);
        import.mappings.extend(found.mappings);
    }
}

/// Leaves a front end to HAProxy; nothing is said of what would have become of it.
fn leave(front: &Proxy, blockers: Vec<Remark>, import: &mut Import) {
    let leaves = blockers.iter().any(|blocker| blocker.kind == Kind::LeftOut);
    import.remarks.extend(blockers);
    if leaves {
        import.left.push(Left {
            place: front.head.place.clone(),
            what: front.head.text.clone(),
            listen: front
                .binds
                .iter()
                .map(|bind| bind.line.word(1).to_owned())
                .collect(),
        });
    }
}

/// Front ends that cannot be beside the others: where they stand, and why.
fn clashes(forwarded: &[(&Proxy, Forwarded)]) -> Vec<(usize, Remark)> {
    let mut taken: HashMap<u16, Vec<(Listen, usize)>> = HashMap::new();
    let mut clashes: Vec<(usize, Remark)> = Vec::new();
    for (at, (front, found)) in forwarded.iter().enumerate() {
        let listens = found
            .mappings
            .iter()
            .flat_map(|mapping| &mapping.listen.value);
        let mut own = Vec::new();
        let clash = listens.flat_map(|listen| listen.ports()).find_map(|port| {
            let others = taken.get(&port.first).into_iter().flatten();
            let others = others.chain(
                own.iter()
                    .filter(|(other, _): &&(Listen, usize)| other.first == port.first),
            );
            let clash = others
                .clone()
                .find(|(other, _)| other.overlaps(&port))
                .copied();
            own.push((port, at));
            clash.map(|clash| (port, clash))
        });
        match clash {
            None => {
                for (listen, at) in own {
                    taken.entry(listen.first).or_default().push((listen, at));
                }
            }
            Some((port, (other, by))) => {
                let by = &forwarded[by].0.head.text;
                let why = format!("it listens on {port}, of which {by} takes {other}");
                let place = front.head.place.clone();
                let remark = Remark::left_out(place, &front.head.text, why);
                clashes.push((at, remark.instead("let one of them listen there")));
            }
        }
    }
    for (at, (front, found)) in forwarded.iter().enumerate() {
        let is_loop = found.mappings.iter().find_map(|mapping| {
            let targets = mapping.targets.iter();
            let spans = mapping
                .listen
                .value
                .iter()
                .map(|listen| listen.last - listen.first);
            let span = spans.max().unwrap_or_default();
            targets.into_iter().find_map(|target| {
                let ip = target.host.ip()?;
                let mut ports = target.port..=target.port.saturating_add(span);
                ports.find_map(|port| {
                    let listeners = taken.get(&port).into_iter().flatten();
                    let mut listeners = listeners.filter(|(listen, _)| listen.receives(ip, port));
                    listeners.next().copied()
                })
            })
        });
        if let (Some((listen, by)), false) =
            (is_loop, clashes.iter().any(|(known, _)| *known == at))
        {
            let by = &forwarded[by].0.head.text;
            let why =
                format!("it leads to {listen} of {by}, which is a listener of the same proxy");
            let place = front.head.place.clone();
            let remark = Remark::left_out(place, &front.head.text, why);
            clashes.push((at, remark.instead("lead it to where that one leads")));
        }
    }
    clashes.sort_by_key(|(at, _)| *at);
    clashes
}

/// What is different for every mapping.
fn said_once(place: Place, import: &mut Import) {
    names::said(import, place.clone());
    let said = [
        (
            "timeout connect",
            "it is of each attempt in HAProxy, and connect_timeout is of all together",
        ),
        (
            "how sessions end",
            "a target that refuses or resets, an idle session and a refused client are an end of stream in HAProxy, and a \
             reset here",
        ),
    ];
    for (what, why) in said {
        import
            .remarks
            .push(Remark::different(place.clone(), what, why));
    }
}
