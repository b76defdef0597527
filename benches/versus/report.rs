//! What people and machines read: tables in Markdown, lines of JSON.

use std::{
    fs::{self, File},
    io::{IsTerminal, Write},
    path::Path,
    time::SystemTime,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::{
    meter, network,
    peers::{OWN, Peer},
    sample::{Metric, Sample, Summary, Unit, ratio, summarise},
};

/// What one peer did in one workload.
#[derive(Debug, Default)]
pub struct Results {
    /// The peer, or the peer and a condition.
    pub peer: String,
    /// What each round measured.
    pub rounds: Vec<Sample>,
    /// Why rounds are missing.
    pub failures: Vec<String>,
}

impl Results {
    /// Nothing yet.
    pub fn of(peer: &str) -> Self {
        Self {
            peer: peer.to_owned(),
            ..Self::default()
        }
    }
}

/// Where results go.
pub struct Report {
    json: Option<File>,
}

impl Report {
    /// Starts a report; an existing JSON file is replaced.
    pub fn new(json: Option<&Path>) -> Result<Self> {
        let create =
            |path: &Path| File::create(path).with_context(|| format!("create {}", path.display()));
        Ok(Self {
            json: json.map(create).transpose()?,
        })
    }

    /// Says what is compared with what, on what.
    pub fn run(&mut self, peers: &[Peer]) -> Result<()> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let arguments: Vec<String> = std::env::args()
            .skip(1)
            .filter(|argument| argument != "--bench")
            .collect();
        let command = format!("cargo bench --bench versus -- {}", arguments.join(" "));
        let date = humantime::format_rfc3339_seconds(SystemTime::now());
        let (command, kernel) = (command.trim_end_matches([' ', '-']), kernel.trim());
        let control = network::congestion_control();
        println!(
            "{date}, Linux {kernel}, {cores} cores, {}, TCP {control}",
            processor()
        );
        println!("`{command}`\n");
        let background = meter::background()?;
        if background > 0.1 {
            println!("The machine is not idle: others use {background:.1} of {cores} cores.\n");
        }
        for peer in peers {
            println!("- {}: {}", peer.name(), peer.describe());
        }
        let described: Map<String, Value> = peers
            .iter()
            .map(|peer| (peer.name().to_owned(), peer.describe().into()))
            .collect();
        self.line(json!({
            "kind": "run", "date": date.to_string(), "kernel": kernel, "cores": cores,
            "processor": processor(), "congestion_control": control, "background_cores": background, "command": command, "peers": described,
        }))
    }

    /// One round of one workload.
    pub fn sample(
        &mut self,
        workload: &str,
        peer: &str,
        round: u32,
        sample: &Sample,
    ) -> Result<()> {
        let metrics: Map<String, Value> = sample
            .iter()
            .map(|(metric, value)| (metric.key().to_owned(), json!(value)))
            .collect();
        self.line(json!({
            "kind": "sample", "workload": workload, "peer": peer, "round": round, "metrics": metrics,
        }))
    }

    /// All rounds of one workload: a table.
    pub fn workload(&mut self, name: &str, title: &str, results: &[Results]) -> Result<()> {
        println!("\n### {title} (`{name}`)\n");
        table(results).print();
        for result in results {
            for summary in summarise(&result.rounds) {
                self.line(json!({
                    "kind": "summary", "workload": name, "peer": result.peer,
                    "metric": summary.metric.key(), "median": summary.median,
                    "min": summary.least, "max": summary.most, "rounds": result.rounds.len(),
                }))?;
            }
            for failure in &result.failures {
                println!("\n{}: {failure}", result.peer);
                self.line(json!({
                    "kind": "failure", "workload": name, "peer": result.peer, "error": failure,
                }))?;
            }
        }
        Ok(())
    }

    /// Any other line for machines.
    pub fn line(&mut self, value: Value) -> Result<()> {
        if let Some(file) = &mut self.json {
            writeln!(file, "{value}").context("write the JSON file")?;
        }
        Ok(())
    }
}

/// Says what is going on, in place of what it said before; only to somebody who is watching.
pub fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(
        || "processor unknown".to_owned(),
        |(_, name)| name.trim().to_owned(),
    )
}

/// One row per peer; the last columns compare figures of our own proxy with theirs.
fn table(results: &[Results]) -> Table {
    let summaries: Vec<Vec<Summary>> = results
        .iter()
        .map(|result| summarise(&result.rounds))
        .collect();
    let mut metrics: Vec<Metric> = Vec::new();
    // Without a proxy there are fewer metrics; the longest list has the right order.
    for summary in summaries
        .iter()
        .max_by_key(|s| s.len())
        .into_iter()
        .flatten()
    {
        metrics.push(summary.metric);
    }
    let compared: Vec<Metric> = metrics
        .iter()
        .enumerate()
        .filter(|(column, metric)| {
            *column == 0 || matches!(metric, Metric::ProxyCpu(_) | Metric::Rate(Unit::Gigabyte))
        })
        .map(|(_, metric)| *metric)
        .collect();
    let own = results.iter().find(|result| result.peer == OWN);
    let own = own.filter(|_| results.len() > 1);

    let mut header = vec!["peer".to_owned()];
    header.extend(metrics.iter().map(|metric| metric.title()));
    if own.is_some() {
        header.extend(
            compared
                .iter()
                .map(|metric| format!("÷ {}", metric.short())),
        );
    }
    let mut rows = Vec::new();
    for (result, summaries) in results.iter().zip(&summaries) {
        let mut row = vec![result.peer.clone()];
        for metric in &metrics {
            let summary = summaries.iter().find(|summary| summary.metric == *metric);
            row.push(summary.map_or_else(|| "–".to_owned(), Summary::text));
        }
        if let Some(own) = own {
            row.extend(compared.iter().map(|&metric| {
                let ratio = (result.peer != OWN)
                    .then(|| ratio(&own.rounds, &result.rounds, metric))
                    .flatten();
                ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
            }));
        }
        rows.push(row);
    }
    Table { header, rows }
}

/// A table in Markdown whose columns also line up as text.
pub struct Table {
    /// Titles.
    pub header: Vec<String>,
    /// Cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Self {
        Self {
            header: header.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    /// Prints it.
    pub fn print(&self) {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| &row[column]);
            cells
                .chain([&self.header[column]])
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            println!("| {} |", padded.join(" | "));
        };
        line(&self.header);
        let rule = |(column, width): (usize, &usize)| match column {
            0 => "-".repeat(*width),
            _ => format!("{}:", "-".repeat(width - 1)),
        };
        line(&widths.iter().enumerate().map(rule).collect::<Vec<_>>());
        for row in &self.rows {
            line(row);
        }
    }
}
