//! `server`, `server-template` and `default-server` lines.

use std::{net::IpAddr, time::Duration};

use super::{
    address::{self, Family, Host, Port, Unfit},
    checks::CheckOptions,
    sections::Line,
    values,
    words::{self, Variables},
};
use crate::import::{Around, Remark, address::of_name, model::TargetHost};

/// A server.
#[derive(Debug, Clone)]
pub struct Server {
    pub line: Line,
    /// Where it is, unless that is nowhere that could be written; what then is in the way has been said.
    pub host: Option<TargetHost>,
    pub port: Port,
    /// The family that its address says.
    pub family: Option<Family>,
    /// How many servers a template makes of it.
    pub copies: Option<u64>,
    pub options: Options,
}

/// What a `server` line says, `default-server` lines above it included.
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub backup: bool,
    pub disabled: bool,
    pub weight: Option<u64>,
    pub maxconn: Option<u64>,
    pub send_proxy: Option<&'static str>,
    pub source: Option<Source>,
    pub user_timeout: Option<Duration>,
    pub maxqueue: Option<u64>,
    /// Who is asked for its name while HAProxy runs.
    pub resolvers: Option<String>,
    /// The family to be preferred of what a name has.
    pub prefer: Option<Family>,
    pub checks: CheckOptions,
    /// What keeps it from being a target here: why, and what to do instead.
    blockers: Vec<(String, &'static str)>,
    /// What is not what it seems: the words, why, and what to do instead.
    changed: Vec<(String, &'static str, &'static str)>,
}

/// Where connections to servers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Address(IpAddr),
    Client,
}

/// Words without an argument that change nothing here.
const FLAGS: &[&str] = &[
    "enabled",
    "tfo",
    "non-stick",
    "no-tfo",
    "no-ssl",
    "no-verifyhost",
    "strict-maxconn",
    "stick",
    "tls-tickets",
    "no-tls-tickets",
    "ssl-reuse",
    "no-ssl-reuse",
];

/// Words of checks, which have their own reader.
const CHECKS: &[&str] = &[
    "check",
    "no-check",
    "inter",
    "fastinter",
    "downinter",
    "rise",
    "fall",
    "port",
    "addr",
    "track",
    "agent-check",
    "no-agent-check",
    "check-via-socks4",
    "check-ssl",
    "no-check-ssl",
    "check-send-proxy",
    "no-check-send-proxy",
    "on-marked-down",
    "on-marked-up",
    "slowstart",
    "observe",
];

/// Words with an argument that change nothing here, or are known above.
const WITH_VALUE: &[&str] = &[
    "inter",
    "fastinter",
    "downinter",
    "rise",
    "fall",
    "port",
    "addr",
    "check-sni",
    "check-alpn",
    "check-proto",
    "agent-addr",
    "agent-port",
    "agent-inter",
    "agent-send",
    "cookie",
    "error-limit",
    "id",
    "log-proto",
    "max-reuse",
    "maxqueue",
    "minconn",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "proto",
    "redir",
    "slowstart",
    "track",
    "ws",
    "shard",
    "resolvers",
    "resolve-prefer",
    "resolve-opts",
    "resolve-net",
    "init-addr",
    "init-state",
    "hash-key",
    "guid",
    "verify",
    "verifyhost",
    "sni",
    "alpn",
    "npn",
    "ca-file",
    "crt",
    "crl-file",
    "ciphers",
    "ciphersuites",
    "ssl-min-ver",
    "ssl-max-ver",
    "proxy-v2-options",
    "weight",
    "label",
    "check-reuse-pool",
    "check-pool-conn-name",
    "pool-conn-name",
    "idle-ping",
    "cc",
];

