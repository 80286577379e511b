//! TLS (rustls, unbuffered): ciphertext of the reactor's shared buffer in, plaintext out; frames in,
//! ciphertext out. The only module that knows rustls.
//!
//! Between the socket and the decoder on the way in, between the encoder and the socket on the way
//! out. The unbuffered interface decrypts in the receive buffer, and a connection that is idle owns
//! no TLS buffers.

mod sessions;

use self::sessions::SessionStore;
use crate::error::{BoxError, Error};
use crate::protocol::buffer::Buffer;
use crate::protocol::url::Host;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, IpAddr, PrivateKeyDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::path::Path;
use std::sync::Arc;

/// How to do TLS: whom to trust, and who we are. Cheap to clone; clones share their session cache,
/// so one configuration for many connections makes resumption work.
///
/// The default trusts the certificate authorities of Mozilla's list (webpki-roots) and verifies the
/// peer's certificate and name.
///
/// The session cache takes memory as sessions come: TLS 1.3 tickets of a server, four for each handshake
/// and up to 128, of which each serves one connection and the newest goes first; one TLS 1.2 session of a
/// server; and 4,096 servers and tickets in all. A ticket costs some 0.5 KiB and the server's certificates,
/// which rustls keeps with each: a few KiB of a public authority's.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    config: Arc<ClientConfig>,
}

impl TlsConfig {
    /// The default configuration.
    ///
    /// # Errors
    /// [`Error::TlsUnavailable`] without a crypto provider.
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// Begins with the default configuration.
    pub fn builder() -> TlsConfigBuilder {
        TlsConfigBuilder::default()
    }

    /// Uses a whole rustls configuration as it is. Its verifier, its session cache and its crypto
    /// provider are the caller's choice then.
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        Self { config }
    }
}

/// Builds a [`TlsConfig`].
#[derive(Default)]
pub struct TlsConfigBuilder {
    roots: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    alpn: Vec<Vec<u8>>,
    key_log: bool,
    accept_any: bool,
}

impl TlsConfigBuilder {
    /// Trusts the certificate authorities of a PEM text, and no longer those of the default list.
    ///
    /// # Errors
    /// [`Error::TlsConfig`]: no certificate in it, or one that cannot be read.
    pub fn root_certificates_pem(mut self, pem: &[u8]) -> Result<Self, Error> {
        let before = self.roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            self.roots.push(certificate.map_err(config_error)?);
        }
        if self.roots.len() == before {
            return Err(config_error("no certificate in the PEM text"));
        }
        Ok(self)
    }

    /// Trusts the certificate authorities of a PEM file, and no longer those of the default list.
    ///
    /// # Errors
    /// [`Error::TlsConfig`]: the file cannot be read, or as
    /// [`root_certificates_pem`](Self::root_certificates_pem).
    pub fn root_certificates_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let unreadable = |error| config_error(format!("{}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(unreadable)?;
        self.root_certificates_pem(&pem)
    }

    /// Shows the server this certificate chain, whose private key is given, both as PEM text.
    ///
    /// # Errors
    /// [`Error::TlsConfig`]: either cannot be read.
    pub fn client_certificate_pem(mut self, chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(config_error)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(config_error)?;
        self.client = Some((chain, key));
        Ok(self)
    }

    /// Offers this application protocol (RFC 7301); a WebSocket is `http/1.1`. None is offered by
    /// default.
    #[must_use]
    pub fn alpn(mut self, protocol: &str) -> Self {
        self.alpn.push(protocol.as_bytes().to_vec());
        self
    }

    /// Writes the secrets of every connection to the file that the environment variable
    /// `SSLKEYLOGFILE` names, so that a packet analyser can decrypt what it has captured.
    #[must_use]
    pub fn key_log_from_environment(mut self) -> Self {
        self.key_log = true;
        self
    }

    /// Accepts **any** certificate, of anybody, for any name: whoever sits on the path can read and
    /// change everything. For tests on a machine of one's own.
    #[must_use]
    pub fn danger_accept_any_certificate(mut self) -> Self {
        self.accept_any = true;
        self
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`Error::TlsUnavailable`] without a crypto provider, [`Error::TlsConfig`] for certificates or
    /// keys that do not fit.
    pub fn build(self) -> Result<TlsConfig, Error> {
        let provider = provider().ok_or(Error::TlsUnavailable)?;
        let mut roots = RootCertStore::empty();
        if self.roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for root in self.roots {
            roots.add(root).map_err(config_error)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(config_error)?
            .with_root_certificates(roots);
        let mut config = match self.client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(config_error)?,
        };
        config.resumption = Resumption::store(Arc::new(SessionStore::new()));
        config.alpn_protocols = self.alpn;
        if self.key_log {
            config.key_log = Arc::new(rustls::KeyLogFile::new());
        }
        if self.accept_any {
            let verifier = Arc::new(AcceptAny(provider));
            config.dangerous().set_certificate_verifier(verifier);
        }
        Ok(TlsConfig {
            config: Arc::new(config),
        })
    }
}

