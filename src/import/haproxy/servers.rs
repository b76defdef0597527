//! Which servers of a back end serve, and how they share its clients.

use super::{proxy::Proxy, server::Server};
use crate::import::Remark;

/// The servers that clients are led to.
pub struct Serving<'p> {
    pub servers: Vec<&'p Server>,
    /// How several share the clients, in our words.
    pub balance: Option<&'static str>,
}

/// Finds them, or what keeps the front end with HAProxy.
pub fn serving<'p>(
    front: &Proxy,
    back: &'p Proxy,
    remarks: &mut Vec<Remark>,
) -> Result<Serving<'p>, Remark> {
    let mut servers = Vec::new();
    for server in &back.servers {
        let line = &server.line;
        let why = match server.options.weight {
            _ if server.options.disabled => "it is disabled",
            Some(0) => "its weight is 0, so it gets no client",
            _ => {
                servers.push(server);
                continue;
            }
        };
        remarks.push(line.dropped(why));
    }
    if servers.is_empty() || back.disabled {
        let why = "no server takes a client, and HAProxy ends the stream of each";
        let head = &front.head;
        let remark = head.dropped(why);
        return Err(remark.instead("leave the port closed"));
    }
    // What a template makes of a name are several.
    let balance = match &servers[..] {
        [one] if one.copies.is_none() => None,
        _ => Some(shared(&servers, back, remarks)?),
    };
    Ok(Serving { servers, balance })
}

/// How several servers share the clients.
fn shared(
    servers: &[&Server],
    back: &Proxy,
    remarks: &mut Vec<Remark>,
) -> Result<&'static str, Remark> {
    const LEAVE: &str = "leave it to HAProxy, or give each server a port of its own";
    let backups = servers
        .iter()
        .filter(|server| server.options.backup)
        .count();
    if backups > 1 && !back.all_backups {
        let why =
            "the backups share the clients, and in HAProxy the first that is up has all of them";
        remarks.push(back.head.different(why));
    }
    if let Some(line) = &back.stick {
        if !line.words.iter().any(|word| word == "src") {
            return Err(line
                .left_out("it keeps clients by what they send")
                .instead(LEAVE));
        }
        let why = "a client has the same target by its address, and not by a table";
        remarks.push(line.different(why));
        return Ok("source");
    }
    let Some(line) = &back.balance else {
        return Ok("round-robin");
    };
    match (line.word(1), line.word(2)) {
        ("roundrobin" | "static-rr", _) => Ok("round-robin"),
        ("leastconn", _) => Ok("least-sessions"),
        ("source", _) | ("hash", "src") => Ok("source"),
        ("first", _) => Ok("first"),
        (word, _) if word.starts_with("random") => {
            let why = "the servers have the clients in turn, not at random";
            remarks.push(line.different(why));
            Ok("round-robin")
        }
        _ => Err(line
            .left_out("it shares the clients by what they send")
            .instead(LEAVE)),
    }
}
