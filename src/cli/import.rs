//! `tml-proxy import`: the configuration of another proxy as one of ours.
//!
//! What is written passes `check`: it is read here as `check` reads a file before anybody gets it.

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write},
    net::{IpAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::{code, output};
use crate::{
    config::{Content, Overrides, Source},
    import::{self, Around, From, Import, Kind, Left, Remark},
    os_error::in_words,
    table::Table,
    units,
};

/// Write the configuration of another proxy as one of ours.
///
/// Files and directories are read in the order in which the other proxy reads them. What has no
/// counterpart is said on standard error, a line each: where it stands, why, and what to do instead.
/// If something that forwards would be lost, nothing is written and the exit code is 1.
#[derive(Debug, Clone, clap::Args)]
pub struct ImportArgs {
    /// Files, or directories of files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Whose configuration it is.
    #[arg(long, value_enum, default_value = "haproxy")]
    from: From,
    /// Write what can be, and name the ports that the other proxy has to keep.
    #[arg(long)]
    partial: bool,
    /// Look names up now, and write the addresses they have.
    #[arg(long)]
    resolve: bool,
    /// Write to a file that does not exist yet, not to standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON: the configuration as text, and everything that is said.
    #[arg(long)]
    json: bool,
}

/// What comes of it, for programs.
#[derive(Serialize)]
struct Report<'a> {
    /// Nothing, if something would be lost.
    config: Option<&'a str>,
    remarks: &'a [Remark],
    left: &'a [Left],
    problems: &'a [String],
}

/// Runs the command: exit code 0, or 1 with nothing written.
pub fn run(args: &ImportArgs) -> ExitCode {
    let around = Around {
        variable: &|name| env::var(name).ok(),
        resolve: args.resolve.then_some(&first_address),
    };
    let import = args.from.read(&args.files, &around);
    let text = import::toml(&import, &head(args));
    let mut problems = problems(args, &import, &text);
    let mut code = match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(code::REFUSED),
    };
    let config = problems.is_empty().then_some(text.as_str());
    if let (Some(text), Some(path)) = (config, &args.output)
        && let Err(error) = write(path, text)
    {
        problems.push(format!("{}: {}", path.display(), in_words(&error)));
        code = ExitCode::from(code::FAILED);
    }
    if args.json {
        let report = Report {
            config,
            remarks: &import.remarks,
            left: &import.left,
            problems: &problems,
        };
        return output::print_one(&output::json(&report)).unwrap_or(code);
    }
    for remark in &import.remarks {
        output::complain(remark);
    }
    for left in &import.left {
        let Left {
            place,
            what,
            listen,
        } = left;
        let (listen, name) = (listen.join(", "), args.from.name());
        output::complain(&format_args!("{place}: left to {name}: {what}: {listen}"));
    }
    for problem in &problems {
        output::complain(problem);
    }
    match (config, &args.output) {
        (Some(text), None) => output::print(text),
        _ => code,
    }
}

/// Writes a file that does not exist yet.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

/// The first line of what is written.
fn head(args: &ImportArgs) -> String {
    let files: Vec<String> = args
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    format!("From {} by tml-proxy import.", files.join(", "))
}

/// Why nothing is written.
fn problems(args: &ImportArgs, import: &Import, text: &str) -> Vec<String> {
    let of_kind = |kind| {
        import
            .remarks
            .iter()
            .filter(|remark| remark.kind == kind)
            .count()
    };
    let invalid = of_kind(Kind::Invalid);
    if invalid > 0 {
        let lines = counted(invalid, "line");
        return vec![format!("nothing is written: {lines} above not valid")];
    }
    let left = import
        .left
        .len()
        .max(usize::from(of_kind(Kind::LeftOut) > 0));
    if left > 0 && !args.partial {
        let name = args.from.name();
        return vec![format!(
            "nothing is written: {} would be lost; --partial writes the others, for {name} beside tml-proxy",
            counted(left, "front end"),
        )];
    }
    if import.mappings.is_empty() {
        return vec!["nothing is written: nothing in it forwards TCP".to_owned()];
    }
    let result = Source::File(PathBuf::from("the result"));
    let content = Content::File(Ok(text.as_bytes().to_vec()));
    match result.understand(content, &Overrides::default(), &Table::default()) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            let mut problems = vec![errors.to_string()];
            problems.push("nothing is written: this machine could not run the result".to_owned());
            problems
        }
    }
}

fn counted(number: usize, what: &str) -> String {
    units::count(number as u64, what)
}

/// The first address of a name, as HAProxy takes it: IPv4 where there is one.
fn first_address(name: &str) -> Option<IpAddr> {
    let addresses: Vec<IpAddr> = (name, 0)
        .to_socket_addrs()
        .ok()?
        .map(|address| address.ip())
        .collect();
    let v4 = addresses.iter().find(|ip| ip.is_ipv4());
    v4.or(addresses.first()).copied()
}
