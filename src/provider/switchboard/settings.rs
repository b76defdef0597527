//! [switchboard]: where jobs are asked for, which of them are exposed, and on which ports.
//!
//! Values only; the configuration reads and checks them.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    JobState, PortRanges, Rule,
    client::{BaseUrl, ClientSettings},
    publish::AnnotationKey,
};
use crate::{
    auto_or::AutoOr,
    table::{ListenAddr, Origin, Policy},
};

/// How a mapping from the switchboard is called, up to the job. No mapping of a file is, whether there
/// is a switchboard or not: there may be one after a reload, and commands take the job from the name.
pub const RESERVED: &str = "job/";

/// Everything about the mappings that come from a switchboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switchboard {
    /// Where its API is.
    pub url: BaseUrl,
    /// The file with the token to ask with.
    pub token_file: PathBuf,
    /// The file with the certificates to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// What to expose of a job, in the order of importance.
    pub expose: Vec<Rule>,
    /// The states in which a job is exposed.
    pub states: Vec<JobState>,
    /// The ports to allocate from.
    pub ports: PortRanges,
    /// Where `ports` was written.
    pub ports_origin: Origin,
    /// The name that users connect to.
    pub public_host: PublicHost,
    /// Prefixes of which one must contain a job's address.
    pub allow: Vec<IpNet>,
    /// Where the jobs on a host are, by its name or id, if they do not say so themselves.
    pub addresses: BTreeMap<String, IpAddr>,
    /// How long a port is given to nobody else after its job.
    pub cooldown: Duration,
    /// Ports a job may have.
    pub max_per_job: u32,
    /// Ports all jobs may have; `None` is as many as there are.
    pub max_total: Option<u32>,
    /// What becomes of a job whose host is not alive: `None` keeps it, a time closes it after
    /// that.
    pub host_gone: Option<Duration>,
    /// Between two walks through all jobs.
    pub refresh: Duration,
    /// Between two looks for new jobs, where nothing else tells of them.
    pub poll: Duration,
    /// Where allocations are kept over a restart.
    pub state_dir: PathBuf,
    /// The annotation of each job that its endpoints are written into, if they are, without the
    /// proxy's name.
    pub publish: Option<AnnotationKey>,
    /// What tells its key from that of other proxies: `public_host`, a name, or nothing.
    pub publish_name: AutoOr<Option<AnnotationKey>>,
    /// Whether what was written is removed at a stop.
    pub withdraw: bool,
    /// Where anybody may ask for the endpoints of one job.
    pub lookup: Option<ListenAddr>,
    /// Where `lookup` was written.
    pub lookup_origin: Origin,
    /// The policy of the sessions.
    pub policy: Arc<Policy>,
}

impl Switchboard {
    /// What a mapping of a job is called.
    pub fn mapping_name(job: &str, rule: &str) -> String {
        format!("{RESERVED}{job}/{rule}")
    }

    /// The job in the name of a mapping, if it is a job's.
    pub fn job_in(mapping: &str) -> Option<&str> {
        mapping.strip_prefix(RESERVED)?.split('/').next()
    }

    /// The key of the annotation, if there is one and it is not too long.
    pub fn annotation(&self) -> Option<AnnotationKey> {
        let key = self.publish.as_ref()?;
        match &self.publish_name {
            AutoOr::Auto => key.of_host(self.public_host.as_str()),
            AutoOr::Value(Some(name)) => key.named(&name.to_string()),
            AutoOr::Value(None) => Some(key.clone()),
        }
    }

    /// How it is asked.
    pub fn client(&self) -> ClientSettings {
        ClientSettings {
            url: self.url.clone(),
            token_file: self.token_file.clone(),
            ca_file: self.ca_file.clone(),
        }
    }
}

/// The name or address that users connect to; fit for a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicHost(String);

impl PublicHost {
    /// Takes a host name or an address without brackets.
    pub fn parse(text: &str) -> Option<Self> {
        let fit = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
        let valid = (1..=253).contains(&text.len())
            && text.chars().all(fit)
            && !text.starts_with(['-', '.'])
            && (!text.contains(':') || text.parse::<std::net::Ipv6Addr>().is_ok());
        valid.then(|| Self(text.to_owned()))
    }

    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PublicHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_host_cannot_be_an_option_of_a_command() {
        for host in ["us.proxy.example.org", "192.0.2.1", "2001:db8::1"] {
            assert!(PublicHost::parse(host).is_some(), "{host}");
        }
        for host in ["", "-oProxyCommand=x", "a b", "[::1]", "h:22", ".h", "h;x"] {
            assert!(PublicHost::parse(host).is_none(), "{host}");
        }
    }
}
