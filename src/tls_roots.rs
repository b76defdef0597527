//! Whose certificates are believed: those of authorities that the system trusts, or that a file names.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::files;

/// No file of certificates is longer, in bytes: all those of a system take a quarter of a MiB.
const LONGEST: u64 = 16 << 20;

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

/// Those of a file.
///
/// # Errors
///
/// It gives none.
pub(crate) fn of_file(path: &Path) -> Result<RootCertStore, TrustError> {
    read(path).map_err(|reason| TrustError::CaFile {
        path: path.to_owned(),
        reason,
    })
}

fn read(path: &Path) -> Result<RootCertStore, String> {
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

/// Those of the system.
///
/// # Errors
///
/// There are none.
pub(crate) fn of_system() -> Result<RootCertStore, TrustError> {
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
