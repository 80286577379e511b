//! TLS: one provider and one cipher for all.
//!
//! The server offers TLS 1.3 with AES-128-GCM and nothing else, so that a client that comes with its
//! own configuration ends up with the same cipher.

use crate::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// aws-lc-rs, reduced to TLS 1.3 with AES-128-GCM.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    }
}

/// For clients that take a rustls configuration: trusts the certificate in `ca` and nothing else.
///
/// # Errors
/// The file cannot be read or is not a certificate.
pub fn client_config(ca: &Path, resumption: bool) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    if !resumption {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// The files of an authority made for one run.
pub const CA_FILE: &str = "ca.pem";
const CHAIN_FILE: &str = "server.pem";
const KEY_FILE: &str = "server.key";

/// Makes an authority and a certificate for `localhost` and 127.0.0.1, and writes them to `folder`.
///
/// # Errors
/// The files cannot be written.
pub fn write_certificates(folder: &Path) -> Result<()> {
    let mut params = CertificateParams::new(vec![])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    fs::write(folder.join(CA_FILE), authority.pem())?;
    fs::write(folder.join(CHAIN_FILE), certificate.pem())?;
    fs::write(folder.join(KEY_FILE), key.serialize_pem())?;
    Ok(())
}

/// The server's, from the files in `folder`. It takes sessions up again if a client wants that.
///
/// # Errors
/// [`write_certificates`] was not there before.
pub fn server_config(folder: &Path) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(folder.join(CHAIN_FILE))?
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join(KEY_FILE))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}
