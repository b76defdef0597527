//! The manual: one Markdown file a topic, read in the repository, by `tml-proxy help TOPIC` and as man
//! pages.
//!
//! What the keys of the configuration are is not written here: it comes from their types.

mod roff;

pub use roff::to_roff;

/// A chapter of the manual.
#[derive(Debug, PartialEq, Eq)]
pub struct Topic {
    /// What `tml-proxy help` calls it, and its file.
    pub name: &'static str,
    /// What it is about, in a few words.
    pub about: &'static str,
    /// Its text, in Markdown.
    pub text: &'static str,
}

macro_rules! topics {
    ($($name:literal: $about:literal,)*) => {
        &[$(Topic { name: $name, about: $about, text: include_str!(concat!($name, ".md")) }),*]
    };
}

/// Every topic, in the order in which somebody new needs them.
pub const TOPICS: &[Topic] = topics! {
    "configuration": "how the file is written, and what is said of mistakes",
    "ssh": "ssh, scp and rsync through a mapping",
    "service": "installing, updating, stopping and uninstalling it with systemd",
    "reload": "what a reload does, and when nothing changes",
    "sessions": "what happens to live sessions when something changes, and when one is given up",
    "log": "the session log: fields, and reasons for which sessions end",
    "admin": "commands, status page, API and metrics of the running proxy",
    "limits": "what clients may take, and what a process can hold",
    "clients": "how targets learn who the client is: PROXY protocol, transparent connections",
    "sshd": "sshd as a target: limits and penalties that count the proxy's address",
    "switchboard": "ports for the jobs of a Treadmill switchboard",
    "fleet": "several proxies that tell each other through a PostgreSQL where jobs can be reached",
    "haproxy": "the keywords of HAProxy, and what takes their place",
    "internals": "how it works inside",
    "figures": "processor time and memory beside HAProxy and nginx, and what the tests put it through",
};

/// The topic of that name.
pub fn topic(name: &str) -> Option<&'static Topic> {
    TOPICS.iter().find(|topic| topic.name == name)
}

#[cfg(test)]
mod tests;
