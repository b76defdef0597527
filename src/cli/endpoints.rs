//! `tml-proxy endpoints`: where jobs of the switchboard can be reached, and asking for it.

use std::{process::ExitCode, thread, time::Duration};

use super::{
    client::{ANSWER_WITHIN, Client, ClientError, get_from},
    code,
    output::{self, Align, Column, Screen, table},
};
use crate::{
    admin::api::model::{Endpoint, Endpoints},
    host_port::HostPort,
    provider::switchboard::{JobId, PublicHost},
    text::in_query,
};

/// Jobs asked for in one request: what fits into the head of one.
const JOBS_AT_ONCE: usize = 50;

/// How often to ask again who is asked too much, and the pause before that.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_secs(1);

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

impl Asked {
    /// The endpoints of some jobs, or of all where that may be asked.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn endpoints(&self, jobs: &[JobId]) -> Result<Vec<Endpoint>, ClientError> {
        match (self.lookup.is_empty(), jobs.is_empty()) {
            (true, true) => {
                let all: Endpoints = self.client.get("/api/v1/endpoints")?;
                plain(all)
            }
            (true, false) => in_parts(jobs, |part| self.client.get(&path(part))),
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
        let mut found: Vec<Vec<Endpoint>> = vec![Vec::new(); jobs.len()];
        let mut failed = None;
        let mut answered = false;
        for server in &self.lookup {
            let server = server.to_string();
            let open = |place: &usize| found[*place].iter().any(|one| one.state == "open");
            let missing: Vec<_> = (0..jobs.len()).filter(|place| !open(place)).collect();
            if missing.is_empty() {
                break;
            }
            let wanted: Vec<_> = missing.iter().map(|place| jobs[*place].clone()).collect();
            let answer = in_parts(&wanted, |part| {
                get_from(&server, &path(part), ANSWER_WITHIN)
            });
            let endpoints = match answer {
                Ok(endpoints) => endpoints,
                Err(error) => {
                    failed.get_or_insert(error);
                    continue;
                }
            };
            answered = true;
            for place in missing {
                let of_job = |one: &&Endpoint| one.job == jobs[place].as_str();
                let news: Vec<_> = endpoints.iter().filter(of_job).cloned().collect();
                if worth(&news) > worth(&found[place]) {
                    found[place] = news;
                }
            }
        }
        let mut found: Vec<_> = found.into_iter().flatten().collect();
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
    if endpoint.reason.as_deref() == Some("unknown") {
        let note = format!("not known where an answer was had, and not everybody answers: {error}");
        endpoint.reason = Some("not_heard_of".to_owned());
        endpoint.note = Some(note);
    }
}

/// How much an answer about a job says.
fn worth(endpoints: &[Endpoint]) -> u8 {
    let each = endpoints.iter().map(|one| {
        match (&*one.state, one.reason.as_deref().unwrap_or_default()) {
            ("open", _) => 5,
            (_, "finished") => 3,
            (_, "not_heard_of") => 2,
            (_, "unknown") => 1,
            _ => 4,
        }
    });
    each.max().unwrap_or_default()
}

fn path(jobs: &[JobId]) -> String {
    let ids: Vec<_> = jobs.iter().map(JobId::as_str).collect();
    format!("/api/v1/endpoints?jobs={}", in_query(&ids.join(",")))
}

/// Asks about so many jobs at a time as one request has room for.
fn in_parts(
    jobs: &[JobId],
    ask: impl Fn(&[JobId]) -> Result<Endpoints, ClientError>,
) -> Result<Vec<Endpoint>, ClientError> {
    let mut all = Vec::new();
    for part in jobs.chunks(JOBS_AT_ONCE) {
        let mut tries = 1;
        let answer = loop {
            match ask(part) {
                Err(ClientError::Busy(_)) if tries < BUSY_TRIES => {
                    tries += 1;
                    thread::sleep(BUSY_PAUSE);
                }
                answer => break answer?,
            }
        };
        let endpoints = plain(answer)?;
        // ssh would be led to wherever that job is said to be.
        let asked_for = |one: &Endpoint| part.iter().any(|job| one.job == job.as_str());
        if !endpoints.iter().all(asked_for) {
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
    } = endpoint;
    let optional = [rule, reason, note, job_state, target, since];
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

/// Reads the id of a job from the command line.
pub fn job_id(text: &str) -> Result<JobId, String> {
    JobId::parse(text).ok_or_else(|| "allowed: the id of a job, a UUID with hyphens".to_owned())
}

/// Runs the command.
pub fn run(args: &EndpointsArgs) -> ExitCode {
    let endpoints = match args.asked.endpoints(args.job.as_slice()) {
        Ok(endpoints) => endpoints,
        Err(error) => return output::give_up(&error),
    };
    let job = args.job.as_ref();
    let absence = job.and_then(|job| absence(&endpoints, job));
    let printed = match (&absence, args.json) {
        (_, true) => output::print(&output::json(&Endpoints { endpoints })),
        (None, false) => output::print(&text(&endpoints, &Screen::stdout())),
        (Some(why), false) => {
            output::complain(&format_args!("tml-proxy: {why}"));
            ExitCode::SUCCESS
        }
    };
    match (printed, absence) {
        (ExitCode::SUCCESS, Some(_)) => ExitCode::from(code::REFUSED),
        (code, _) => code,
    }
}

/// Why nothing is known of a job, if nothing is.
pub(super) fn absence(endpoints: &[Endpoint], job: &JobId) -> Option<String> {
    let Some(one) = endpoints.iter().find(|one| one.job == job.as_str()) else {
        return Some(format!("{job}: there is no such job"));
    };
    let reason = one.reason.as_deref().unwrap_or_default();
    let absent = matches!(reason, "finished" | "not_heard_of" | "unknown");
    absent.then(|| format!("{job}: {}", one.note.as_deref().unwrap_or(reason)))
}

/// The state of an endpoint, and why it is not open.
pub(super) fn state(endpoint: &Endpoint) -> String {
    match endpoint.note.as_ref().or(endpoint.reason.as_ref()) {
        None => endpoint.state.clone(),
        Some(why) => format!("{} ({why})", endpoint.state),
    }
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
    [
        endpoint.job.clone(),
        text(&endpoint.rule),
        text(&at),
        state(endpoint),
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
        let starting = Endpoint {
            state: "closed".to_owned(),
            reason: Some("state".to_owned()),
            note: Some("job is initializing".to_owned()),
            ..waiting
        };
        assert_eq!(row(&starting)[3], "closed (job is initializing)");
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
