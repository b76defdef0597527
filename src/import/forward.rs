//! A port that leads to another, as programs write it that do nothing else: rinetd, xinetd, realm, socat.
//!
//! Their readers know what stands in a file; here a port becomes a mapping, or is left to the program.

use std::path::{Path, PathBuf};

use super::{
    Around, Import, Place, Remark, address,
    listen::{Host, Listen},
    model::{Left, Mapping, Noted, Settings, Target, Value},
    text_of,
};

/// A port that is forwarded, in the words of its file.
pub struct Forward<'t> {
    pub place: Place,
    pub text: String,
    pub name: String,
    pub comments: Vec<String>,
    pub host: &'t str,
    /// Whether every IPv6 address is every IPv4 address as well.
    pub dual: bool,
    pub port: u16,
    pub targets: Vec<Leads<'t>>,
    /// Whether the program looks a name up for each client, or once for all.
    pub looks_up: LooksUp,
    pub settings: Settings,
}

/// Where it leads, and the share of the clients that has.
pub struct Leads<'t> {
    pub host: &'t str,
    pub port: u16,
    pub weight: u64,
}

/// When a program looks names up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LooksUp {
    AtItsStart,
    ForEachClient,
}

impl Forward<'_> {
    /// Adds the mapping, or leaves the port to the other program.
    pub fn add(self, around: &Around<'_>, import: &mut Import) {
        let left_out = |why: String| Remark::left_out(self.place.clone(), &self.text, why);
        let host = match self.host {
            "" | "*" => Some(Host::ANY_V4),
            host => address::listen_host(host, around),
        };
        let named = || address::is_a_name(left_out(format!("{} is a name", self.host)));
        let target = |leads: &Leads<'_>| {
            let host = address::target_host(leads.host, around).ok_or_else(|| {
                let why = format!("{} is neither an address nor a name", leads.host);
                left_out(why).instead("write one of both")
            })?;
            let mut settings = Settings::default();
            if leads.weight != 1 {
                settings.set("weight", Value::Number(leads.weight), Vec::new());
            }
            Ok(Target {
                host,
                port: leads.port,
                comments: Vec::new(),
                settings,
            })
        };
        let found = host.ok_or_else(named).and_then(|host| {
            let targets = self.targets.iter().map(target);
            Ok((host, targets.collect::<Result<Vec<Target>, Remark>>()?))
        });
        match found {
            Ok((host, targets)) => {
                let mut settings = self.settings;
                if targets.iter().any(|target| target.host.ip().is_none()) {
                    if targets.len() == 1 {
                        settings.set("balance", Value::text("first"), Vec::new());
                    }
                    match self.looks_up {
                        LooksUp::ForEachClient => {
                            settings.set("resolve", Value::text("ttl"), Vec::new());
                        }
                        LooksUp::AtItsStart => {
                            let why = "its name is looked up at the start there, and at a reload as well here";
                            let remark = Remark::different(self.place.clone(), &self.text, why);
                            let instead = "use --resolve to have the address of now written";
                            import.remarks.push(remark.instead(instead));
                        }
                    }
                }
                let host = match host {
                    Host::ANY_V6 if self.dual => Host::Any,
                    host => host,
                };
                let listen = Listen {
                    host,
                    first: self.port,
                    last: self.port,
                };
                import.mappings.push(Mapping {
                    place: self.place,
                    name: self.name,
                    comments: self.comments,
                    listen: Noted {
                        value: vec![listen],
                        comments: Vec::new(),
                    },
                    targets,
                    settings,
                });
            }
            Err(remark) => {
                let listen = format!("{}:{}", self.host, self.port);
                leave(remark, listen, import);
            }
        }
    }
}

/// Leaves a port to the other program.
pub fn leave(remark: Remark, listen: String, import: &mut Import) {
    import.left.push(Left {
        place: remark.place.clone(),
        what: remark.what.clone(),
        listen: vec![listen],
    });
    import.remarks.push(remark);
}

/// Each file with its text; what cannot be read is said.
pub fn texts<'p>(paths: &'p [PathBuf], import: &mut Import) -> Vec<(&'p Path, String)> {
    let mut texts = Vec::new();
    for path in paths {
        match text_of(path) {
            Ok(text) => texts.push((path.as_path(), text)),
            Err(remark) => import.remarks.push(remark),
        }
    }
    texts
}
