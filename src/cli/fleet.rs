//! `tml-proxy fleet`: the proxies that share a database, and what is done to that.

use std::{path::PathBuf, process::ExitCode};

use serde_json::json;

use super::{
    client::Client,
    code,
    output::{self, Align, Column, Screen, at, or_dash, table},
};
use crate::{
    admin::api::model::{Fleet, FleetMapping, FleetProxy, FleetRegion},
    config::{Config, Overrides, Source},
    fleet::{self, Access, DatabaseUrl, Deed, FleetName, Migrated, SchemaError},
    table::Table,
    units::duration_ms,
};

/// List the proxies that share a database, or change what the database has of them.
///
/// Without a command, the running proxy is asked. The commands ask the database themselves.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FleetArgs {
    #[command(subcommand)]
    command: Option<FleetCommand>,
    #[command(flatten)]
    client: Client,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum FleetCommand {
    Migrate(MigrateArgs),
    /// Keep a proxy from taking part: it cannot register until it is restored.
    Remove(ProxyArgs),
    /// Let a proxy that was removed take part again, as whichever role is first to use its name.
    Restore(ProxyArgs),
}

/// Make the schema of the database, or bring it up to date.
///
/// It is done as a whole or not at all. Proxies that serve do without the fleet until it is.
#[derive(Debug, Clone, clap::Args)]
struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The role that proxies have, which is given the rights it needs; without it, that of
    /// fleet.database in the configuration.
    #[arg(long, value_name = "ROLE")]
    grant: Option<String>,
}

/// A proxy of the fleet.
#[derive(Debug, Clone, clap::Args)]
struct ProxyArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The name of the proxy.
    #[arg(value_name = "PROXY", value_parser = proxy)]
    proxy: FleetName,
}

/// The database, and as whom to ask it.
#[derive(Debug, Clone, clap::Args)]
struct DatabaseArgs {
    /// A configuration file with a [fleet].
    #[arg(long, value_name = "FILE", required_unless_present = "database")]
    config: Option<PathBuf>,
    /// The database, as the role that owns the schema; without it, fleet.database.
    #[arg(long, value_name = "URL", value_parser = url)]
    database: Option<DatabaseUrl>,
    /// The file with that role's password; without it, fleet.password_file, unless there is --database.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The file with the certificates to trust; without it, fleet.ca_file.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn proxy(text: &str) -> Result<FleetName, &'static str> {
    FleetName::try_from(text.to_owned())
}

fn url(text: &str) -> Result<DatabaseUrl, String> {
    DatabaseUrl::parse(text).map_err(|error| error.to_string())
}

pub fn run(args: &FleetArgs) -> ExitCode {
    match &args.command {
        None => {
            let fleet = args.client.get("/api/v1/fleet");
            output::answer(fleet, args.json, |fleet| text(fleet, &Screen::stdout()))
        }
        Some(FleetCommand::Migrate(args)) => migrate(args),
        Some(FleetCommand::Remove(args)) => carry_out(args, Deed::Remove),
        Some(FleetCommand::Restore(args)) => carry_out(args, Deed::Restore),
    }
}

impl DatabaseArgs {
    /// The fleet of the configuration, if one is named.
    fn configured(&self) -> Result<Option<fleet::Fleet>, ExitCode> {
        let Some(path) = &self.config else {
            return Ok(None);
        };
        let source = Source::File(path.clone());
        let loaded = source.load(&Overrides::default(), &Table::default());
        let refuse = |why: &dyn std::fmt::Display| output::refuse(why, self.json, code::REFUSED);
        let (Config { fleet, .. }, _) = loaded.map_err(|errors| refuse(&errors))?;
        if fleet.is_none() {
            let why = format!("{}: there is no [fleet] in it", path.display());
            return Err(refuse(&why));
        }
        Ok(fleet)
    }

    fn access(&self, configured: Option<&fleet::Fleet>) -> Result<Access, ExitCode> {
        let of_file = configured.map(fleet::Fleet::access);
        let url = self.database.clone();
        let url = url.or_else(|| of_file.as_ref().map(|access| access.url.clone()));
        let Some(url) = url else {
            let why = "which database? --config or --database";
            return Err(output::refuse(&why, self.json, code::USAGE));
        };
        let is_own = self.database.is_none();
        let of_file = of_file.as_ref();
        let password_file = of_file
            .filter(|_| is_own)
            .and_then(|file| file.password_file.clone());
        let ca_file = of_file.and_then(|file| file.ca_file.clone());
        Ok(Access {
            url,
            password_file: self.password_file.clone().or(password_file),
            ca_file: self.ca_file.clone().or(ca_file),
        })
    }

    /// Asks the database; what is wrong has been said if nothing comes of it.
    fn ask<T>(&self, work: impl Future<Output = Result<T, SchemaError>>) -> Result<T, ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let done = match runtime {
            Ok(runtime) => runtime.block_on(work),
            Err(error) => return Err(output::refuse(&error, self.json, code::FAILED)),
        };
        done.map_err(|error| output::refuse(&error, self.json, code::REFUSED))
    }
}

