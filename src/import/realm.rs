//! realm: `[[endpoints]]` in TOML.
//!
//! Other formats it reads, such as JSON, are not read here. UDP stays with it.

use std::{net::IpAddr, path::PathBuf};

use toml::de::{DeTable, DeValue};

use super::{
    Around, Import, Place, Remark, access, address,
    forward::{Forward, Leads, LooksUp, leave, texts},
    model::{Mapping, Settings, Value},
    tidy,
};

/// Reads `paths`.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let line = |offset: usize| text[..offset.min(text.len())].lines().count().max(1);
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(1, |span| line(span.start + 1));
                import.remarks.push(Remark::invalid(
                    file.at(at),
                    "this file",
                    error.message().to_owned(),
                ));
                continue;
            }
        };
        let endpoints = table.get_ref().get("endpoints").map(|list| list.get_ref());
        let Some(DeValue::Array(endpoints)) = endpoints else {
            import.remarks.push(Remark::invalid(
                file.clone(),
                "this file",
                "it has no [[endpoints]]",
            ));
            continue;
        };
        let shared = table.get_ref().get("network").map(|table| table.get_ref());
        let before = import.mappings.len();
        for endpoint in endpoints.iter() {
            let endpoint = Endpoint {
                place: file.at(line(endpoint.span().start + 1)),
                keys: endpoint.get_ref(),
                network: endpoint
                    .get_ref()
                    .get("network")
                    .map(|table| table.get_ref()),
                shared,
            };
            endpoint.add(around, &mut import);
        }
        if let Some(log) = table.get_ref().get_key_value("log") {
            let why = "every session is logged on standard output";
            let remark = Remark::dropped(file.at(line(log.0.span().start + 1)), "[log]", why);
            import.remarks.push(remark.instead("see [log]"));
        }
        if let Some(dns) = table.get_ref().get("dns") {
            names(dns.get_ref(), before, &mut import);
        }
    }
    tidy(&mut import);
    import
}

/// `[dns]`, if there are names among the mappings behind those `before`.
fn names(dns: &DeValue<'_>, before: usize, import: &mut Import) {
    let family = match dns.get("mode").and_then(|mode| mode.get_ref().as_str()) {
        Some("ipv4_only") => Some("ipv4"),
        Some("ipv6_only") => Some("ipv6"),
        Some("ipv4_then_ipv6") => Some("prefer-ipv4"),
        Some("ipv6_then_ipv4") => Some("prefer-ipv6"),
        _ => None,
    };
    let is_named = |mapping: &&mut Mapping| mapping.settings.get("resolve").is_some();
    let mut named = import.mappings[before..]
        .iter_mut()
        .filter(is_named)
        .peekable();
    if named.peek().is_none() {
        return;
    }
    for mapping in named {
        if let Some(family) = family {
            mapping
                .settings
                .set("family", Value::text(family), Vec::new());
        }
    }
    if let Some(DeValue::Array(servers)) = dns.get("nameservers").map(|servers| servers.get_ref()) {
        let servers = servers
            .iter()
            .filter_map(|server| server.get_ref().as_str());
        let servers: Vec<String> = servers.map(str::to_owned).collect();
        if !servers.is_empty() {
            import
                .section("resolver")
                .set("servers", Value::List(servers), Vec::new());
        }
    }
}

/// One `[[endpoints]]`.
struct Endpoint<'t> {
    place: Place,
    keys: &'t DeValue<'t>,
    network: Option<&'t DeValue<'t>>,
    /// What counts unless its own table says it.
    shared: Option<&'t DeValue<'t>>,
}

