//! Looking up where jobs can be reached: at the proxy's own socket, or at lookup listeners of others,
//! whose answers are not taken on trust.

use std::{thread, time::Duration};

use super::client::{ANSWER_WITHIN, Client, ClientError, get_from, with_query};
use crate::{
    admin::api::model::{Absence, Endpoint, EndpointQuery, Endpoints},
    host_port::HostPort,
    provider::switchboard::{JobId, PublicHost},
};

/// Jobs asked for in one request: what fits into the head of one.
const JOBS_AT_ONCE: usize = 50;

/// How often to ask again who is asked too much, and the pause before that.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// How long one may take while there is another to ask.
const NEXT_AFTER: Duration = Duration::from_secs(5);

const PATH: &str = "/api/v1/endpoints";

/// Who is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct LookupArgs {
    #[command(flatten)]
    client: Client,
    /// Ask a proxy's lookup listener (switchboard.lookup) instead: a host and a port.
    ///
    /// Several are asked in this order until one knows where the job is: give the option more than
    /// once, or separate them by commas.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "TML_PROXY_LOOKUP",
        value_delimiter = ',',
        value_parser = server
    )]
    lookup: Vec<HostPort>,
}

impl LookupArgs {
    /// The endpoints of some jobs, or of all where that may be asked.
    pub fn endpoints(&self, jobs: &[JobId]) -> Result<Vec<Endpoint>, ClientError> {
        match (self.lookup.is_empty(), jobs.is_empty()) {
            (true, true) => plain(self.client.get(PATH)?),
            (true, false) => in_parts(jobs, |path| self.client.get(path)),
            (false, true) => Err(ClientError::Usage(
                "--lookup (or TML_PROXY_LOOKUP) tells of jobs whose ids are given, and of no \
                 others: which job?"
                    .to_owned(),
            )),
            (false, false) => self.ask_lookups(jobs),
        }
    }

    /// Asks one after the other about what those before have no open endpoint of.
    fn ask_lookups(&self, jobs: &[JobId]) -> Result<Vec<Endpoint>, ClientError> {
        let mut found: Vec<(&JobId, Vec<Endpoint>)> = Vec::new();
        found.extend(jobs.iter().map(|job| (job, Vec::new())));
        let mut failed = None;
        let mut answered = false;
        for (place, server) in self.lookup.iter().map(HostPort::to_string).enumerate() {
            let is_open = |endpoints: &[Endpoint]| endpoints.iter().any(|one| one.state == "open");
            let missing: Vec<_> = (found.iter())
                .filter(|(_, endpoints)| !is_open(endpoints))
                .map(|(job, _)| (*job).clone())
                .collect();
            if missing.is_empty() {
                break;
            }
            let within = match place + 1 < self.lookup.len() {
                true => NEXT_AFTER,
                false => ANSWER_WITHIN,
            };
            match in_parts(&missing, |path| get_from(&server, path, within)) {
                Ok(endpoints) => {
                    answered = true;
                    for (job, known) in &mut found {
                        let of_job = endpoints.iter().filter(|one| one.job == job.as_str());
                        let news: Vec<_> = of_job.cloned().collect();
                        if worth(&news) > worth(known) {
                            *known = news;
                        }
                    }
                }
                Err(error) => _ = failed.get_or_insert(error),
            }
        }
        let mut found: Vec<_> = found.into_iter().flat_map(|(_, found)| found).collect();
        match failed {
            Some(error) if !answered => return Err(error),
            // Whoever has not answered may know better.
            Some(error) => found.iter_mut().for_each(|one| doubt(one, &error)),
            None => {}
        }
        Ok(found)
    }
}

/// Takes back that there is no such job, as not everybody could be asked.
fn doubt(endpoint: &mut Endpoint, error: &ClientError) {
    if endpoint.absence() == Some(Absence::Unknown) {
        let note = format!("not known where an answer was had, and not everybody answers: {error}");
        endpoint.reason = Some(Absence::NotHeardOf.word().to_owned());
        endpoint.note = Some(note);
    }
}

/// How much an answer about a job says.
fn worth(endpoints: &[Endpoint]) -> u8 {
    let each = endpoints.iter().map(|one| match one.absence() {
        _ if one.state == "open" => 5,
        None => 4,
        Some(Absence::Finished) => 3,
        Some(Absence::NotHeardOf) => 2,
        Some(Absence::Unknown) => 1,
    });
    each.max().unwrap_or_default()
}

/// Asks about so many jobs at a time as one request has room for.
fn in_parts(
    jobs: &[JobId],
    ask: impl Fn(&str) -> Result<Endpoints, ClientError>,
) -> Result<Vec<Endpoint>, ClientError> {
    let mut all = Vec::new();
    for part in jobs.chunks(JOBS_AT_ONCE) {
        let ids: Vec<_> = part.iter().map(JobId::as_str).collect();
        let query = EndpointQuery {
            job: None,
            jobs: Some(ids.join(",")),
        };
        let path = with_query(PATH, &query);
        let mut tries = 1;
        let answer = loop {
            match ask(&path) {
                Err(ClientError::Busy(_)) if tries < BUSY_TRIES => {
                    tries += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                answer => break answer?,
            }
        };
        let endpoints = plain(answer)?;
        // ssh would be led to wherever that job is said to be.
        if !endpoints.iter().all(|one| ids.contains(&&*one.job)) {
            return Err(ClientError::Strange(
                "an endpoint of another job".to_owned(),
            ));
        }
        all.extend(endpoints);
    }
    Ok(all)
}

/// The endpoints of an answer, if they can be shown.
fn plain(answer: Endpoints) -> Result<Vec<Endpoint>, ClientError> {
    let strange = "an endpoint with characters that no job has";
    match answer.endpoints.iter().all(is_plain) {
        true => Ok(answer.endpoints),
        false => Err(ClientError::Strange(strange.to_owned())),
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
        note,
        job_state,
        target,
        since,
        region,
        proxy,
        age_ms: _,
    } = endpoint;
    let optional = [rule, reason, note, job_state, target, since, region, proxy];
    let texts = optional.into_iter().flatten().chain([job, state]);
    PublicHost::parse(host).is_some()
        && texts
            .flat_map(|text| text.bytes())
            .all(|byte| matches!(byte, b' '..=b'~'))
}

/// Reads the address of a lookup listener from the command line.
fn server(text: &str) -> Result<HostPort, String> {
    const EXAMPLE: &str = "a host and a port, such as proxy.example.org:9423";
    match HostPort::parse(text) {
        Ok(server) if server.port().is_none() => Err(format!("no port in it; allowed: {EXAMPLE}")),
        Ok(server) => Ok(server),
        Err(allowed) => Err(format!("allowed: {allowed}; {EXAMPLE}")),
    }
}

pub fn job_id(text: &str) -> Result<JobId, String> {
    JobId::parse(text).ok_or_else(|| "allowed: the id of a job, a UUID with hyphens".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_lookup_without_a_port_is_told_what_is_missing() {
        for text in ["p.example.org:9423", "192.0.2.1:1", "[2001:db8::1]:9423"] {
            assert!(server(text).is_ok(), "{text}");
        }
        let missing = server("p.example.org").expect_err("no port");
        assert!(missing.starts_with("no port in it"), "{missing}");
        for text in ["p:x", "p:0", ":9423", "2001:db8::1:9423", "[p]:", "a b:1"] {
            assert!(server(text).is_err(), "{text}");
        }
    }
}
