//! Whom to believe that it is the switchboard, and how to get there.

use std::{path::Path, sync::Arc, time::Duration};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};

use super::base::BaseUrl;
use crate::tls_roots;
pub use crate::tls_roots::TrustError;

/// How often the kernel asks an idle connection whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(30);

/// Opens connections: HTTP/2 where the server offers it by ALPN, else HTTP/1.1.
pub(super) fn connector(
    base: &BaseUrl,
    ca_file: Option<&Path>,
    connect: Duration,
) -> Result<HttpsConnector<HttpConnector>, TrustError> {
    let roots = match (base.is_secure(), ca_file) {
        (false, None) => RootCertStore::empty(),
        (_, Some(path)) => tls_roots::of_file(path)?,
        (true, None) => tls_roots::of_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(connect));
    tcp.set_keepalive(Some(PROBE_EVERY));
    tcp.set_nodelay(true);
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(tcp))
}
