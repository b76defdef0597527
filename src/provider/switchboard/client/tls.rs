//! Whom to believe that it is the switchboard, and how to get there.

use std::{io, path::Path, path::PathBuf, sync::Arc, time::Duration};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::base::BaseUrl;
use crate::files;

/// No file of certificates is longer, in bytes: all those of a system take a quarter of a MiB.
const LONGEST: u64 = 16 << 20;

/// How often the kernel asks an idle connection whether it is still there.
const PROBE_EVERY: Duration = Duration::from_secs(30);

/// Why no connection can be trusted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TrustError {
    #[error("ca_file {}: {reason}", path.display())]
    CaFile { path: PathBuf, reason: String },
    #[error("no certificate authority on this system ({0}); set ca_file, or install some")]
    NoRoots(String),
    #[error("TLS: {0}")]
    Library(#[from] rustls::Error),
}

/// Opens connections: HTTP/2 where the server offers it by ALPN, else HTTP/1.1.
pub(super) fn connector(
    base: &BaseUrl,
    ca_file: Option<&Path>,
    connect: Duration,
) -> Result<HttpsConnector<HttpConnector>, TrustError> {
    let roots = match (base.is_secure(), ca_file) {
        (false, None) => RootCertStore::empty(),
        (_, Some(path)) => of_file(path).map_err(|reason| TrustError::CaFile {
            path: path.to_owned(),
            reason,
        })?,
        (true, None) => of_system()?,
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

fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let content = files::read(path, LONGEST).map_err(|error| error.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    match roots.is_empty() {
        true => Err("has no PEM certificate in it".to_owned()),
        false => Ok(roots),
    }
}

fn of_system() -> Result<RootCertStore, TrustError> {
    let mut found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One certificate of a hundred that is of no use is no reason to do without the others.
    match roots.add_parsable_certificates(found.certs) {
        (0, _) => {
            let none = || io::Error::from(io::ErrorKind::NotFound).to_string();
            let error = found.errors.pop().map(|error| error.to_string());
            Err(TrustError::NoRoots(error.unwrap_or_else(none)))
        }
        _ => Ok(roots),
    }
}
