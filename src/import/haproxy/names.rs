//! Servers by name, and the `resolvers` that are asked for them.
//!
//! A name becomes a target; `resolve` and `family`, which are of all targets of a mapping, follow from what
//! its servers say. HAProxy gives a server one address of its name, and here every address is a target: an
//! only server is written with `balance = "first"`, so that one of them has the sessions while it is up.

use std::time::Duration;

use super::{address::Family, sections::Section, server::Server, values};
use crate::{
    import::{
        Import, Place, Remark, address,
        listen::{Host, Listen},
        model::{Mapping, Settings, TargetHost, Value},
    },
    units,
};

/// How often HAProxy asks unless it is told, which is as often as we do at the most.
const EVERY: Duration = Duration::from_secs(1);

/// A server whose host is a name.
fn is_name(server: &&&Server) -> bool {
    matches!(server.host, Some(TargetHost::Name(_)))
}

/// Writes how the names among `servers` are looked up. The answer is the section that is asked.
pub fn set(
    settings: &mut Settings,
    servers: &[&Server],
    resolvers: &[&Section],
    remarks: &mut Vec<Remark>,
) -> Option<String> {
    let named: Vec<&Server> = servers.iter().filter(is_name).copied().collect();
    let first = named.first()?;
    for server in &named {
        if let Some(copies) = server.copies {
            let why = format!("at most {copies} addresses of it are used in HAProxy, and all here");
            remarks.push(server.line.different(&why));
        }
        if server.options.resolvers != first.options.resolvers {
            let why = "it is looked up as that of the first server: a mapping has one resolve";
            remarks.push(server.line.different(why));
        }
        if family(server) != family(first) {
            let why = "its family is that of the first server: a mapping has one";
            remarks.push(
                server
                    .line
                    .different(why)
                    .instead("give it a mapping of its own"),
            );
        }
    }
    if let ([only], None) = (servers, first.copies)
        && is_name(&only)
    {
        settings.set("balance", Value::text("first"), Vec::new());
    }
    if let Some(family) = family(first) {
        settings.set("family", Value::text(family), Vec::new());
    }
    let asked = first.options.resolvers.as_ref()?;
    let section = resolvers.iter().find(|section| section.name == *asked);
    let Some(section) = section else {
        let line = &first.line;
        let why = format!("there is no resolvers {asked}");
        remarks.push(line.invalid(why));
        return None;
    };
    let every = section.lines.iter().rev().find_map(|line| {
        let is_it = (line.word(0), line.word(1)) == ("timeout", "resolve");
        is_it.then(|| values::time(line.word(2)).ok()?.0)?
    });
    let every = every.unwrap_or(EVERY).max(EVERY);
    settings.set("resolve", Value::Text(units::duration(every)), Vec::new());
    Some(asked.clone())
}

/// Which addresses of a server's name it may have.
fn family(server: &Server) -> Option<&'static str> {
    match (
        server.family,
        &server.options.resolvers,
        server.options.prefer,
    ) {
        (Some(Family::V4), ..) => Some("ipv4"),
        (Some(Family::V6), ..) => Some("ipv6"),
        (None, None, _) => None,
        (None, Some(_), Some(Family::V4)) => Some("prefer-ipv4"),
        // What HAProxy prefers.
        (None, Some(_), _) => Some("prefer-ipv6"),
    }
}

/// Clients' addresses can only be those of connections to targets of their family.
pub fn of_clients(
    settings: &mut Settings,
    servers: &[&Server],
    listens: &[Listen],
) -> Result<(), Remark> {
    let Some(server) = servers.iter().find(is_name) else {
        return Ok(());
    };
    let of = |listen: &Listen| match listen.host {
        Host::V4(_) => Some("ipv4"),
        Host::V6(_) => Some("ipv6"),
        Host::Any => None,
    };
    let family = listens.first().and_then(of);
    match family.filter(|family| listens.iter().all(|listen| of(listen) == Some(*family))) {
        Some(family) => {
            settings.set("family", Value::text(family), Vec::new());
            Ok(())
        }
        None => {
            let why = "its name may have addresses of both families, and its clients theirs";
            let remark = server.line.left_out(why);
            Err(remark.instead("write its address, or listen on addresses of one family"))
        }
    }
}

/// Says once what is different about all names.
pub fn said(import: &mut Import, place: Place) {
    let is_named = |mapping: &&Mapping| {
        let mut targets = mapping.targets.iter();
        targets.any(|target| target.host.ip().is_none())
    };
    let named: Vec<&Mapping> = import.mappings.iter().filter(is_named).collect();
    if named.is_empty() {
        return;
    }
    let why = "HAProxy uses one address of each; here all of them are targets, and a reload looks names up again";
    let remark = Remark::different(place.clone(), "servers by name", why);
    let all = named
        .iter()
        .all(|mapping| mapping.settings.get("resolve").is_some());
    import
        .remarks
        .push(remark.instead("--resolve writes the addresses of now"));
    let is_asked = import.sections.iter().any(|(name, _)| *name == "resolver");
    if is_asked && !all {
        let why = "those of servers without resolvers are asked of the same [resolver]";
        let remark = Remark::different(place, "servers by name", why);
        import
            .remarks
            .push(remark.instead("without resolver.servers, /etc/resolv.conf says who is asked"));
    }
}

/// `[resolver]`, of the `resolvers` that mappings are looked up by.
pub fn section(resolvers: &[&Section], used: &[String], import: &mut Import) {
    let mut servers: Option<Vec<String>> = None;
    for section in resolvers {
        let head = &section.head;
        if !used.contains(&section.name) {
            let why = "no server that is written uses it";
            import.remarks.push(head.dropped(why));
            continue;
        }
        if servers.is_some() {
            let why = "there is one [resolver], and it has the servers of the first";
            import.remarks.push(head.different(why));
            continue;
        }
        let mut found = Vec::new();
        for line in &section.lines {
            match line.word(0) {
                "nameserver" => {
                    let address = line.word(2);
                    let address = address.strip_prefix("udp@").unwrap_or(address);
                    match address::split(address)
                        .map(|(host, port)| (host.trim_matches(['[', ']']), port))
                    {
                        Some((host, port)) if host.parse::<std::net::IpAddr>().is_ok() => {
                            found.push(server(host, port));
                        }
                        _ => {
                            let remark = line.dropped("it is no address with a port");
                            import.remarks.push(remark.instead("see resolver.servers"));
                        }
                    }
                }
                "parse-resolv-conf" => {}
                "timeout" if line.word(1) == "resolve" => {}
                _ => {
                    let why =
                        "a lookup that fails leaves the addresses as they were, and is tried again";
                    import.remarks.push(line.dropped(why));
                }
            }
        }
        if !found.is_empty() {
            let comments = section.head.comments.iter().chain(&section.tail);
            let comments = comments.chain(section.lines.iter().flat_map(|line| &line.comments));
            let comments = comments.cloned().collect();
            import
                .section("resolver")
                .set("servers", Value::List(found.clone()), comments);
        }
        servers = Some(found);
    }
}

/// A server of DNS as `resolver.servers` has it.
fn server(host: &str, port: u16) -> String {
    match (port, host.contains(':')) {
        (53, _) => host.to_owned(),
        (port, true) => format!("[{host}]:{port}"),
        (port, false) => format!("{host}:{port}"),
    }
}