impl Options {
    /// Reads the words of a `source` directive, too: how many it took.
    pub fn source_of(
        words: &[String],
        variables: &Variables<'_>,
    ) -> (Result<Source, String>, usize) {
        let mut taken = 1;
        let address = words.first().map_or("", String::as_str);
        let address = words::expand_address(address, variables).unwrap_or_default();
        let mut source = match address::parse(&address) {
            Ok(address::Address {
                host: Host::Ip(ip), ..
            }) if !ip.is_unspecified() => Ok(Source::Address(ip)),
            Ok(address::Address {
                host: Host::Unspecified | Host::Ip(_),
                ..
            }) => Err("it leaves the address to the kernel".to_owned()),
            _ => Err("its address is none that can be written here".to_owned()),
        };
        while let Some(word) = words.get(taken) {
            match (word.as_str(), words.get(taken + 1).map(String::as_str)) {
                ("usesrc", Some("client" | "clientip")) => source = Ok(Source::Client),
                ("usesrc", Some(other)) => {
                    source = Err(format!("it takes the address from {other}"))
                }
                ("interface", Some(name)) => {
                    source = Err(format!("it sends by the interface {name} alone"))
                }
                _ => break,
            }
            taken += 2;
        }
        (source, taken)
    }

    /// Takes over what `words` say.
    pub fn read(&mut self, words: &[String], variables: &Variables<'_>) {
        let mut at = 0;
        while let Some(word) = words.get(at).map(String::as_str) {
            at += 1;
            let next = words.get(at).map_or("", String::as_str);
            match word {
                "backup" => self.backup = true,
                "no-backup" => self.backup = false,
                "disabled" => self.disabled = true,
                "enabled" => self.disabled = false,
                "send-proxy" => self.send_proxy = Some("v1"),
                "send-proxy-v2" | "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => {
                    self.send_proxy = Some("v2");
                }
                "no-send-proxy" | "no-send-proxy-v2" => self.send_proxy = None,
                "weight" => self.weight = next.parse().ok(),
                "maxconn" => {
                    let (number, rest) = values::leading_number(next);
                    self.maxconn = match (number, rest) {
                        (0, _) => None,
                        (number, "") => Some(number),
                        (_, _) => {
                            let what = format!("maxconn {next}");
                            let why = "HAProxy passes over the unit and takes it for 1";
                            let instead = "set max_sessions to what was meant";
                            self.changed.push((what, why, instead));
                            Some(1)
                        }
                    };
                }
                "tcp-ut" => {
                    self.user_timeout = values::time(next).ok().and_then(|(span, _)| span);
                    at += 1;
                }
                "ssl" => {
                    let why = "it begins TLS, and bytes are passed on here as they are".to_owned();
                    self.blockers.push((
                        why,
                        "leave it to HAProxy, or put stunnel in front of the server",
                    ));
                }
                "socks4" => {
                    self.blockers
                        .push(("it goes through SOCKS".to_owned(), "leave it to HAProxy"));
                    at += 1;
                }
                "namespace" => {
                    self.blockers.push((
                        "it is in another network namespace".to_owned(),
                        "run a proxy there",
                    ));
                    at += 1;
                }
                "set-proxy-v2-tlv-fmt" => at += 1,
                "source" => {
                    let (source, taken) = Self::source_of(&words[at..], variables);
                    match source {
                        Ok(source) => self.source = Some(source),
                        Err(why) => self
                            .blockers
                            .push((why, "write `source ADDRESS`, or leave it out")),
                    }
                    at += taken;
                }
                word if word.starts_with("set-proxy-v2-tlv-fmt(") => at += 1,
                "maxqueue" => self.maxqueue = next.parse().ok().filter(|most| *most > 0),
                "minconn" => {
                    let what = format!("minconn {next}");
                    let why = "max_sessions is maxconn, however few clients there are";
                    self.changed.push((what, why, ""));
                }
                "resolvers" => self.resolvers = Some(next.to_owned()),
                "resolve-prefer" => {
                    self.prefer = Some(match next {
                        "ipv4" => Family::V4,
                        _ => Family::V6,
                    });
                }
                "init-addr" => {
                    let address = next.split(',').find(|way| way.parse::<IpAddr>().is_ok());
                    if let Some(address) = address {
                        let what = format!("init-addr {address}");
                        let why = "a name that is not known leads nowhere until it is";
                        self.changed.push((what, why, ""));
                    }
                }
                word if CHECKS.contains(&word) => self.checks.read(word, next),
                word if FLAGS.contains(&word) => {}
                word if WITH_VALUE.contains(&word) => {}
                _ => {
                    let why = format!("{word:?} is not known here");
                    self.blockers
                        .push((why, "leave it out, if nothing depends on it"));
                    return;
                }
            }
            at += usize::from(WITH_VALUE.contains(&word) || word == "maxconn");
        }
    }
}