impl<'t> Endpoint<'t> {
    fn word(&self, key: &str) -> Option<&'t str> {
        self.keys
            .get(key)
            .and_then(|value| value.get_ref().as_str())
    }

    /// A key of `network`.
    fn of_network(&self, key: &str) -> Option<&'t DeValue<'t>> {
        let tables = [self.network, self.shared];
        let mut found = tables
            .into_iter()
            .flatten()
            .filter_map(|table| table.get(key));
        found.next().map(|value| value.get_ref())
    }

    fn is_on(&self, key: &str) -> bool {
        matches!(self.of_network(key), Some(DeValue::Boolean(true)))
    }

    fn number(&self, key: &str) -> Option<u64> {
        match self.of_network(key) {
            Some(DeValue::Integer(number)) => number.as_str().parse().ok(),
            _ => None,
        }
    }

    fn add(&self, around: &Around<'_>, import: &mut Import) {
        let (listen, remote) = (
            self.word("listen").unwrap_or_default(),
            self.word("remote").unwrap_or_default(),
        );
        let text = format!("{listen} to {remote}");
        let dropped = |why: &str| Remark::dropped(self.place.clone(), &text, why);
        if self.is_on("no_tcp") {
            import
                .remarks
                .push(dropped("it forwards UDP alone").instead("leave it to realm"));
            return;
        }
        if self.is_on("use_udp") {
            let place = match self
                .network
                .is_some_and(|table| table.get("use_udp").is_some())
            {
                true => self.place.clone(),
                false => self.place.at(0),
            };
            let remark = Remark::dropped(place, "use_udp", "only TCP is forwarded");
            import
                .remarks
                .push(remark.instead("leave UDP to realm, if it is used"));
        }
        match self
            .settings(around)
            .and_then(|settings| Ok((settings, self.targets()?)))
        {
            Ok((mut settings, (targets, balance))) => {
                let Some((host, port)) = address::split(listen) else {
                    let remark = self.left_out(&text, "it has no port");
                    return leave(remark, listen.to_owned(), import);
                };
                if let Some(balance) = balance {
                    settings.set("balance", Value::text(balance), Vec::new());
                } else if self.keys.get("extra_remotes").is_some() && self.word("balance").is_none()
                {
                    import
                        .remarks
                        .push(dropped("without balance its extra_remotes have no clients"));
                }
                Forward {
                    place: self.place.clone(),
                    text,
                    name: format!("port-{port}"),
                    comments: Vec::new(),
                    host,
                    dual: !self.is_on("ipv6_only"),
                    port,
                    targets,
                    looks_up: LooksUp::ForEachClient,
                    settings,
                }
                .add(around, import);
            }
            Err(why) => leave(self.left_out(&text, &why), listen.to_owned(), import),
        }
    }

    fn left_out(&self, text: &str, why: &str) -> Remark {
        Remark::left_out(self.place.clone(), text, why).instead("leave it to realm")
    }

    /// What it comes to, or why it stays with realm.
    fn settings(&self, around: &Around<'_>) -> Result<Settings, String> {
        for key in [
            "listen_transport",
            "remote_transport",
            "interface",
            "listen_interface",
        ] {
            if self.keys.get(key).is_some() {
                return Err(format!("{key} has no counterpart"));
            }
        }
        for key in ["send_mptcp", "accept_mptcp"] {
            if self.is_on(key) {
                return Err("it is multipath TCP".to_owned());
            }
        }
        let mut settings = Settings::default();
        let seconds = |number: u64| Value::Text(format!("{number}s"));
        let connect = self.number("tcp_timeout").filter(|seconds| *seconds > 0);
        settings.set("connect_timeout", seconds(connect.unwrap_or(5)), Vec::new());
        if let Some(idle) = self.number("tcp_keepalive") {
            let count = self
                .number("tcp_keepalive_probe")
                .unwrap_or(3)
                .clamp(1, 127);
            let idle = idle.min(32767);
            let keepalive = match idle {
                0 => Value::text("off"),
                idle => Value::Table(vec![
                    ("idle", seconds(idle)),
                    ("interval", seconds(idle)),
                    ("count", Value::Number(count)),
                ]),
            };
            settings.set("keepalive", keepalive, Vec::new());
        }
        if self.is_on("send_proxy") {
            let version = match self.number("send_proxy_version") {
                Some(1) => "v1",
                _ => "v2",
            };
            settings.set("send_proxy", Value::text(version), Vec::new());
        }
        if self.is_on("accept_proxy") {
            let all = access::everybody()
                .iter()
                .map(ToString::to_string)
                .collect();
            settings.set("accept_proxy", Value::List(all), Vec::new());
            if let Some(timeout @ 1..) = self.number("accept_proxy_timeout") {
                settings.set("proxy_header_timeout", seconds(timeout), Vec::new());
            }
        }
        if let Some(through) = self.word("through") {
            let ip = through.parse::<IpAddr>().ok();
            let ip = ip.or_else(|| address::ip(address::split(through)?.0, around));
            let ip = ip.ok_or("through is no address")?;
            settings.set("bind", Value::Text(ip.to_string()), Vec::new());
        }
        Ok(settings)
    }

    /// Where it leads, and how several share the clients.
    fn targets(&self) -> Result<(Vec<Leads<'t>>, Option<&'static str>), String> {
        let mut remotes = vec![self.word("remote").unwrap_or_default()];
        let mut balance = None;
        let mut weights: Vec<u64> = Vec::new();
        if let Some(text) = self.word("balance") {
            let (name, list) = text.split_once(':').unwrap_or((text, ""));
            balance = match name.trim() {
                "roundrobin" => Some("round-robin"),
                "iphash" => Some("source"),
                "off" => None,
                other => return Err(format!("it shares the clients by {other}")),
            };
            weights = list
                .split(',')
                .filter_map(|weight| weight.trim().parse().ok())
                .collect();
        }
        if let (Some(_), Some(DeValue::Array(extra))) = (
            balance,
            self.keys.get("extra_remotes").map(|extra| extra.get_ref()),
        ) {
            remotes.extend(extra.iter().filter_map(|remote| remote.get_ref().as_str()));
        }
        let targets = remotes.iter().enumerate().map(|(number, remote)| {
            let (host, port) = address::split(remote).ok_or("it has no port")?;
            let weight = weights.get(number).copied().unwrap_or(1).min(256);
            Ok(Leads { host, port, weight })
        });
        let mut targets = targets.collect::<Result<Vec<Leads<'t>>, String>>()?;
        if balance.is_some() {
            targets.retain(|leads| leads.weight > 0);
        }
        match &mut targets[..] {
            [] => return Err("none of its weights is more than 0".to_owned()),
            [one] => {
                one.weight = 1;
                balance = None;
            }
            _ => {}
        }
        Ok((targets, balance))
    }
}
