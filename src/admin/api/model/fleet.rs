//! What the proxies of a fleet know of each other.

use serde::{Deserialize, Serialize};

use crate::units::duration_ms;

documents! {
    /// How it stands with the fleet that the proxy is a member of.
    FleetMembership {
        /// The name of this proxy.
        name: String,
        /// Where it is.
        region: String,
        /// `connected`; `starting` before the database was asked, `away` while it cannot be, `refused`
        /// if it will not have this proxy.
        state: String,
        /// What goes wrong.
        error: Option<String>,
        /// The server of the database that is asked.
        server: Option<String>,
        /// How long ago the database last answered.
        heard_ms: Option<u64>,
        /// Proxies that the database knows, this one too.
        proxies: u64,
        /// Those of them that were heard of lately.
        up: u64,
        /// The ports that the proxies of the region share; none if they do not.
        ports: Option<RegionPorts>,
    }

    /// The ports that the proxies of a region share, and this proxy's part in that.
    RegionPorts {
        /// `leading` if it follows the switchboard and decides, `serving` if another one does; `alone` while
        /// the database is not heard of, `expired` after fleet.lease without it; `unknown` before it was.
        role: String,
        /// The proxy that leads, if one is known to.
        leader: Option<String>,
        /// The generation of the region's ports that is known here: goes up with every change.
        generation: u64,
        /// The generation that is in force here.
        applied: u64,
    }

    /// The proxies that share a database, and the mappings of their files.
    Fleet {
        /// How it stands with this proxy; none without a fleet in the configuration.
        membership: Option<FleetMembership>,
        /// The proxies, this one too, by name.
        proxies: Vec<FleetProxy>,
        /// The regions whose proxies share the ports of jobs, by name.
        regions: Vec<FleetRegion>,
        /// What the mappings of their files lead to, but for those that listen on a loopback address.
        mappings: Vec<FleetMapping>,
    }

    /// A proxy of the fleet.
    FleetProxy {
        /// Its name.
        proxy: String,
        /// Where it is.
        region: String,
        /// `up`, `silent` if it was not heard of for 30 seconds, `stopped`, or `removed` by an operator.
        state: String,
        /// The version that runs there.
        version: String,
        /// When it was last heard of.
        seen: String,
        /// How long ago that is.
        age_ms: u64,
        /// Its sessions then.
        sessions: u64,
        /// The generation of what it tells of itself: goes up with every change.
        generation: u64,
        /// The generation that this proxy has read.
        generation_read: u64,
        /// Endpoints of jobs among that.
        endpoints: u64,
        /// What it is in the region of this proxy: `leading` or `serving`, and of this proxy everything that
        /// it can be.
        role: Option<String>,
        /// The generation of its region's ports that is in force there, if it shares them.
        ports_applied: Option<u64>,
    }

    /// A region whose proxies share the ports of jobs, as it was last heard of.
    FleetRegion {
        /// Its name.
        region: String,
        /// The proxy that leads, if one does.
        leader: Option<String>,
        /// The generation of its ports: goes up with every change.
        generation: u64,
        /// Whether its proxies have told what they serve since the database lost changes for the last time.
        /// Until then no job gets a port.
        settled: bool,
        /// Ports belonging to a job, as the leader has told.
        used: Option<u64>,
        /// Given to nobody else yet after their job.
        cooling: Option<u64>,
        /// Left alone because a proxy could not bind them.
        blocked: Option<u64>,
        /// Had by its proxies beforehand, for jobs that come while the database is away.
        reserved: Option<u64>,
        /// To be had.
        free: Option<u64>,
    }

    /// A mapping of a proxy's file.
    FleetMapping {
        /// Its name.
        mapping: String,
        /// The proxy.
        proxy: String,
        /// Where that is.
        region: String,
        /// The name to connect to.
        host: String,
        /// The port to connect to.
        port: u16,
        /// The last port, if it is a range of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_port: Option<u16>,
        /// Where its sessions go.
        target: String,
        /// `open`, or `paused` or `drained` by an operator.
        state: String,
        /// How long ago the proxy was heard of.
        age_ms: u64,
    }
}

impl FleetMembership {
    /// It in a line.
    pub(crate) fn in_words(&self) -> String {
        let Self {
            name,
            region,
            state,
            error,
            server,
            heard_ms,
            proxies,
            up,
            ports,
        } = self;
        let mut text = format!("{name} in {region}: {state}");
        match error {
            Some(error) => text.push_str(&format!(" ({error})")),
            None => text.extend(server.iter().map(|server| format!(" to {server}"))),
        }
        let heard = heard_ms.map(|heard| format!(", heard {} ago", duration_ms(heard)));
        text.push_str(heard.as_deref().unwrap_or(", not heard yet"));
        text.push_str(&format!(", {up} of {proxies} proxies up"));
        if let Some(ports) = ports {
            text.push_str(&format!("; {}", ports.in_words()));
        }
        text
    }
}

impl RegionPorts {
    /// They in a line.
    pub(crate) fn in_words(&self) -> String {
        let Self {
            role,
            leader,
            generation,
            applied,
        } = self;
        let led = match leader.as_deref() {
            _ if role != "serving" => String::new(),
            leader => format!(", led by {}", leader.unwrap_or("nobody")),
        };
        let behind = match generation.saturating_sub(*applied) {
            0 => String::new(),
            behind => format!(", {behind} behind"),
        };
        format!("shared ports: {role}{led}, generation {generation}{behind}")
    }
}
