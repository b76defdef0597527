//! `bind` lines: addresses, and what is said about them.

use super::{
    address::{self, Host, Port, Unfit},
    sections::Line,
    words::{self, Variables},
};
use crate::import::{Around, Remark, address::of_name, listen};

/// A public address with what its line says.
#[derive(Debug, Clone)]
pub struct Bind {
    pub line: Line,
    pub listens: Vec<listen::Listen>,
    pub options: Options,
}

/// What counts for the mappings made of it: only those that say the same can be one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    pub accept_proxy: bool,
    pub transparent: bool,
    pub backlog: Option<u64>,
    pub maxconn: Option<u64>,
    pub user_timeout: Option<String>,
}

/// Words that take no argument and change nothing that anybody sees of a mapping.
const FLAGS: &[&str] = &["defer-accept", "tfo", "expose-fd-listeners", "strict-sni"];

/// The same with an argument.
const WITH_VALUE: &[&str] = &[
    "name",
    "id",
    "nice",
    "process",
    "thread",
    "shards",
    "level",
    "severity-output",
    "user",
    "group",
    "uid",
    "gid",
    "mode",
    "proto",
    "alpn",
    "npn",
    "label",
    "guid-prefix",
    "nbconn",
    "mss",
    "idle-ping",
    "cc",
];

/// Reads a `bind` line. Blockers and remarks go to `said`.
pub fn read(
    line: &Line,
    variables: &Variables<'_>,
    around: &Around<'_>,
    said: &mut Vec<Remark>,
) -> Bind {
    let mut bind = Bind {
        line: line.clone(),
        listens: Vec::new(),
        options: Options::default(),
    };
    let mut v6only = false;
    let mut arguments = line.words.iter().skip(2).map(String::as_str);
    while let Some(word) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default().to_owned();
        match word {
            "accept-proxy" => bind.options.accept_proxy = true,
            "transparent" => bind.options.transparent = true,
            "v6only" => v6only = true,
            "v4v6" => {}
            "backlog" => bind.options.backlog = value().parse().ok(),
            "maxconn" => bind.options.maxconn = value().parse().ok(),
            "tcp-ut" => bind.options.user_timeout = Some(value()),
            "ssl" => {
                said.push(
                    line.left_out("it ends TLS, and bytes are passed on here as they are")
                        .instead("leave it to HAProxy"),
                );
                break;
            }
            "interface" => {
                let why = format!("only clients that come in by {} may connect", value());
                said.push(
                    line.left_out(&why)
                        .instead("listen on an address of that interface alone"),
                );
            }
            "namespace" => {
                let _ = value();
                said.push(
                    line.left_out("it listens in another network namespace")
                        .instead("run a proxy there"),
                );
            }
            "accept-netscaler-cip" | "tcp-md5sig" => {
                let _ = value();
                said.push(
                    line.left_out("nothing here speaks that")
                        .instead("leave it to HAProxy"),
                );
            }
            word if FLAGS.contains(&word) => {}
            word if WITH_VALUE.contains(&word) => _ = value(),
            word => {
                let why = format!("{word:?} is not known here");
                said.push(
                    line.left_out(&why)
                        .instead("leave it out, if nothing depends on it"),
                );
                break;
            }
        }
    }
    if line.words.len() < 2 {
        said.push(line.invalid("it has no address"));
        return bind;
    }
    for part in line.word(1).split(',') {
        let address = words::expand_address(part, variables).map_err(Unfit::Invalid);
        match address.and_then(|part| address::parse(&part)) {
            Ok(address) => match listen(&address, v6only, around) {
                Ok(listen) => bind.listens.push(listen),
                Err(Lacks::Name(name)) => {
                    let why = format!("{name} is a name");
                    let remark = line.left_out(&why);
                    said.push(remark.instead("write its address, or run this with --resolve"));
                }
                Err(Lacks::Port) => {
                    said.push(line.invalid(format!("{part} needs a port, as all of them do")))
                }
                Err(Lacks::Sense(why)) => {
                    said.push(
                        line.left_out(why)
                            .instead("write an address of this machine"),
                    );
                }
            },
            Err(Unfit::Invalid(why)) => said.push(line.invalid(format!("{part}: {why}"))),
            Err(Unfit::Other(why)) => said.push(line.left_out(why).instead("leave it to HAProxy")),
        }
    }
    bind
}

/// Why an address cannot be listened on.
enum Lacks {
    Name(String),
    Port,
    Sense(&'static str),
}

fn listen(
    address: &address::Address,
    v6only: bool,
    around: &Around<'_>,
) -> Result<listen::Listen, Lacks> {
    let Port::Range(first, last) = address.port else {
        return Err(Lacks::Port);
    };
    let host = match &address.host {
        Host::Unspecified => listen::Host::ANY_V4,
        Host::Ip(ip) if ip.is_ipv6() && ip.is_unspecified() && !v6only => listen::Host::Any,
        Host::Ip(ip) => listen::Host::of(*ip),
        Host::Name(name) => {
            let ip = of_name(name, around);
            listen::Host::of(ip.ok_or_else(|| Lacks::Name(name.clone()))?)
        }
    };
    if let listen::Host::V6(ip) = host
        && ip.is_unicast_link_local()
    {
        return Err(Lacks::Sense(
            "a link-local address means nothing without its interface",
        ));
    }
    Ok(listen::Listen { host, first, last })
}
