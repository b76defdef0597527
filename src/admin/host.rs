//! By which names the admin address may be asked.
//!
//! A page in somebody's browser can read what answers under a name of the page's own, and a name can
//! be made to lead to any address, such as loopback. A browser says which name it was, so only those
//! are answered that no stranger can have: addresses, `localhost`, the name of this machine, and those
//! in `admin.hosts`. Whoever says no name is no browser.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use rustix::system::uname;

use super::{Sources, api::error::ApiError};
use crate::host_port::HostPort;

/// Answers only what was asked by a name that is allowed.
pub(super) async fn check(
    State(sources): State<Arc<Sources>>,
    request: Request,
    next: Next,
) -> Response {
    let stated = request.headers().get_all(header::HOST).iter();
    let mut stated = stated.map(|value| value.to_str().unwrap_or_default());
    let target = request.uri().authority().map(Authority::as_str);
    let allowed = |text: &str| {
        let config = sources.config.load();
        let machine = uname();
        is_allowed(text, &config.admin.hosts, machine.nodename().to_bytes())
    };
    match target
        .into_iter()
        .chain(&mut stated)
        .find(|text| !allowed(text))
    {
        None => next.run(request).await,
        Some(refused) => {
            let text = format!(
                "this is not served as {refused:?}; admin.hosts in the configuration lists the names \
                 it may be asked by, beside its addresses"
            );
            ApiError::new(StatusCode::MISDIRECTED_REQUEST, text).into_response()
        }
    }
}

fn is_allowed(stated: &str, hosts: &[String], machine: &[u8]) -> bool {
    let Ok(stated) = HostPort::parse_any(stated) else {
        return false;
    };
    let host = stated.host().to_ascii_lowercase();
    let name = host.strip_suffix('.').unwrap_or(&host);
    stated.ip().is_some()
        || name == "localhost"
        || name.as_bytes().eq_ignore_ascii_case(machine)
        || hosts.iter().any(|host| host == name)
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn addresses_and_own_names_are_allowed_and_a_strangers_names_are_not() {
        let hosts = ["proxy.example.org".to_owned()];
        for (stated, expected) in [
            ("127.0.0.1:9422", true),
            ("192.0.2.1", true),
            ("[::1]:9422", true),
            ("[2001:db8::7]", true),
            ("localhost", true),
            ("LocalHost:9422", true),
            ("Proxy.Example.org:1", true),
            ("proxy.example.org.", true),
            ("gate-1:9422", true),
            ("rebound.example.net:9422", false),
            ("localhost.example.net", false),
            ("127.0.0.1.example.net", false),
            ("example.org", false),
            ("127.0.0.1, rebound.example.net", false),
            ("[127.0.0.1", false),
            ("[fe80::1]:9422", true),
            ("x@localhost", false),
            ("localhost:99999", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(stated, &hosts, b"Gate-1"), expected, "{stated}");
        }
    }
}
