//! `tml-proxy endpoints`: where jobs of the switchboard can be reached.

use std::process::ExitCode;

use super::{
    code,
    lookup::{LookupArgs, job_id},
    output::{self, Align, Column, Screen, at, or_dash, table},
};
use crate::{
    admin::api::model::{Endpoint, Endpoints},
    provider::switchboard::JobId,
    units::duration_ms,
};

/// List where jobs of the switchboard can be reached.
#[derive(Debug, Clone, clap::Args)]
pub struct EndpointsArgs {
    #[command(flatten)]
    lookup: LookupArgs,
    /// Only those of the job with this id.
    #[arg(long, value_name = "ID", value_parser = job_id)]
    job: Option<JobId>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &EndpointsArgs) -> ExitCode {
    let endpoints = match args.lookup.endpoints(args.job.as_slice()) {
        Ok(endpoints) => endpoints,
        Err(error) => return output::give_up(&error, args.json),
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
    let absence = one.absence()?;
    let why = one.note.as_deref().unwrap_or(absence.word());
    Some(format!("{job}: {why}"))
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

/// The same of several proxies.
const FLEET_COLUMNS: [Column; 8] = [
    Column::new("JOB", Align::Name, 0),
    Column::new("RULE", Align::Name, 0),
    Column::new("ENDPOINT", Align::Left, 0),
    Column::new("STATE", Align::Left, 0),
    Column::new("REGION", Align::Left, 0),
    Column::new("PROXY", Align::Left, 1),
    Column::new("TARGET", Align::Left, 3),
    Column::new("HEARD", Align::Left, 2),
];

fn text(endpoints: &[Endpoint], screen: &Screen) -> String {
    if endpoints.iter().any(|one| one.proxy.is_some()) {
        return table(&FLEET_COLUMNS, endpoints.iter().map(fleet_row), screen);
    }
    table(&COLUMNS, endpoints.iter().map(row), screen)
}

fn fleet_row(endpoint: &Endpoint) -> [String; 8] {
    let [job, rule, at, state, target, _since] = row(endpoint);
    let heard = endpoint.age_ms.map(duration_ms);
    [
        job,
        rule,
        at,
        state,
        or_dash(endpoint.region.as_ref()),
        or_dash(endpoint.proxy.as_ref()),
        target,
        or_dash(heard.map(|age| format!("{age} ago"))),
    ]
}

fn row(endpoint: &Endpoint) -> [String; 6] {
    let at = endpoint.port.map(|port| at(&endpoint.host, port));
    [
        endpoint.job.clone(),
        or_dash(endpoint.rule.as_ref()),
        or_dash(at),
        state(endpoint),
        or_dash(endpoint.target.as_ref()),
        or_dash(endpoint.since.as_ref()),
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
}