/// Reads `server NAME ADDRESS …`. Blockers and remarks go to `said`.
pub fn read(
    line: &Line,
    defaults: &Options,
    variables: &Variables<'_>,
    around: &Around<'_>,
    said: &mut Vec<Remark>,
) -> Server {
    let mut options = defaults.clone();
    options.read(line.words.get(3..).unwrap_or_default(), variables);
    let mut server = Server {
        line: line.clone(),
        host: None,
        port: Port::Missing,
        family: None,
        copies: None,
        options,
    };
    if server.options.disabled {
        return server;
    }
    for (why, instead) in std::mem::take(&mut server.options.blockers) {
        said.push(line.left_out(&why).instead(instead));
    }
    for (what, why, instead) in std::mem::take(&mut server.options.changed) {
        let remark = Remark::different(line.place.clone(), &what, why);
        said.push(remark.instead(instead));
    }
    let address = words::expand_address(line.word(2), variables).map_err(Unfit::Invalid);
    match address.and_then(|address| address::parse(&address)) {
        Ok(address) => {
            server.port = address.port;
            server.family = address.family;
            match address.host {
                Host::Ip(ip) if !ip.is_unspecified() => {
                    server.host = Some(TargetHost::Ip(ip.to_canonical()));
                }
                Host::Ip(_) | Host::Unspecified => said.push(
                    line.left_out("it is the address that the client came to, whichever that was")
                        .instead("write the address"),
                ),
                Host::Name(name) if name.starts_with('_') => {
                    let why = "it asks for SRV records, which say names and ports";
                    said.push(
                        line.left_out(why)
                            .instead("write each name and its port as a target"),
                    );
                }
                Host::Name(name) => {
                    let ip = of_name(&name, around);
                    if around.resolve.is_some() && ip.is_none() {
                        let why = format!("{name} is not known now: the name itself is written");
                        said.push(line.different(why));
                    }
                    let host = ip.map_or(TargetHost::Name(name), TargetHost::Ip);
                    server.host = Some(host);
                }
            }
            if let Port::Range(first, last) = server.port
                && first != last
            {
                let why = "a server has no range of ports";
                let remark = line.invalid(why);
                said.push(
                    remark.instead("leave the port out to reach the one that the client came to"),
                );
            }
        }
        Err(Unfit::Invalid(why)) => {
            said.push(line.invalid(why));
        }
        Err(Unfit::Other(why)) => said.push(line.left_out(why).instead("leave it to HAProxy")),
    }
    server
}

/// Reads `server-template PREFIX NUMBER NAME …`: one server, whose name has the addresses of all.
pub fn template(
    line: &Line,
    defaults: &Options,
    variables: &Variables<'_>,
    around: &Around<'_>,
    said: &mut Vec<Remark>,
) -> Server {
    let mut as_server = line.clone();
    as_server.words.remove(1.min(line.words.len() - 1));
    let mut server = read(&as_server, defaults, variables, around, said);
    server.line = line.clone();
    let number = line
        .word(2)
        .rsplit('-')
        .next()
        .and_then(|last| last.parse().ok());
    server.copies = number.filter(|number| *number > 1);
    if let (Some(TargetHost::Ip(_)), Some(_)) = (&server.host, server.copies) {
        let why = "it makes several servers at one address";
        let remark = line.left_out(why);
        said.push(remark.instead("write one server"));
    }
    server
}