fn config_error(error: impl Into<BoxError>) -> Error {
    Error::TlsConfig(error.into())
}

/// Is there a crypto provider?
pub(crate) fn has_provider() -> bool {
    provider().is_some()
}

/// The process's default provider if the program chose one, else the one built in.
fn provider() -> Option<Arc<CryptoProvider>> {
    let chosen = CryptoProvider::get_default().cloned();
    #[cfg(feature = "aws-lc-rs")]
    let built_in = || Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    let built_in = || Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
    let built_in = || None;
    chosen.or_else(built_in)
}

/// Verifies nothing about who the peer is; that it holds the key of its certificate still is.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The TLS state of one connection.
///
/// rustls remembers where in the caller's buffer the pieces of an unfinished handshake message lie.
/// So every call, also one that only sends, must be given what earlier calls have left of it.
pub(crate) struct Tls {
    connection: UnbufferedClientConnection,
    /// An error was met: rustls is not to be asked again.
    failed: bool,
    /// The alert that came with it, if there was one and it is known.
    pub(crate) alert: Option<Alert>,
}

/// A fatal alert, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alert {
    pub(crate) number: u8,
    /// By this side; else it was sent.
    pub(crate) received: bool,
}

impl Alert {
    /// The one that came before `error`, or that was written because of it: `records`. rustls does not say
    /// which it writes. Before there are keys it can be read, and of some errors the alert is known.
    fn of(error: &rustls::Error, records: &[u8]) -> Option<Self> {
        // RFC 8446 section 5.1: the content type, a version, the length of the fragment; section 6: a level
        // and the description.
        const ALERT: u8 = 21;
        let (description, received) = match (error, records) {
            (rustls::Error::AlertReceived(description), _) => (*description, true),
            (_, []) => return None,
            (_, [ALERT, _, _, 0, 2, _, number]) => (AlertDescription::from(*number), false),
            (rustls::Error::InvalidCertificate(error), _) => (error.clone().into(), false),
            (rustls::Error::InvalidMessage(error), _) => ((*error).into(), false),
            _ => return None,
        };
        Some(Self {
            number: description.into(),
            received,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        let description = AlertDescription::from(self.number);
        description.as_str().unwrap_or("unknown")
    }
}

/// What came of some ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes that were taken from the front of the input; the rest is the beginning of a record.
    pub(crate) consumed: usize,
    /// The peer said that no more will come.
    pub(crate) ended: bool,
}

impl Tls {
    pub(crate) fn new(config: &TlsConfig, host: Host<'_>) -> Result<Self, Error> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.to_owned()).map_err(tls_error)?,
            Host::Ipv4(address) => ServerName::IpAddress(IpAddr::V4(address.into())),
            Host::Ipv6(address) => ServerName::IpAddress(IpAddr::V6(address.into())),
        };
        let connection =
            UnbufferedClientConnection::new(Arc::clone(&config.config), name).map_err(tls_error)?;
        Ok(Self {
            connection,
            failed: false,
            alert: None,
        })
    }

    /// Is the TLS handshake still under way?
    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Version as on the wire, and the name of the cipher suite, once they are agreed.
    pub(crate) fn agreed(&self) -> (u16, &'static str) {
        let version = self.connection.protocol_version();
        let suite = self.connection.negotiated_cipher_suite();
        (
            version.map_or(0, u16::from),
            suite.and_then(|suite| suite.suite().as_str()).unwrap_or(""),
        )
    }

