//! Certificates made for the test run, and the servers' side of TLS, by rustls' buffered API.

use super::server::Stream;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::net::TcpStream;
use std::sync::{Arc, LazyLock};
use websockex::TlsConfig;

/// A certificate with its key, both as PEM text.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Self { issuer }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// The authority that the tests' clients trust.
pub(crate) static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);

static SERVER: LazyLock<Arc<ServerConfig>> =
    LazyLock::new(|| server_config_for(&AUTHORITY.issue(&["localhost", "127.0.0.1", "::1"])));

static CLIENT: LazyLock<TlsConfig> = LazyLock::new(|| {
    TlsConfig::builder()
        .root_certificates_pem(AUTHORITY.pem().as_bytes())
        .and_then(websockex::TlsConfigBuilder::build)
        .expect("a configuration")
});

pub(crate) fn server_config() -> Arc<ServerConfig> {
    Arc::clone(&SERVER)
}

pub(crate) fn client_config() -> TlsConfig {
    CLIENT.clone()
}

fn parts(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    (chain, key)
}

fn builder() -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
}

pub(crate) fn server_config_for(identity: &Identity) -> Arc<ServerConfig> {
    let (chain, key) = parts(identity);
    let config = builder().with_no_client_auth().with_single_cert(chain, key);
    Arc::new(config.expect("a configuration"))
}

/// A server that puts sessions into its tickets, and so remembers any number of them.
pub(crate) fn server_config_with_tickets() -> Arc<ServerConfig> {
    let (chain, key) = parts(&AUTHORITY.issue(&["localhost"]));
    let config = builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.expect("a configuration");
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("a ticketer");
    Arc::new(config)
}

/// A server that does not know TLS 1.3.
pub(crate) fn server_config_tls12(identity: &Identity) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (chain, key) = parts(identity);
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.expect("a configuration"))
}

/// A server that asks the client for a certificate of the authority's.
pub(crate) fn server_config_with_client_certificates() -> Arc<ServerConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(AUTHORITY.pem().as_bytes()).expect("a certificate");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .expect("a verifier");
    let (chain, key) = parts(&AUTHORITY.issue(&["localhost"]));
    let config = builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key);
    Arc::new(config.expect("a configuration"))
}

/// The server's side of TLS; the handshake happens with the first read or write.
pub(crate) fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> Stream {
    let connection = ServerConnection::new(config).expect("a configuration that works");
    Stream::Tls(Box::new(StreamOwned::new(connection, stream)))
}
