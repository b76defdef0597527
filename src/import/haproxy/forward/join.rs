//! A front end joined with its back end: which mappings they are, and where those lead.

use super::{
    super::{
        address::Port,
        bandwidth,
        bind::Options,
        checks::Checking,
        limits, names,
        proxy::Proxy,
        requests::Requests,
        sections::{Line, Section},
        server::{Server, Source},
        servers::Serving,
    },
    Forwarded,
};
use crate::import::{
    Remark,
    listen::{Listen, merged},
    model::{Mapping, Noted, Settings, Target, TargetHost, Value},
};

/// A front end, its back end and its servers.
pub(super) struct Join<'p> {
    pub front: &'p Proxy,
    pub back: &'p Proxy,
    pub serving: Serving<'p>,
    /// Where the servers are.
    pub hosts: Vec<TargetHost>,
    pub checking: Checking,
    pub requests: Requests,
    pub remarks: Vec<Remark>,
}

impl<'p> Join<'p> {
    pub fn differs(&mut self, line: &Line, why: impl Into<String>, instead: &str) {
        let remark = line.different(why);
        self.remarks.push(remark.instead(instead));
    }

    /// The mappings that it comes to, or what keeps it with HAProxy.
    pub fn mappings(
        mut self,
        proxies: &[Proxy],
        resolvers: &[&Section],
    ) -> Result<Forwarded, Remark> {
        let source = self.only_source()?;
        self.has_each_target_once()?;
        let groups = self.groups()?;
        let mut options = groups.iter().map(|group| &group.options);
        if self.requests.asks_before_header && options.any(|options| self.accepts(options)) {
            let why =
                "rules ask for the address of the proxy in front, before its PROXY header is read";
            let instead = "ask for it in `expect-proxy layer4 if { src … }` alone";
            return Err(self.front.head.left_out(why).instead(instead));
        }
        if let Some((_, line)) = self.front.maxconn.as_ref().filter(|_| groups.len() > 1) {
            let why = "it becomes several mappings, and each has it by itself";
            self.differs(line, why, "");
        }
        let mut comments = self.front.comments.clone();
        if self.back.head.place != self.front.head.place {
            comments.extend(self.back.comments.iter().cloned());
        }
        comments.extend(self.requests.comments.iter().cloned());
        comments.append(&mut self.checking.comments);
        let mut limits = Vec::new();
        let mut exempt = Vec::new();
        for limit in std::mem::take(&mut self.requests.limits) {
            limits.push(limits::set(&limit, self.front, proxies)?);
            exempt.extend(limit.exempt.iter().map(ToString::to_string));
        }
        let mut shared = self.checking.settings.clone();
        let servers = self.serving.servers.clone();
        let asked = names::set(&mut shared, &servers, resolvers, &mut self.remarks);
        if let Some(Source::Address(ip)) = source
            && self.hosts.iter().any(|host| host.ip().is_none())
        {
            let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
            shared.set("family", Value::text(family), Vec::new());
        }
        let both = self.proxies();
        bandwidth::set(&mut shared, &both, proxies, &mut self.remarks);
        if self.requests.drops(&mut self.remarks) {
            shared.set("on_refuse", Value::text("drop"), Vec::new());
        }
        let mut mappings = Vec::new();
        for (index, group) in groups.into_iter().enumerate() {
            let mut settings = self.settings(&group.options);
            for (key, setting) in shared.iter() {
                settings.set(key, setting.value.clone(), setting.comments.clone());
            }
            if source == Some(Source::Client) {
                names::of_clients(&mut settings, &servers, &group.listens)?;
            }
            mappings.push(Mapping {
                place: self.front.head.place.clone(),
                name: self.front.name.clone(),
                // Beside the first of them.
                comments: std::mem::take(&mut comments),
                listen: Noted {
                    value: merged(group.listens),
                    comments: group.comments,
                },
                targets: self.targets(&group.ports, index == 0),
                settings,
            });
        }
        Ok(Forwarded {
            mappings,
            remarks: self.remarks,
            limits,
            exempt,
            resolvers: asked,
        })
    }

