//! One `server`: where it listens, who may connect, which settings it comes to.
//!
//! A directive that is not known keeps the server with nginx: something may depend on it.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::{
    directive::Directive,
    syslog,
    values::{size, time},
};
use crate::{
    import::{
        Around, Kind, Remark, access, address,
        listen::{Host, Listen, merged},
        model::{Mapping, Noted, Settings, Value},
    },
    units,
};

/// A `server` block, and what stands around it.
pub struct Server<'a> {
    pub directive: &'a Directive,
    pub inside: &'a [Directive],
    /// What counts for all servers that do not say it themselves.
    pub shared: &'a [&'a Directive],
    /// All of `stream`.
    pub block: &'a [Directive],
    pub around: &'a Around<'a>,
}

impl<'a> Server<'a> {
    /// Where it listens.
    pub fn listens(&self) -> impl Iterator<Item = &'a Directive> {
        self.inside
            .iter()
            .filter(|directive| directive.name() == "listen")
    }

    /// The last directive of a name, here or around.
    pub fn given(&self, name: &str) -> Option<&'a Directive> {
        let here = self
            .inside
            .iter()
            .rev()
            .find(|directive| directive.name() == name);
        here.or_else(|| {
            self.shared
                .iter()
                .rev()
                .copied()
                .find(|directive| directive.name() == name)
        })
    }

    fn is_on(&self, name: &str) -> bool {
        self.given(name)
            .is_some_and(|directive| directive.word(1) == "on")
    }

    /// Whether several servers count in a zone, if that counts clients by their address.
    fn zone(&self, name: &str) -> Option<bool> {
        let zone = format!("zone={name}:");
        let mut zones = self.block.iter().filter(|directive| {
            directive.name() == "limit_conn_zone" && directive.word(2).starts_with(&zone)
        });
        let key = zones.next()?.word(1);
        let counts =
            |directive: &Directive| directive.name() == "limit_conn" && directive.word(1) == name;
        let servers = self
            .block
            .iter()
            .filter(|directive| directive.name() == "server");
        let inside = servers.filter(|server| server.block.iter().flatten().any(counts));
        let shared = inside.count() > 1 || self.block.iter().any(counts);
        matches!(key, "$binary_remote_addr" | "$remote_addr").then_some(shared)
    }

    /// The mapping, none if it is UDP, or what keeps it with nginx.
    pub fn mapping(&self, remarks: &mut Vec<Remark>) -> Result<Option<Mapping>, Vec<Remark>> {
        let mut blockers = Vec::new();
        let mut listen: Noted<Vec<Listen>> = Noted::default();
        let mut accepts_proxy = false;
        let mut settings = Settings::default();
        self.timeouts(&mut settings, &mut blockers);
        for directive in self.listens() {
            if directive.words.iter().any(|word| word == "udp") {
                blockers.push(directive.left_out("it is UDP").instead("leave it to nginx"));
                continue;
            }
            match self.listen(directive, &mut settings) {
                Ok((one, proxied)) => {
                    listen.value.push(one);
                    accepts_proxy |= proxied;
                }
                Err(remark) => blockers.push(remark),
            }
            listen.comments.extend(directive.comments.iter().cloned());
        }
        listen.value = merged(listen.value);
        if accepts_proxy {
            let all = access::everybody()
                .iter()
                .map(ToString::to_string)
                .collect();
            settings.set("accept_proxy", Value::List(all), Vec::new());
        }
        if self.is_on("proxy_protocol") {
            settings.set("send_proxy", Value::text("v1"), Vec::new());
        }
        self.access(&mut settings, accepts_proxy, &mut blockers);
        self.others(&mut settings, remarks, &mut blockers);
        let pass = self
            .inside
            .iter()
            .find(|directive| directive.name() == "proxy_pass");
        let Some(pass) = pass else {
            let why = "it passes nothing on to anybody";
            blockers.push(self.directive.left_out(why).instead("leave it to nginx"));
            return Err(blockers);
        };
        let targets = self.targets(pass, &mut listen.value, &mut settings, remarks);
        let targets = match targets {
            Ok(targets) => targets,
            Err(remark) => {
                blockers.push(remark);
                return Err(blockers);
            }
        };
        if !blockers.is_empty() {
            return Err(blockers);
        }
        let first = listen.value.first().map_or(0, |listen| listen.first);
        let name = pass.word(1).trim_start_matches("tcp://");
        let is_name = |name: &str| {
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let name = match is_name(name) && name.parse::<IpAddr>().is_err() {
            true => name.to_owned(),
            false => format!("port-{first}"),
        };
        Ok(Some(Mapping {
            place: self.directive.place.clone(),
            name,
            comments: self.directive.comments.clone(),
            listen,
            targets,
            settings,
        }))
    }

    fn timeouts(&self, settings: &mut Settings, blockers: &mut Vec<Remark>) {
        for (name, key, otherwise) in [
            ("proxy_connect_timeout", "connect_timeout", 60),
            ("proxy_timeout", "idle_timeout", 600),
        ] {
            let given = self.given(name);
            let span = match given.map(|directive| time(directive.word(1))) {
                None => Some(Duration::from_secs(otherwise)),
                Some(span @ Some(_)) => span,
                Some(None) => {
                    blockers.extend(given.map(|given| given.left_out("this is no time")));
                    continue;
                }
            };
            let span = span.filter(|span| !span.is_zero());
            if let Some(span) = span {
                let comments = given
                    .map(|given| given.comments.clone())
                    .unwrap_or_default();
                settings.set(key, Value::Text(units::duration(span)), comments);
            }
        }
    }

    fn listen(
        &self,
        directive: &Directive,
        settings: &mut Settings,
    ) -> Result<(Listen, bool), Remark> {
        let mut v6only = true;
        let mut accepts_proxy = false;
        for option in &directive.words[2.min(directive.words.len())..] {
            match option.split_once('=').unwrap_or((option, "")) {
                ("ssl", _) => {
                    let why = "it ends TLS, and bytes are passed on here as they are";
                    return Err(directive.left_out(why).instead("leave it to nginx"));
                }
                ("ipv6only", value) => v6only = value != "off",
                ("proxy_protocol", _) => accepts_proxy = true,
                ("so_keepalive", text) => keepalive(text, settings),
                ("backlog", number) => {
                    let number = number.parse::<u64>().unwrap_or(511).clamp(1, 65535);
                    settings.set("backlog", Value::Number(number), Vec::new());
                }
                _ => {}
            }
        }
        let text = directive.word(1);
        if text.starts_with("unix:") {
            let why = "it is no address of TCP but a socket of this machine";
            return Err(directive.left_out(why).instead("leave it to nginx"));
        }
        let (host, ports) = match text.rsplit_once(':') {
            Some((host, ports)) if !ports.ends_with(']') => (host, ports),
            _ => ("*", text),
        };
        let host = match host.trim_matches(['[', ']']) {
            "*" => Host::ANY_V4,
            host => {
                let ip = address::ip(host, self.around);
                let ip = ip.ok_or_else(|| {
                    let why = format!("{host} is a name");
                    directive
                        .left_out(why)
                        .instead("write its address, or run this with --resolve")
                })?;
                match Host::of(ip) {
                    Host::ANY_V6 if !v6only => Host::Any,
                    host => host,
                }
            }
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        match (first.parse(), last.parse()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => {
                Ok((Listen { host, first, last }, accepts_proxy))
            }
            _ => Err(directive
                .left_out("it has no port")
                .instead("write the port")),
        }
    }

    fn access(&self, settings: &mut Settings, proxied: bool, blockers: &mut Vec<Remark>) {
        let is_rule = |directive: &&Directive| matches!(directive.name(), "allow" | "deny");
        let mut rules: Vec<&Directive> = self.inside.iter().filter(is_rule).collect();
        if rules.is_empty() {
            rules = self
                .shared
                .iter()
                .copied()
                .filter(|rule| is_rule(rule))
                .collect();
        }
        let mut read: Vec<(bool, Vec<IpNet>)> = Vec::new();
        for rule in &rules {
            let networks = match rule.word(1) {
                "all" => Some(access::everybody().to_vec()),
                text => {
                    let net = text.parse::<IpNet>().ok().map(|net| net.trunc());
                    let net = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
                    net.map(|net| vec![net])
                }
            };
            match networks {
                Some(networks) => read.push((rule.name() == "allow", networks)),
                None => blockers.push(
                    rule.left_out("it is no network")
                        .instead("write the addresses"),
                ),
            }
        }
        if proxied && !rules.is_empty() {
            let why = "the rules are for the proxy in front, and ours are for the client it states";
            blockers.push(rules[0].left_out(why).instead("leave it to nginx"));
        }
        let named = read
            .iter()
            .flat_map(|(_, networks)| networks.iter().copied());
        let passes = |node: &IpNet| {
            let fits =
                |(_, networks): &&(bool, Vec<IpNet>)| networks.iter().any(|net| net.contains(node));
            read.iter().find(fits).is_none_or(|(accept, _)| *accept)
        };
        access::set(settings, access::allow_and_deny(named, &passes));
    }

    /// What else may stand in a server block.
    fn others(
        &self,
        settings: &mut Settings,
        remarks: &mut Vec<Remark>,
        blockers: &mut Vec<Remark>,
    ) {
        for directive in self.inside.iter().chain(self.shared.iter().copied()) {
            let dropped = |why: &str| directive.remark(Kind::Dropped, why);
            match directive.name() {
                "listen"
                | "proxy_pass"
                | "proxy_timeout"
                | "proxy_connect_timeout"
                | "proxy_protocol"
                | "allow"
                | "deny"
                | "tcp_nodelay"
                | "proxy_half_close"
                | "proxy_buffer_size"
                | "preread_buffer_size"
                | "preread_timeout"
                | "proxy_socket_keepalive"
                | "server_name"
                | "limit_conn_zone"
                | "variables_hash_bucket_size"
                | "variables_hash_max_size"
                | "map_hash_bucket_size"
                | "map_hash_max_size" => {}
                "proxy_next_upstream" | "proxy_next_upstream_tries" => {
                    let times = match (directive.name(), directive.word(1).parse::<u64>()) {
                        (_, Ok(0)) => None,
                        (_, Ok(times)) => Some(times - 1),
                        ("proxy_next_upstream", _) if directive.word(1) == "off" => Some(0),
                        _ => None,
                    };
                    match times {
                        None => {}
                        Some(0) => {
                            settings.set("retries", Value::text("off"), directive.comments.clone())
                        }
                        Some(times) => {
                            settings.set(
                                "retries",
                                Value::Number(times.min(100)),
                                directive.comments.clone(),
                            );
                        }
                    }
                }
                "proxy_next_upstream_timeout" => {
                    remarks.push(dropped("connect_timeout is of all attempts together"));
                }
                "access_log" | "error_log" if syslog::is_to_one(directive) => {}
                "access_log" | "log_format" | "error_log" => {
                    remarks.push(
                        dropped("every session is logged on standard output").instead("see [log]"),
                    );
                }
                // Who says `resolve` asks there.
                "resolver" => {}
                "resolver_timeout" => {
                    remarks.push(
                        dropped("a lookup has a time of its own").instead("see resolver.timeout"),
                    );
                }
                "limit_conn" => {
                    let number = directive
                        .word(2)
                        .parse::<u64>()
                        .ok()
                        .filter(|number| *number > 0);
                    match (number, self.zone(directive.word(1))) {
                        (None, _) => {}
                        (Some(number), Some(shared)) => {
                            let comments = directive.comments.clone();
                            let number = Value::Number(number);
                            settings.set("max_sessions_per_source", number, comments);
                            if shared {
                                let why = "nginx counts over all servers of the zone, and here each mapping by itself";
                                let remark = directive.remark(Kind::Different, why);
                                let instead = "the same in [limits] counts over all mappings";
                                remarks.push(remark.instead(instead));
                            }
                        }
                        (Some(_), None) => {
                            let why =
                                "its zone counts something else than the addresses of clients";
                            remarks.push(dropped(why).instead("see max_sessions"));
                        }
                    }
                }
                "proxy_bind" => match directive.word(1) {
                    "off" => {}
                    "$remote_addr" | "$remote_addr:$remote_port" => {
                        settings.set("transparent", Value::Flag(true), directive.comments.clone());
                    }
                    text => match text.parse::<IpAddr>() {
                        Ok(ip) => {
                            let bind = Value::Text(ip.to_string());
                            settings.set("bind", bind, directive.comments.clone());
                        }
                        Err(_) => blockers.push(directive.left_out("it is no address alone")),
                    },
                },
                "proxy_ssl" if directive.word(1) == "on" => {
                    let why = "it begins TLS, and bytes are passed on here as they are";
                    blockers.push(directive.left_out(why).instead("leave it to nginx"));
                }
                "proxy_download_rate" | "proxy_upload_rate" => {
                    let amount = size(directive.word(1));
                    if let Some(amount) = amount.filter(|amount| *amount > 0) {
                        let amount = units::size(amount.clamp(1 << 10, 1 << 40));
                        let why = "it is of each connection, and there is no such limit here";
                        let instead = format!(
                            "bandwidth_per_source = \"{amount}\" is the same for a source with one connection, \
                             and of both directions"
                        );
                        remarks.push(dropped(why).instead(instead));
                    }
                }
                "ssl_preread" => {
                    remarks.push(dropped("nothing looks at what is sent"));
                }
                name if name.starts_with("ssl_") || name.starts_with("proxy_ssl") => {}
                "set_real_ip_from" => {
                    let why = "who may state a client is all who connect to a port that expects it";
                    remarks.push(
                        directive
                            .remark(Kind::Different, why)
                            .instead("see accept_proxy"),
                    );
                }
                name => {
                    let why = format!("{name} is not known here");
                    blockers.push(
                        directive
                            .left_out(why)
                            .instead("leave it out, if nothing depends on it"),
                    );
                }
            }
        }
    }
}

/// `so_keepalive=on`, `off` or `IDLE:INTERVAL:COUNT`, each of which may be left out.
fn keepalive(text: &str, settings: &mut Settings) {
    let mut parts = Vec::new();
    let mut given = text.split(':');
    for key in ["idle", "interval"] {
        let span = given.next().and_then(time).map(|span| span.as_secs());
        if let Some(seconds @ 1..) = span {
            let span = Duration::from_secs(seconds.min(32767));
            parts.push((key, Value::Text(units::duration(span))));
        }
    }
    if let Some(count @ 1..) = given.next().and_then(|count| count.parse::<u64>().ok()) {
        parts.push(("count", Value::Number(count.min(127))));
    }
    match text {
        "off" => settings.set("keepalive", Value::text("off"), Vec::new()),
        _ if parts.is_empty() => {}
        _ => settings.set("keepalive", Value::Table(parts), Vec::new()),
    }
}