fn migrate(args: &MigrateArgs) -> ExitCode {
    let database = &args.database;
    let migrated = database.configured().and_then(|configured| {
        let access = database.access(configured.as_ref())?;
        let of_file = configured.map(|fleet| fleet.database.user);
        let role = args.grant.clone().or(of_file);
        // Whoever owns the schema may do everything with it.
        let role = role.filter(|role| *role != access.url.user);
        let migrated = database.ask(fleet::migrate(&access, role.as_deref()))?;
        Ok((migrated, role))
    });
    let (Migrated { from, to }, role) = match migrated {
        Ok(migrated) => migrated,
        Err(code) => return code,
    };
    if database.json {
        return output::print(&output::json(
            &json!({ "from": from, "to": to, "role": role }),
        ));
    }
    let mut text = match from {
        0 => format!("made the schema tml_proxy, version {to}\n"),
        _ if from == to => format!("the schema has version {to} already\n"),
        _ => format!("brought the schema from version {from} to {to}\n"),
    };
    if let Some(role) = role {
        text.push_str(&format!("the role {role:?} may take part\n"));
    }
    output::print(&text)
}

fn carry_out(args: &ProxyArgs, deed: Deed) -> ExitCode {
    let ProxyArgs { database, proxy } = args;
    let done = database.configured().and_then(|configured| {
        let access = database.access(configured.as_ref())?;
        database.ask(fleet::carry_out(&access, deed, proxy.as_str()))
    });
    let state = match deed {
        Deed::Remove => "removed",
        Deed::Restore => "restored",
    };
    match done {
        Err(code) => code,
        Ok(false) => {
            let why = format!("the database knows no proxy {proxy}");
            output::refuse(&why, database.json, code::REFUSED)
        }
        Ok(true) if database.json => {
            output::print(&output::json(&json!({ "proxy": proxy, "state": state })))
        }
        Ok(true) => output::print(&format!("{proxy} {state}\n")),
    }
}

const COLUMNS: [Column; 9] = [
    Column::new("PROXY", Align::Name, 0),
    Column::new("REGION", Align::Left, 0),
    Column::new("STATE", Align::Left, 0),
    Column::new("ROLE", Align::Left, 1),
    Column::new("HEARD", Align::Left, 0),
    Column::new("SESSIONS", Align::Right, 1),
    Column::new("READ", Align::Right, 2),
    Column::new("PORTS", Align::Right, 1),
    Column::new("VERSION", Align::Left, 3),
];

const REGION_COLUMNS: [Column; 8] = [
    Column::new("REGION", Align::Name, 0),
    Column::new("LEADER", Align::Left, 0),
    Column::new("GENERATION", Align::Right, 1),
    Column::new("USED", Align::Right, 0),
    Column::new("FREE", Align::Right, 0),
    Column::new("COOLING", Align::Right, 0),
    Column::new("BLOCKED", Align::Right, 0),
    Column::new("RESERVED", Align::Right, 1),
];

const MAPPING_COLUMNS: [Column; 6] = [
    Column::new("MAPPING", Align::Name, 0),
    Column::new("ENDPOINT", Align::Left, 0),
    Column::new("STATE", Align::Left, 1),
    Column::new("REGION", Align::Left, 2),
    Column::new("PROXY", Align::Left, 0),
    Column::new("TARGET", Align::Left, 0),
];

fn text(fleet: &Fleet, screen: &Screen) -> String {
    let Some(membership) = &fleet.membership else {
        return "there is no [fleet] in the configuration\n".to_owned();
    };
    let mut text = format!("{}\n\n", membership.in_words());
    let rows = fleet.proxies.iter().map(|proxy| row(proxy, &fleet.regions));
    text.push_str(&table(&COLUMNS, rows, screen));
    if !fleet.regions.is_empty() {
        let rows = fleet.regions.iter().map(region_row);
        text.push('\n');
        text.push_str(&table(&REGION_COLUMNS, rows, screen));
        for region in fleet.regions.iter().filter(|region| !region.settled) {
            text.push_str(&format!(
                "{}: the database has lost changes, and no job gets a port until every proxy has told what it \
                 serves\n",
                region.region
            ));
        }
    }
    if !fleet.mappings.is_empty() {
        let rows = fleet.mappings.iter().map(mapping_row);
        text.push('\n');
        text.push_str(&table(&MAPPING_COLUMNS, rows, screen));
    }
    text
}

/// How far one generation is behind another.
fn behind(generation: u64, reached: u64) -> String {
    match generation.saturating_sub(reached) {
        0 => "all".to_owned(),
        behind => format!("{behind} behind"),
    }
}

fn row(proxy: &FleetProxy, regions: &[FleetRegion]) -> [String; 9] {
    let region = regions.iter().find(|one| one.region == proxy.region);
    let applied = region.zip(proxy.ports_applied);
    [
        proxy.proxy.clone(),
        proxy.region.clone(),
        proxy.state.clone(),
        or_dash(proxy.role.as_ref()),
        format!("{} ago", duration_ms(proxy.age_ms)),
        proxy.sessions.to_string(),
        behind(proxy.generation, proxy.generation_read),
        or_dash(applied.map(|(region, applied)| behind(region.generation, applied))),
        proxy.version.clone(),
    ]
}

fn region_row(region: &FleetRegion) -> [String; 8] {
    [
        region.region.clone(),
        or_dash(region.leader.as_ref()),
        region.generation.to_string(),
        or_dash(region.used),
        or_dash(region.free),
        or_dash(region.cooling),
        or_dash(region.blocked),
        or_dash(region.reserved),
    ]
}

fn mapping_row(mapping: &FleetMapping) -> [String; 6] {
    let last = mapping.last_port.map(|last| format!("-{last}"));
    [
        mapping.mapping.clone(),
        at(&mapping.host, mapping.port) + &last.unwrap_or_default(),
        mapping.state.clone(),
        mapping.region.clone(),
        mapping.proxy.clone(),
        mapping.target.clone(),
    ]
}
