//! Where a server leads: the address in `proxy_pass`, or the servers of an `upstream`.

use std::net::{IpAddr, SocketAddr};

use super::{directive::Directive, server::Server, values::time};
use crate::{
    import::{
        Import, Kind, Remark, address,
        listen::Listen,
        model::{Settings, Target, TargetHost, Value},
    },
    units,
};

impl Server<'_> {
    /// Where the servers lead: all that take clients.
    pub fn targets(
        &self,
        pass: &Directive,
        listens: &mut Vec<Listen>,
        settings: &mut Settings,
        remarks: &mut Vec<Remark>,
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
                            ("max_fails", "1") => {}
                            ("fail_timeout", text)
                                if time(text).is_some_and(|span| span.as_secs() == 10) => {}
                            ("max_fails" | "fail_timeout", _) => {
                                let why = "a target that could not be connected to comes last for 10 seconds";
                                remarks.push(directive.remark(Kind::Different, why));
                            }
                            ("slow_start", _) => {
                                let why = "a target has its whole share of the sessions at once";
                                remarks.push(directive.remark(Kind::Different, why));
                            }
                            ("resolve", _) => {
                                let resolver = self.given("resolver");
                                let is_off = |family: &str| {
                                    let mut words = resolver.iter().flat_map(|given| &given.words);
                                    words.any(|word| *word == format!("{family}=off"))
                                };
                                for (other, family) in [("ipv6", "ipv4"), ("ipv4", "ipv6")] {
                                    if is_off(other) {
                                        settings.set("family", Value::text(family), Vec::new());
                                    }
                                }
                                let every = resolver.and_then(|resolver| {
                                    let mut words = resolver.words.iter();
                                    let valid = words.find_map(|word| word.strip_prefix("valid="));
                                    valid.and_then(time)
                                });
                                let every = every.map(|every| {
                                    units::duration(every.max(std::time::Duration::from_secs(1)))
                                });
                                let every = every.unwrap_or_else(|| "ttl".to_owned());
                                settings.set("resolve", Value::Text(every), Vec::new());
                            }
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
                // A name may have several addresses.
                if one.host.ip().is_none() {
                    settings.set("balance", Value::text(balance), Vec::new());
                }
            }
            _ => settings.set("balance", Value::text(balance), Vec::new()),
        }
        scale(&mut targets);
        let place = |target: &Target| (target.host.to_string(), target.port);
        let mut places: Vec<(String, u16)> = targets.iter().map(place).collect();
        places.sort();
        if places.windows(2).any(|pair| pair[0] == pair[1]) {
            let why = "two servers of it are at the same place, and a target is so once";
            let instead = "give one of them the weight of both";
            return Err(upstream.left_out(why).instead(instead));
        }
        Ok(targets)
    }

    /// The host and the port that a server is at; no port is the one that the client came to.
    fn address(
        &self,
        directive: &Directive,
        text: &str,
    ) -> Result<(TargetHost, Option<u16>), Remark> {
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
        let host = address::target_host(host, self.around).ok_or_else(|| {
            directive.left_out(format!("{host} is neither an address nor a name"))
        })?;
        Ok((host, port))
    }

    fn target(
        &self,
        pass: &Directive,
        host: TargetHost,
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

/// Weights may be up to 256, and what counts is how they compare.
fn scale(targets: &mut [Target]) {
    const MOST: u64 = 256;
    let weight = |target: &Target| match target.settings.get("weight").map(|weight| &weight.value) {
        Some(Value::Number(weight)) => *weight,
        _ => 1,
    };
    let by = targets.iter().map(weight).max().unwrap_or(1).div_ceil(MOST);
    for target in targets.iter_mut().filter(|_| by > 1) {
        let scaled = Value::Number((weight(target) / by).max(1));
        target.settings.set("weight", scaled, Vec::new());
    }
}

/// Sets a number of at least 1.
fn number_of(text: &str, key: &'static str, settings: &mut Settings) {
    if let Ok(number @ 1..) = text.parse::<u64>() {
        settings.set(key, Value::Number(number), Vec::new());
    }
}

/// `[resolver]`: the servers that names are asked of.
pub fn resolver(directive: &Directive, import: &mut Import) {
    let mut servers = Vec::new();
    for word in directive.words[1..]
        .iter()
        .filter(|word| !word.contains('='))
    {
        let (host, port) = address::split(word).unwrap_or((word, 53));
        match (host.trim_matches(['[', ']']).parse::<IpAddr>(), port) {
            (Ok(ip), 53) => servers.push(ip.to_string()),
            (Ok(ip), port) => servers.push(SocketAddr::new(ip, port).to_string()),
            (Err(_), _) => {
                let remark = directive.remark(Kind::Dropped, format!("{word} is no address"));
                import.remarks.push(remark.instead("see resolver.servers"));
            }
        }
    }
    if !servers.is_empty() {
        let comments = directive.comments.clone();
        import
            .section("resolver")
            .set("servers", Value::List(servers), comments);
    }
}
