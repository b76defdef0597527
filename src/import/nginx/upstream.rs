//! Where a server leads: the address in `proxy_pass`, or the servers of an `upstream`.

use std::net::IpAddr;

use super::{directive::Directive, server::Server};
use crate::import::{
    Remark, address,
    listen::Listen,
    model::{Settings, Target, Value},
};

impl Server<'_> {
    /// Where the servers lead: all that take clients.
    pub fn targets(
        &self,
        pass: &Directive,
        listens: &mut Vec<Listen>,
        settings: &mut Settings,
    ) -> Result<Vec<Target>, Remark> {
        let upstream = self
            .block
            .iter()
            .find(|directive| directive.name() == "upstream" && directive.word(1) == pass.word(1));
        let Some(upstream) = upstream else {
            let (host, port) = self.address(pass, pass.word(1))?;
            return Ok(vec![self.target(
                pass,
                host,
                port,
                listens,
                pass.comments.clone(),
            )?]);
        };
        let mut balance = "round-robin";
        let mut targets = Vec::new();
        for directive in upstream.block.iter().flatten() {
            match directive.name() {
                "server" if directive.words.iter().any(|word| word == "down") => {}
                "server" => {
                    let (host, port) = self.address(directive, directive.word(1))?;
                    let mut comments = directive.comments.clone();
                    if targets.is_empty() {
                        let above = pass.comments.iter().chain(&upstream.comments);
                        comments.splice(0..0, above.cloned());
                    }
                    let mut target = self.target(pass, host, port, listens, comments)?;
                    for word in &directive.words[2..] {
                        match word.split_once('=').unwrap_or((word, "")) {
                            ("backup", _) => {
                                target.settings.set("backup", Value::Flag(true), Vec::new())
                            }
                            ("weight", number) => number_of(number, "weight", &mut target.settings),
                            ("max_conns", number) => {
                                number_of(number, "max_sessions", &mut target.settings)
                            }
                            ("max_fails" | "fail_timeout" | "slow_start", _) => {}
                            (word, _) => {
                                return Err(directive.left_out(format!("{word} is not known here")));
                            }
                        }
                    }
                    targets.push(target);
                }
                "least_conn" => balance = "least-sessions",
                "hash" if directive.word(1) == "$remote_addr" => balance = "source",
                "zone" => {}
                name => {
                    let why = format!("{name} has no counterpart");
                    return Err(directive.left_out(why).instead("leave it to nginx"));
                }
            }
        }
        match &mut targets[..] {
            [] => return Err(upstream.left_out("no server of it takes clients")),
            [one] => {
                for key in ["weight", "backup"] {
                    one.settings.remove(key);
                }
                if let Some(most) = one.settings.get("max_sessions") {
                    settings.set("max_sessions", most.value.clone(), Vec::new());
                    one.settings.remove("max_sessions");
                }
            }
            _ => settings.set("balance", Value::text(balance), Vec::new()),
        }
        Ok(targets)
    }

    /// The host and the port that a server is at; no port is the one that the client came to.
    fn address(&self, directive: &Directive, text: &str) -> Result<(IpAddr, Option<u16>), Remark> {
        let kept = text.strip_suffix(":$server_port");
        if text.contains('$') && kept.is_none() {
            let why = "the target is computed";
            return Err(directive.left_out(why).instead("write a mapping for each"));
        }
        if text.starts_with("unix:") {
            let why = "the target is a socket of this machine";
            return Err(directive.left_out(why).instead("leave it to nginx"));
        }
        let (host, port) = match (kept, address::split(text)) {
            (Some(host), _) => (host, None),
            (None, Some((host, port))) => (host, Some(port)),
            (None, None) => return Err(directive.left_out("it has no port")),
        };
        match address::ip(host, self.around) {
            Some(ip) => Ok((ip, port)),
            None => {
                let why = format!("{host} is a name, and targets are addresses");
                Err(address::is_a_name(directive.left_out(why)))
            }
        }
    }

    fn target(
        &self,
        pass: &Directive,
        host: IpAddr,
        port: Option<u16>,
        listens: &mut Vec<Listen>,
        comments: Vec<String>,
    ) -> Result<Target, Remark> {
        let first = listens.first().map_or(0, |listen| listen.first);
        let port = match port {
            Some(port) => {
                // Many to one: our own range would lead to as many ports.
                *listens = listens.iter().flat_map(|listen| listen.ports()).collect();
                port
            }
            None if listens.iter().all(|listen| listen.first == first) => first,
            None => {
                let why = "each port leads to the same port, and they are not one range";
                return Err(pass.left_out(why).instead("write a server block for each"));
            }
        };
        let settings = Settings::default();
        Ok(Target {
            host,
            port,
            comments,
            settings,
        })
    }
}

/// Sets a number of at least 1.
fn number_of(text: &str, key: &'static str, settings: &mut Settings) {
    if let Ok(number @ 1..) = text.parse::<u64>() {
        settings.set(key, Value::Number(number), Vec::new());
    }
}
