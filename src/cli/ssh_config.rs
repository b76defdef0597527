//! `tml-proxy ssh-config`: jobs as hosts of ssh.

use std::{collections::HashMap, process::ExitCode};

use super::{
    code,
    lookup::{LookupArgs, job_id},
    output,
    ssh::{SshEndpoint, absent, host_key_alias},
};
use crate::{admin::api::model::Endpoint, fleet::FleetName, provider::switchboard::JobId};

/// Print how to reach jobs, for ssh's configuration.
///
/// One Host block a job, named by its id; `ssh ID`, `scp` and `rsync` then work. Without jobs, every
/// job of the running proxy is printed. A job that cannot be reached is named on standard error with
/// why, those that can are printed all the same, and the exit code is 1.
#[derive(Debug, Clone, clap::Args)]
pub struct SshConfigArgs {
    #[command(flatten)]
    lookup: LookupArgs,
    /// The rule that leads to the ssh server.
    #[arg(long, value_name = "NAME", default_value = "ssh")]
    rule: String,
    /// The ids of the jobs.
    #[arg(value_name = "JOB", value_parser = job_id)]
    jobs: Vec<JobId>,
}

/// The code says whether there is a block for every job that was asked for.
pub fn run(args: &SshConfigArgs) -> ExitCode {
    let endpoints = match args.lookup.endpoints(&args.jobs) {
        Ok(endpoints) => endpoints,
        Err(error) => return output::give_up(&error, false),
    };
    let rule = |endpoint: &&Endpoint| endpoint.rule.as_deref() == Some(&*args.rule);
    let mut blocks = String::new();
    let mut missing = false;
    if args.jobs.is_empty() {
        let mut known = HashMap::new();
        for endpoint in endpoints.iter().filter(rule) {
            let number: &mut usize = known.entry(&endpoint.job).or_default();
            if let Some(block) = block(endpoint, *number > 0) {
                blocks.push_str(&block);
                *number += 1;
            }
        }
    }
    for job in &args.jobs {
        let of_job = |endpoint: &&Endpoint| endpoint.job == job.as_str();
        let before = blocks.len();
        for endpoint in endpoints.iter().filter(of_job).filter(rule) {
            let block = block(endpoint, blocks.len() > before);
            blocks.push_str(&block.unwrap_or_default());
        }
        if blocks.len() == before {
            missing = true;
            let why = absent(&endpoints, job, &args.rule);
            output::complain(&format_args!("tml-proxy: {why}"));
        }
    }
    match output::print(&blocks) {
        ExitCode::SUCCESS if missing => ExitCode::from(code::REFUSED),
        code => code,
    }
}

/// The block of an endpoint. In a fleet the nearest has the name of the job alone, and the `further` ones
/// have that of their proxy behind it.
fn block(endpoint: &Endpoint, further: bool) -> Option<String> {
    let job = JobId::parse(&endpoint.job)?;
    let SshEndpoint { host, port } = SshEndpoint::of(endpoint)?;
    let alias = host_key_alias(job.as_str());
    let name = match (&endpoint.proxy, further) {
        (_, false) => job.to_string(),
        (proxy, true) => format!("{job}.{}", FleetName::parse(proxy.as_deref()?)?),
    };
    Some(format!(
        "Host {name}\n    HostName {host}\n    Port {port}\n    HostKeyAlias {alias}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_names_the_job_and_keeps_its_host_key_apart() {
        let job = "00000001-0000-4000-8000-000000000000";
        let endpoint = Endpoint {
            job: job.to_owned(),
            host: "p.example.org".to_owned(),
            port: Some(40_001),
            state: "open".to_owned(),
            ..Endpoint::default()
        };
        let expected = format!(
            "Host {job}\n    HostName p.example.org\n    Port 40001\n    HostKeyAlias job-{job}\n"
        );
        assert_eq!(block(&endpoint, false), Some(expected));
        let elsewhere = Endpoint {
            proxy: Some("eu-1".to_owned()),
            ..endpoint.clone()
        };
        let further = block(&elsewhere, true).expect("it is one");
        assert!(
            further.starts_with(&format!("Host {job}.eu-1\n")),
            "{further}"
        );
        assert_eq!(block(&endpoint, true), None);
        let evil = Endpoint {
            job: "x\nProxyCommand sh".to_owned(),
            ..endpoint
        };
        assert_eq!(block(&evil, false), None);
    }
}