    /// The front end, and the back end if it is another.
    fn proxies(&self) -> Vec<&'p Proxy> {
        match self.back.head.place == self.front.head.place {
            true => vec![self.front],
            false => vec![self.front, self.back],
        }
    }

    /// The source that all servers have.
    fn only_source(&self) -> Result<Option<Source>, Remark> {
        let line = &self.serving.servers[0].line;
        let servers = self.serving.servers.iter();
        let mut sources = servers.map(|server| self.source(server));
        let source = sources.next().flatten();
        if sources.any(|other| other != source) {
            let why = "each server has a source of its own, and a mapping has one";
            return Err(line
                .left_out(why)
                .instead("give each server a port of its own"));
        }
        let mut hosts = self.hosts.iter().filter_map(TargetHost::ip);
        if let Some(Source::Address(ip)) = source
            && hosts.any(|host| ip.is_ipv4() != host.is_ipv4())
        {
            let why = "the source is of another family than the server";
            let instead = "mend it: HAProxy reaches nobody with it";
            return Err(line.left_out(why).instead(instead));
        }
        Ok(source)
    }

    fn has_each_target_once(&self) -> Result<(), Remark> {
        let places: Vec<_> = self.hosts.iter().zip(&self.serving.servers).collect();
        for (index, (host, server)) in places.iter().enumerate() {
            let mut before = places[..index].iter();
            if before.any(|(other, known)| other == host && known.port == server.port) {
                let why = "an earlier server is at the same place, and a target is so once";
                let instead = "give one of them its weight and its maxconn together";
                return Err(server.line.left_out(why).instead(instead));
            }
        }
        Ok(())
    }

    pub fn source(&self, server: &Server) -> Option<Source> {
        let own = server.options.source.clone();
        own.or_else(|| Some(self.back.source.as_ref()?.0.clone()))
    }

    /// The targets of a mapping; comments stand beside the first that has them.
    fn targets(&self, ports: &[u16], is_first: bool) -> Vec<Target> {
        let servers = self.serving.servers.iter();
        let same_header = self.same_header();
        let targets = servers.zip(self.hosts.iter().zip(ports));
        targets
            .map(|(server, (host, port))| {
                let mut settings = Settings::default();
                let own = &server.options;
                if self.serving.balance.is_some() {
                    if let Some(weight) = own.weight.filter(|weight| *weight != 1) {
                        settings.set("weight", Value::Number(weight.min(256)), Vec::new());
                    }
                    if own.backup {
                        settings.set("backup", Value::Flag(true), Vec::new());
                    }
                    if let (Some(version), false) = (own.send_proxy, same_header) {
                        settings.set("send_proxy", Value::text(version), Vec::new());
                    }
                }
                if let Some(number) = own.maxconn {
                    settings.set("max_sessions", Value::Number(number), Vec::new());
                }
                let comments = match is_first {
                    true => server.line.comments.clone(),
                    false => Vec::new(),
                };
                Target {
                    host: host.clone(),
                    port: *port,
                    comments,
                    settings,
                }
            })
            .collect()
    }

    /// Whether all servers are told the same way who the client is.
    pub fn same_header(&self) -> bool {
        let mut headers = self
            .serving
            .servers
            .iter()
            .map(|server| server.options.send_proxy);
        let first = headers.next();
        headers.all(|other| Some(other) == first)
    }

    /// Public addresses that lead to the same ports with one policy.
    fn groups(&self) -> Result<Vec<Group>, Remark> {
        let mut groups: Vec<Group> = Vec::new();
        let servers = &self.serving.servers;
        let is_fixed = |server: &&Server| matches!(server.port, Port::Range(..));
        for bind in &self.front.binds {
            let mut comments = bind.line.comments.clone();
            for listen in &bind.listens {
                // Many to one: our own range would lead to as many ports.
                let listens: Vec<Listen> = match servers.iter().any(is_fixed) {
                    true => listen.ports().collect(),
                    false => vec![*listen],
                };
                for listen in listens {
                    let ports = servers
                        .iter()
                        .map(|server| self.port(server, listen, &bind.options));
                    let ports = ports.collect::<Result<Vec<u16>, Remark>>()?;
                    let fits =
                        |group: &&mut Group| group.ports == ports && group.options == bind.options;
                    match groups.iter_mut().find(fits) {
                        Some(group) => {
                            group.listens.push(listen);
                            group.comments.append(&mut comments);
                        }
                        None => groups.push(Group {
                            ports,
                            options: bind.options.clone(),
                            listens: vec![listen],
                            comments: std::mem::take(&mut comments),
                        }),
                    }
                }
            }
        }
        Ok(groups)
    }

    /// The port of a server that the first port of `listen` leads to.
    fn port(&self, server: &Server, listen: Listen, options: &Options) -> Result<u16, Remark> {
        let offset = match server.port {
            Port::Range(port, _) => return Ok(port),
            Port::Missing => 0,
            Port::Offset(offset) => offset,
        };
        if self.accepts(options) {
            let why =
                "the target's port is the one that a PROXY header states, which its sender chooses";
            return Err(server.line.left_out(why).instead("give the server a port"));
        }
        let [first, last] = [listen.first, listen.last].map(|port| i32::from(port) + offset);
        match (u16::try_from(first), u16::try_from(last)) {
            (Ok(first @ 1..), Ok(_)) => Ok(first),
            _ => {
                let why = format!("{listen} and {offset} are no ports");
                Err(server
                    .line
                    .left_out(why)
                    .instead("give the server another port"))
            }
        }
    }

    pub fn accepts(&self, options: &Options) -> bool {
        options.accept_proxy || !self.requests.accept_proxy.is_empty()
    }
}

/// Public addresses that become one mapping.
struct Group {
    ports: Vec<u16>,
    options: Options,
    listens: Vec<Listen>,
    comments: Vec<String>,
}