    /// Did this connection resume an earlier session?
    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Takes ciphertext. Plaintext goes to `deliver`; what the TLS layer itself has to say to the
    /// peer goes into `outgoing`. What is not consumed is the beginning of a record or of a
    /// handshake message.
    ///
    /// # Errors
    /// What the peer did wrong. The alert that tells it so is in `outgoing`.
    pub(crate) fn receive(
        &mut self,
        incoming: &mut [u8],
        outgoing: &mut Buffer,
        mut deliver: impl FnMut(&[u8]),
    ) -> Result<Received, Error> {
        self.check()?;
        let mut received = Received {
            consumed: 0,
            ended: false,
        };
        loop {
            let rest = &mut incoming[received.consumed..];
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(rest);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    self.failed = true;
                    let start = outgoing.len();
                    self.write_alert(&mut rest[discard..], outgoing);
                    self.alert = Alert::of(&error, &outgoing.as_slice()[start..]);
                    return Err(tls_error(error));
                }
            };
            let mut more = true;
            match state {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(tls_error)?;
                        discard += record.discard;
                        deliver(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(outgoing, |room| data.encode(room))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => received.ended = true,
                ConnectionState::BlockedHandshake
                | ConnectionState::WriteTraffic(_)
                | ConnectionState::Closed => more = false,
                _ => {
                    return Err(tls_error(
                        "the TLS library is in a state unknown to this crate",
                    ));
                }
            }
            received.consumed += discard;
            if !more {
                return Ok(received);
            }
        }
    }

    /// After an error: the alert that rustls has prepared, if any. `rest` is what it has not taken.
    fn write_alert(&mut self, rest: &mut [u8], outgoing: &mut Buffer) {
        // RFC 8446 section 5: the content type of a record that may stand before the alert.
        const CHANGE_CIPHER_SPEC: u8 = 20;
        while let UnbufferedStatus {
            state: Ok(ConnectionState::EncodeTlsData(mut data)),
            ..
        } = self.connection.process_tls_records(rest)
        {
            let start = outgoing.len();
            let encoded = encode(outgoing, |room| data.encode(room));
            // Behind the alert nothing comes, and asked again rustls would meet the error again.
            if encoded.is_err() || outgoing.as_slice().get(start) != Some(&CHANGE_CIPHER_SPEC) {
                return;
            }
        }
    }

    /// Encrypts `plain` into `outgoing`. `partial` is what [`receive`](Self::receive) has left.
    ///
    /// # Errors
    /// The connection is not in a state to send, or its keys are used up.
    pub(crate) fn encrypt(
        &mut self,
        plain: &[u8],
        partial: &mut [u8],
        outgoing: &mut Buffer,
    ) -> Result<(), Error> {
        self.when_writable(partial, outgoing, |traffic, room| {
            traffic.encrypt(plain, room)
        })
    }

    /// Writes the alert that says that nothing more will be sent. `partial` is what
    /// [`receive`](Self::receive) has left.
    pub(crate) fn close_notify(
        &mut self,
        partial: &mut [u8],
        outgoing: &mut Buffer,
    ) -> Result<(), Error> {
        // A closure: the method itself would have one lifetime only, where any is asked for.
        #[allow(clippy::redundant_closure_for_method_calls)]
        self.when_writable(partial, outgoing, |traffic, room| {
            traffic.queue_close_notify(room)
        })
    }

    fn when_writable(
        &mut self,
        partial: &mut [u8],
        outgoing: &mut Buffer,
        mut write: impl FnMut(&mut WriteTraffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), Error> {
        self.check()?;
        loop {
            let status = self.connection.process_tls_records(partial);
            // Nothing in it is complete, or `receive` would have taken it.
            debug_assert_eq!(status.discard, 0);
            match status.state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return fill(outgoing, |room| match write(&mut traffic, room) {
                        Ok(length) => Ok(Ok(length)),
                        Err(EncryptError::InsufficientSize(size)) => Ok(Err(size.required_size)),
                        Err(error) => Err(tls_error(error)),
                    });
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(outgoing, |room| data.encode(room))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(_) => return Err(tls_error("the TLS connection cannot send now")),
                Err(error) => return Err(tls_error(error)),
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        if self.failed {
            return Err(tls_error("the TLS connection has failed"));
        }
        Ok(())
    }
}

type WriteTraffic<'c> = rustls::unbuffered::WriteTraffic<'c, rustls::client::ClientConnectionData>;

fn encode(
    outgoing: &mut Buffer,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    fill(outgoing, |room| match write(room) {
        Ok(length) => Ok(Ok(length)),
        Err(EncodeError::InsufficientSize(size)) => Ok(Err(size.required_size)),
        Err(error) => Err(tls_error(error)),
    })
}

/// Lets `write` fill the room of `outgoing`, which is made larger when `write` says what it needs.
fn fill(
    outgoing: &mut Buffer,
    mut write: impl FnMut(&mut [u8]) -> Result<Result<usize, usize>, Error>,
) -> Result<(), Error> {
    let mut required = 0;
    loop {
        match write(outgoing.room(required))? {
            Ok(length) => {
                outgoing.advance(length);
                return Ok(());
            }
            Err(size) => required = size,
        }
    }
}

fn tls_error(error: impl Into<BoxError>) -> Error {
    Error::Tls(error.into())
}
