//! A port that leads to another, as programs write it that do nothing else: rinetd, xinetd, realm, socat.
//!
//! Their readers know what stands in a file; here a port becomes a mapping, or is left to the program.

use std::path::{Path, PathBuf};

use super::{
    Around, Import, Place, Remark, address,
    listen::{Host, Listen},
    model::{Left, Mapping, Noted, Settings, Target},
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
    pub target: &'t str,
    pub target_port: u16,
    pub settings: Settings,
}

impl Forward<'_> {
    /// Adds the mapping, or leaves the port to the other program.
    pub fn add(self, around: &Around<'_>, import: &mut Import) {
        let left_out = |why: String| Remark::left_out(self.place.clone(), &self.text, why);
        let host = match self.host {
            "" | "*" => Some(Host::ANY_V4),
            host => address::listen_host(host, around),
        };
        let named = |host: &str| address::is_a_name(left_out(format!("{host} is a name")));
        let found = host.ok_or_else(|| named(self.host));
        let found = found.and_then(|host| {
            let ip = address::ip(self.target, around).ok_or_else(|| named(self.target))?;
            Ok((host, ip))
        });
        match found {
            Ok((host, ip)) => {
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
                    targets: vec![Target {
                        host: ip,
                        port: self.target_port,
                        comments: Vec::new(),
                        settings: Settings::default(),
                    }],
                    settings: self.settings,
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
