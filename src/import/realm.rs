//! realm: `[[endpoints]]` in TOML.
//!
//! Other formats it reads, such as JSON, are not read here. UDP is not looked for: what forwards TCP does.

use std::{net::IpAddr, path::PathBuf};

use toml::de::{DeTable, DeValue};

use super::{
    Around, Import, Place, Remark, address,
    forward::{Forward, leave, texts},
    model::{Settings, Value},
    tidy,
};

/// Reads `paths`.
pub fn read(paths: &[PathBuf], around: &Around<'_>) -> Import {
    let mut import = Import::default();
    for (path, text) in texts(paths, &mut import) {
        let file = Place::whole(path);
        let line = |offset: usize| text[..offset.min(text.len())].lines().count().max(1);
        let table = match DeTable::parse(&text) {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(1, |span| line(span.start + 1));
                import.remarks.push(Remark::invalid(
                    file.at(at),
                    "this file",
                    error.message().to_owned(),
                ));
                continue;
            }
        };
        let endpoints = table.get_ref().get("endpoints").map(|list| list.get_ref());
        let Some(DeValue::Array(endpoints)) = endpoints else {
            import.remarks.push(Remark::invalid(
                file.clone(),
                "this file",
                "it has no [[endpoints]]",
            ));
            continue;
        };
        for endpoint in endpoints.iter() {
            let place = file.at(line(endpoint.span().start + 1));
            let word = |key: &str| {
                endpoint
                    .get_ref()
                    .get(key)
                    .and_then(|value| value.get_ref().as_str())
            };
            let (listen, remote) = (
                word("listen").unwrap_or_default(),
                word("remote").unwrap_or_default(),
            );
            let text = format!("{listen} to {remote}");
            let left_out = |why: &str| {
                Remark::left_out(place.clone(), &text, why).instead("leave it to realm")
            };
            let blocker = [
                "extra_remotes",
                "listen_transport",
                "remote_transport",
                "interface",
                "listen_interface",
            ];
            let given = blocker
                .into_iter()
                .find(|key| endpoint.get_ref().get(key).is_some());
            if let Some(key) = given {
                leave(
                    left_out(&format!("{key} has no counterpart")),
                    listen.to_owned(),
                    &mut import,
                );
                continue;
            }
            let (Some((host, port)), Some((target, target_port))) =
                (address::split(listen), address::split(remote))
            else {
                leave(left_out("it has no port"), listen.to_owned(), &mut import);
                continue;
            };
            let mut settings = Settings::default();
            settings.set("connect_timeout", Value::text("5s"), Vec::new());
            if let Some(through) = word("through") {
                let ip = through
                    .parse::<IpAddr>()
                    .ok()
                    .or_else(|| address::ip(address::split(through)?.0, around));
                match ip {
                    Some(ip) => settings.set("bind", Value::Text(ip.to_string()), Vec::new()),
                    None => {
                        leave(
                            left_out("through is no address"),
                            listen.to_owned(),
                            &mut import,
                        );
                        continue;
                    }
                }
            }
            Forward {
                place: place.clone(),
                text: text.clone(),
                name: format!("port-{port}"),
                comments: Vec::new(),
                host,
                dual: true,
                port,
                target,
                target_port,
                settings,
            }
            .add(around, &mut import);
        }
    }
    tidy(&mut import);
    import
}
