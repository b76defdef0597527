//! Settings in force, as they are handed over to the next image of the program: as the file would have
//! them, so that what a later version calls otherwise is read for one version.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Admin, Config, Log, Process, Targets};
use crate::{
    fleet::Fleet,
    handover::LoadError,
    limit::SavedLimits,
    provider::switchboard::Switchboard,
    resolve::Asking,
    table::{MappingSpec, Origin, PrefixFileSaver, SavedPolicy, SavedPrefixFile},
};

/// A [`Config`] without its mappings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedConfig {
    #[serde(default)]
    process: Process,
    #[serde(default)]
    admin: Admin,
    #[serde(default)]
    admin_origin: Origin,
    #[serde(default)]
    log: Log,
    #[serde(default)]
    targets: Targets,
    #[serde(default)]
    resolver: Asking,
    limits: SavedLimits,
    defaults: SavedPolicy,
    /// Those that the policies name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prefix_files: Vec<SavedPrefixFile>,
    #[serde(default)]
    switchboard: Option<SavedSwitchboard>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fleet: Option<Fleet>,
    #[serde(default)]
    outdated: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct SavedSwitchboard {
    settings: Switchboard,
    #[serde(default)]
    ports_origin: Origin,
    #[serde(default)]
    lookup_origin: Origin,
    policy: SavedPolicy,
}

impl From<&Config> for SavedConfig {
    fn from(config: &Config) -> Self {
        let Config {
            process,
            admin,
            log,
            targets,
            resolver,
            limits,
            defaults,
            switchboard,
            fleet,
            outdated,
            mappings: _,
        } = config;
        let mut files = PrefixFileSaver::default();
        let defaults = SavedPolicy::new(defaults, &mut files);
        let switchboard = switchboard.as_ref();
        let switchboard = switchboard.map(|settings| SavedSwitchboard {
            settings: settings.clone(),
            ports_origin: settings.ports_origin.clone(),
            lookup_origin: settings.lookup_origin.clone(),
            policy: SavedPolicy::new(&settings.policy, &mut files),
        });
        Self {
            process: process.clone(),
            admin: admin.clone(),
            admin_origin: admin.origin.clone(),
            log: log.clone(),
            targets: targets.clone(),
            resolver: resolver.clone(),
            limits: SavedLimits::from(limits),
            defaults,
            switchboard,
            fleet: fleet.clone(),
            prefix_files: files.finish(),
            outdated: outdated.clone(),
        }
    }
}

impl SavedConfig {
    /// The same with its mappings.
    ///
    /// # Errors
    ///
    /// A file with prefixes is missing.
    pub fn load(self, mappings: Vec<MappingSpec>) -> Result<Config, LoadError> {
        let Self {
            process,
            admin,
            admin_origin,
            log,
            targets,
            resolver,
            limits,
            defaults,
            prefix_files,
            switchboard,
            fleet,
            outdated,
        } = self;
        let files = SavedPrefixFile::load(prefix_files);
        let admin = Admin {
            origin: admin_origin,
            ..admin
        };
        let switchboard = switchboard.map(|saved| {
            Ok(Switchboard {
                ports_origin: saved.ports_origin,
                lookup_origin: saved.lookup_origin,
                policy: Arc::new(saved.policy.load(&files)?),
                ..saved.settings
            })
        });
        Ok(Config {
            process,
            admin,
            log,
            targets,
            resolver,
            limits: limits.into(),
            defaults: defaults.load(&files)?,
            switchboard: switchboard.transpose()?,
            fleet,
            outdated,
            mappings,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Everything that a file can say, and nothing as it is when it is left out.
    const TEXT: &str = r#"
        version = 1
        [process]
        workers = 3
        bulk_nice = 4
        shutdown_timeout = "off"
        splice = false
        pipe_size = "64KiB"
        pipes = "off"
        [admin]
        listen = "127.0.0.1:9423"
        hosts = ["p.example.org"]
        socket = "/run/p.sock"
        socket_mode = "0600"
        socket_group = "7"
        [log]
        level = "debug"
        format = "json"
        sessions = false
        session_openings = true
        session_every = "1h"
        refusals_per_second = 9
        syslog = "udp://[::1]:514"
        syslog_facility = "local7"
        syslog_name = "p"
        mask_clients = { ipv4 = 24, ipv6 = 48 }
        [targets]
        allow = ["10.0.0.0/8"]
        [resolver]
        servers = ["10.0.0.53", "[fd00::53]:5353"]
        timeout = "3s"
        [limits]
        max_sessions = 70
        max_dialling = 8
        source_prefix_v4 = 24
        ban = { after = 3, within = "1m", lasts = "1h" }
        exempt = ["10.0.0.0/8"]
        [defaults]
        idle_timeout = "2h"
        max_duration = "1day"
        new_sessions_per_second = { rate = 30, per = "1m" }
        keepalive = "off"
        allow = ["192.0.2.0/24"]
        bandwidth = { rate = "10MiB", burst = "20MiB" }
        check = { send = "a\r\n", expect = "b", port = 9, fall = 7 }
        resolve = "3m"
        family = "ipv6"
        on_down = "kill"
        [switchboard]
        url = "https://s.example.org/"
        token_file = "/etc/token"
        ca_file = "/etc/ca"
        expose = [
            { name = "ssh", port = 22 },
            { name = "web", port = 80, service = "http" },
            { name = "vnc", port = 5900, protocol = "rfb" },
        ]
        states = ["ready", "terminating"]
        ports = ["40000-40010", "40100"]
        public_host = "p.example.org"
        targets = { allow = ["10.1.0.0/16"] }
        addresses = { "host-1" = "10.1.0.1" }
        cooldown = "off"
        max_per_job = 2
        max_total = 9
        host_gone = "5m"
        refresh = "3m"
        poll = "2s"
        state_dir = "/var/lib/p"
        publish = "proxy"
        publish_name = "off"
        publish_on_stop = "keep"
        lookup = "*:9424"
        max_sessions = 11
        [fleet]
        database = "postgresql://u@a,b:6432/d?sslmode=disable"
        password_file = "/etc/password"
        ca_file = "/etc/ca"
        name = "a"
        region = "b"
        public_host = "p.example.org"
        nearest = ["b", "c"]
        ports = "own"
        follow = false
        lease = "2h"
    "#;

    #[test]
    fn every_setting_survives() {
        for text in ["version = 1\n", TEXT] {
            let config = super::super::parse(text, Path::new("f")).expect("a fit file");
            let json = serde_json::to_string(&SavedConfig::from(&config)).expect("plain values");
            let saved: SavedConfig = serde_json::from_str(&json).expect("as it was written");
            let again = saved.load(config.mappings.clone()).expect("whole");
            assert_eq!(format!("{again:#?}"), format!("{config:#?}"));
        }
    }

    #[test]
    fn what_no_file_may_say_is_refused() {
        let config = SavedConfig::from(&Config::default());
        let mut json = serde_json::to_value(config).expect("plain values");
        json["later"] = true.into();
        json["process"]["later"] = true.into();
        assert!(serde_json::from_value::<SavedConfig>(json.clone()).is_ok());
        json["process"]["bulk_nice"] = 20.into();
        let error = serde_json::from_value::<SavedConfig>(json).expect_err("too nice");
        assert!(
            error.to_string().contains("a number from 0 to 19"),
            "{error}"
        );
    }
}
