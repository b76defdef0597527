//! `tml-proxy endpoints`: where jobs of the switchboard can be reached, and asking for it.

use std::process::ExitCode;

use super::{
    client::{ANSWER_WITHIN, Client, ClientError, escaped, get_from},
    output::{self, Align, Column, Screen, table},
};
use crate::{
    admin::api::model::{Endpoint, Endpoints},
    config::PublicHost,
    provider::switchboard::JobId,
};

/// List where jobs of the switchboard can be reached.
#[derive(Debug, Clone, clap::Args)]
pub struct EndpointsArgs {
    #[command(flatten)]
    asked: Asked,
    /// Only those of the job with this id.
    #[arg(long, value_name = "ID", value_parser = job_id)]
    job: Option<JobId>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Who is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Asked {
    #[command(flatten)]
    client: Client,
    /// Ask a proxy's lookup listener (switchboard.lookup) instead: a host and a port.
    #[arg(long, value_name = "HOST:PORT", env = "TML_PROXY_LOOKUP")]
    lookup: Option<String>,
}

impl Asked {
    /// The endpoints of a job, or of all jobs where that may be asked.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn endpoints(&self, job: Option<&JobId>) -> Result<Vec<Endpoint>, ClientError> {
        let mut path = "/api/v1/endpoints".to_owned();
        if let Some(job) = job {
            path.push_str("?job=");
            path.push_str(&escaped(job.as_str()));
        }
        let Endpoints { endpoints } = match &self.lookup {
            None => self.client.get(&path)?,
            Some(server) => get_from(server, &path, ANSWER_WITHIN)?,
        };
        let strange = |what: &str| Err(ClientError::Strange(what.to_owned()));
        if !endpoints.iter().all(is_plain) {
            return strange("an endpoint with characters that no job has");
        }
        // ssh would be led to wherever that job is said to be.
        let asked_for = |one: &Endpoint| job.is_none_or(|job| one.job == job.as_str());
        if !endpoints.iter().all(asked_for) {
            return strange("an endpoint of another job");
        }
        Ok(endpoints)
    }
}

/// Whether everything in it can be shown. A server on the network says what it likes, also what
/// would steer a terminal or be a line of its own.
fn is_plain(endpoint: &Endpoint) -> bool {
    let Endpoint {
        job,
        rule,
        host,
        port: _,
        state,
        reason,
        target,
        since,
    } = endpoint;
    let optional = [rule, reason, target, since];
    let texts = optional.into_iter().flatten().chain([job, state]);
    PublicHost::parse(host).is_some()
        && texts
            .flat_map(|text| text.bytes())
            .all(|byte| matches!(byte, b' '..=b'~'))
}

/// Reads the id of a job from the command line.
pub fn job_id(text: &str) -> Result<JobId, String> {
    JobId::parse(text).ok_or_else(|| "allowed: the id of a job, a UUID with hyphens".to_owned())
}

/// Runs the command.
pub fn run(args: &EndpointsArgs) -> ExitCode {
    let endpoints = match args.asked.endpoints(args.job.as_ref()) {
        Ok(endpoints) => endpoints,
        Err(error) => return output::give_up(&error),
    };
    output::print(&match args.json {
        true => output::json(&Endpoints { endpoints }),
        false => text(&endpoints, &Screen::stdout()),
    })
}

const COLUMNS: [Column; 6] = [
    Column::new("JOB", Align::Name, 0),
    Column::new("RULE", Align::Name, 0),
    Column::new("ENDPOINT", Align::Left, 0),
    Column::new("STATE", Align::Left, 0),
    Column::new("TARGET", Align::Left, 2),
    Column::new("SINCE", Align::Left, 1),
];

fn text(endpoints: &[Endpoint], screen: &Screen) -> String {
    let rows: Vec<_> = endpoints.iter().map(row).collect();
    table(&COLUMNS, &rows, screen)
}

fn row(endpoint: &Endpoint) -> [String; 6] {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let at = endpoint.port.map(|port| match endpoint.host.contains(':') {
        true => format!("[{}]:{port}", endpoint.host),
        false => format!("{}:{port}", endpoint.host),
    });
    let state = match &endpoint.reason {
        None => endpoint.state.clone(),
        Some(reason) => format!("{} ({reason})", endpoint.state),
    };
    [
        endpoint.job.clone(),
        text(&endpoint.rule),
        text(&at),
        state,
        text(&endpoint.target),
        text(&endpoint.since),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_job_is_fits_on_a_usual_terminal() {
        let endpoint = Endpoint {
            job: "00000001-0000-4000-8000-000000000000".to_owned(),
            rule: Some("ssh".to_owned()),
            host: "us-east-1.proxy.example.org".to_owned(),
            port: Some(40_000),
            state: "open".to_owned(),
            ..Endpoint::default()
        };
        let text = text(&[endpoint], &Screen::plain(80));
        assert!(
            text.contains(" us-east-1.proxy.example.org:40000  open"),
            "{text}"
        );
    }

    #[test]
    fn an_endpoint_that_would_steer_the_terminal_is_not_shown() {
        let good = Endpoint {
            job: "j".to_owned(),
            rule: Some("ssh".to_owned()),
            host: "p.example.org".to_owned(),
            since: Some("2026-11-23T21:40:11Z".to_owned()),
            ..Endpoint::default()
        };
        assert!(is_plain(&good));
        let evil = [
            Endpoint {
                host: "p\x1b]0;x\x07".to_owned(),
                ..good.clone()
            },
            Endpoint {
                rule: Some("ssh\n ProxyCommand sh".to_owned()),
                ..good.clone()
            },
            Endpoint {
                state: "open\u{9b}2J".to_owned(),
                ..good.clone()
            },
            Endpoint {
                reason: Some("\u{202e}".to_owned()),
                ..good
            },
        ];
        for endpoint in evil {
            assert!(!is_plain(&endpoint), "{endpoint:?}");
        }
    }

    #[test]
    fn an_endpoint_is_told_so_that_it_can_be_copied() {
        let endpoint = Endpoint {
            job: "j".to_owned(),
            rule: Some("ssh".to_owned()),
            host: "2001:db8::1".to_owned(),
            port: Some(40_001),
            state: "open".to_owned(),
            ..Endpoint::default()
        };
        assert_eq!(row(&endpoint)[2], "[2001:db8::1]:40001");
        let waiting = Endpoint {
            port: None,
            state: "waiting".to_owned(),
            reason: Some("no_port".to_owned()),
            ..endpoint
        };
        assert_eq!(row(&waiting)[2..4], ["-", "waiting (no_port)"]);
    }
}
