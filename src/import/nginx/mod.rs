//! nginx: the `server` blocks of `stream`.
//!
//! Here is which blocks there are and what of them is read; `directive` and `include` know the language,
//! `server` what one server comes to, `upstream` where it leads. What else nginx does stays with it.

mod directive;
mod include;
mod server;
mod syslog;
mod upstream;
mod values;

use std::path::{Path, PathBuf};

use self::{
    directive::{Directive, parse},
    include::included,
    server::Server,
};
use super::{Around, Import, Kind, Place, Remark, model::Left, text_of, tidy};

/// Reads `paths`, which are whole configurations.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for path in paths {
        let directives = match text_of(path) {
            Ok(text) => parse(&text, path),
            Err(remark) => Err(remark),
        };
        match directives {
            Ok(directives) => {
                let base = path.parent().unwrap_or(Path::new("")).to_owned();
                let directives = included(directives, &base, 0, &mut import.remarks);
                main(&directives, around, &mut import);
            }
            Err(remark) => import.remarks.push(remark),
        }
    }
    let differences = [
        (
            "how sessions end",
            "a target that refuses or resets, an idle session and a refused client are an end of stream in \
             nginx, and a reset here",
        ),
        (
            "a client that has finished sending",
            "nginx closes its session at once unless `proxy_half_close` is on; here it still gets the answer",
        ),
    ];
    if let (Some(path), false) = (paths.first(), import.mappings.is_empty()) {
        let place = Place::whole(path);
        let said = differences.map(|(what, why)| Remark::different(place.clone(), what, why));
        import.remarks.extend(said);
    }
    tidy(&mut import);
    import
}

/// What nobody misses outside of `stream`.
const OF_MAIN: [&str; 14] = [
    "user",
    "worker_processes",
    "worker_rlimit_nofile",
    "worker_cpu_affinity",
    "worker_priority",
    "pid",
    "error_log",
    "events",
    "load_module",
    "daemon",
    "include",
    "env",
    "pcre_jit",
    "timer_resolution",
];

fn main(directives: &[Directive], around: &Around<'_>, import: &mut Import) {
    // A file that is included into `stream` may be given by itself.
    let bare = directives
        .iter()
        .any(|directive| matches!(directive.name(), "server" | "upstream"));
    if bare {
        stream(directives, around, import);
        return;
    }
    for directive in directives {
        syslog::set(directive, import);
        match (directive.name(), &directive.block) {
            ("stream", Some(block)) => stream(block, around, import),
            ("http" | "mail", Some(block)) => {
                let listens = listens(block);
                if !listens.is_empty() {
                    let remark =
                        directive.left_out("only TCP is forwarded, and nothing is looked at");
                    import.remarks.push(remark.instead("leave it to nginx"));
                    import.left.push(Left {
                        place: directive.place.clone(),
                        what: directive.text(),
                        listen: listens,
                    });
                }
            }
            (name, _) if OF_MAIN.contains(&name) => {}
            _ => import
                .remarks
                .push(directive.remark(Kind::Dropped, "it has no counterpart")),
        }
    }
}

/// Where the servers of a block listen.
fn listens(block: &[Directive]) -> Vec<String> {
    let servers = block
        .iter()
        .filter(|directive| directive.name() == "server");
    let inside = servers.flat_map(|server| server.block.iter().flatten());
    let listens = inside.filter(|directive| directive.name() == "listen");
    listens.map(|listen| listen.word(1).to_owned()).collect()
}

fn stream(block: &[Directive], around: &Around<'_>, import: &mut Import) {
    let inside = block
        .iter()
        .flat_map(|directive| directive.block.iter().flatten());
    for directive in block.iter().chain(inside) {
        syslog::set(directive, import);
    }
    let shared: Vec<&Directive> = block
        .iter()
        .filter(|directive| directive.block.is_none())
        .collect();
    for directive in block {
        match directive.name() {
            "server" => {
                let inside = directive.block.as_deref().unwrap_or_default();
                let server = Server {
                    directive,
                    inside,
                    shared: &shared,
                    block,
                    around,
                };
                // Nothing is said of what would have become of one that stays.
                let mut remarks = Vec::new();
                match server.mapping(&mut remarks) {
                    Ok(mapping) => {
                        import.remarks.extend(remarks);
                        let asks = mapping
                            .iter()
                            .any(|mapping| mapping.settings.get("resolve").is_some());
                        if asks && let Some(resolver) = server.given("resolver") {
                            upstream::resolver(resolver, import);
                        }
                        import.mappings.extend(mapping);
                    }
                    Err(blockers) => {
                        import.remarks.extend(blockers);
                        import.left.push(Left {
                            place: directive.place.clone(),
                            what: "server".to_owned(),
                            listen: server
                                .listens()
                                .map(|listen| listen.word(1).to_owned())
                                .collect(),
                        });
                    }
                }
            }
            "upstream" | "map" | "geo" | "split_clients" | "limit_conn_zone" => {}
            name if directive.block.is_some() => {
                let why = format!("{name} has no counterpart");
                import.remarks.push(directive.remark(Kind::Dropped, why));
            }
            _ => {}
        }
    }
}
