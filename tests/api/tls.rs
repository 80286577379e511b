//! TLS: whom the client trusts, what it shows, and what it does with peers that are not what they
//! should be.

use crate::support::pki::{self, AUTHORITY, Authority};
use crate::support::server::{Stream, answer};
use crate::support::{Duet, Fault, Log, Peer, Recorder, Rig, SHORT, Server, Transport, Why, frame};
use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use websockex::trace::Kind;
use websockex::{CloseCode, Error, Reactor, Request, TlsConfig};

/// A server with a configuration of its own, that closes when it is closed.
fn server_with(config: Arc<ServerConfig>) -> Server {
    Server::start_raw(Transport::Tls, move |_, stream| {
        let mut peer = Peer::over(pki::accept(stream, Arc::clone(&config)));
        // The client may refuse to go on.
        let Stream::Tls(tls) = peer.stream_mut() else {
            unreachable!("it is TLS");
        };
        if tls.conn.complete_io(&mut tls.sock).is_ok() {
            peer.accept();
            peer.answer_close(1000);
        }
    })
}

/// Connects once, and closes if it opens.
fn try_once(rig: &mut Rig, request: Request) -> Log {
    let request = request.reconnect(websockex::ReconnectPolicy::never());
    let log = rig.connect(
        request,
        Recorder::new().open(|cx, _| {
            cx.close();
            Ok(())
        }),
    );
    rig.run();
    log
}

fn request(server: &Server, host: &str, tls: Option<TlsConfig>) -> Request {
    let url = format!("wss://{host}:{}/", server.address.port());
    let request = Request::new(url).expect("a URL");
    match tls {
        Some(tls) => request.tls(tls),
        None => request,
    }
}

#[track_caller]
fn assert_opened(log: &Log) {
    let lost = log.only_lost();
    assert_eq!((lost.why, lost.clean), (Why::local(1000), true));
}

/// It failed in TLS, before anything of the request was sent.
#[track_caller]
fn assert_untrusted(log: &Log, text: &str) {
    match log.only_lost().why {
        Why::ConnectFailed(Fault::Tls(error)) => assert!(error.contains(text), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pitfall_39_peers_are_verified_by_default() {
    let stranger = Authority::new();
    let server = server_with(pki::server_config_for(&stranger.issue(&["localhost"])));
    let mut rig = Rig::new();
    // By the list that comes with the crate, by the test's authority, and by the right one.
    assert_untrusted(
        &try_once(&mut rig, request(&server, "localhost", None)),
        "UnknownIssuer",
    );
    let other = Some(pki::client_config());
    let log = try_once(&mut rig, request(&server, "localhost", other));
    assert!(matches!(
        log.only_lost().why,
        Why::ConnectFailed(Fault::Tls(_))
    ));
    let right = TlsConfig::builder()
        .root_certificates_pem(stranger.pem().as_bytes())
        .and_then(websockex::TlsConfigBuilder::build)
        .expect("a configuration");
    assert_opened(&try_once(
        &mut rig,
        request(&server, "localhost", Some(right)),
    ));
}

#[test]
fn the_name_must_be_the_certificates() {
    let server = server_with(pki::server_config_for(&AUTHORITY.issue(&["example.com"])));
    let mut rig = Rig::new();
    for host in ["localhost", "127.0.0.1"] {
        let log = try_once(&mut rig, request(&server, host, Some(pki::client_config())));
        assert_untrusted(&log, "not valid for name");
    }
}

#[test]
fn a_host_may_be_an_address() {
    let server = server_with(pki::server_config());
    let mut rig = Rig::new();
    let tls = Some(pki::client_config());
    assert_opened(&try_once(&mut rig, request(&server, "127.0.0.1", tls)));
}

#[test]
fn verification_can_be_switched_off_by_a_loud_name() {
    let stranger = Authority::new();
    let server = server_with(pki::server_config_for(&stranger.issue(&["example.com"])));
    let tls = TlsConfig::builder()
        .danger_accept_any_certificate()
        .build()
        .expect("a configuration");
    let mut rig = Rig::new();
    assert_opened(&try_once(
        &mut rig,
        request(&server, "localhost", Some(tls)),
    ));
}

#[test]
fn a_client_certificate_is_shown_to_those_who_ask() {
    let server = server_with(pki::server_config_with_client_certificates());
    let mut rig = Rig::new();
    let mine = AUTHORITY.issue(&["client"]);
    let with = TlsConfig::builder()
        .root_certificates_pem(AUTHORITY.pem().as_bytes())
        .and_then(|builder| {
            builder.client_certificate_pem(mine.certificate.as_bytes(), mine.key.as_bytes())
        })
        .and_then(websockex::TlsConfigBuilder::build)
        .expect("a configuration");
    assert_opened(&try_once(
        &mut rig,
        request(&server, "localhost", Some(with)),
    ));
    let without = Some(pki::client_config());
    let log = try_once(&mut rig, request(&server, "localhost", without));
    assert_untrusted(&log, "CertificateRequired");
}

#[test]
fn roots_come_from_a_file_and_the_reactor_has_a_configuration_of_its_own() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("api-tls-roots.pem");
    std::fs::write(&path, AUTHORITY.pem()).expect("a file");
    let tls = TlsConfig::builder()
        .root_certificates_file(&path)
        .and_then(websockex::TlsConfigBuilder::build)
        .expect("a configuration");
    let server = server_with(pki::server_config());
    let mut rig = Rig::with(Reactor::builder().tls(tls));
    assert_opened(&try_once(&mut rig, request(&server, "localhost", None)));
    let missing = TlsConfig::builder().root_certificates_file(path.with_extension("missing"));
    assert!(matches!(missing, Err(Error::TlsConfig(_))));
}

#[test]
fn bad_certificates_are_refused_before_any_io() {
    let pem = AUTHORITY.pem();
    let one = AUTHORITY.issue(&["one"]);
    let other = AUTHORITY.issue(&["other"]);
    for refused in [
        TlsConfig::builder().root_certificates_pem(b"").err(),
        TlsConfig::builder().root_certificates_pem(b"no PEM").err(),
        TlsConfig::builder()
            .root_certificates_pem(pem.replace('M', "!").as_bytes())
            .err(),
        TlsConfig::builder()
            .client_certificate_pem(pem.as_bytes(), b"no key")
            .err(),
        // The key of another.
        TlsConfig::builder()
            .client_certificate_pem(one.certificate.as_bytes(), other.key.as_bytes())
            .and_then(websockex::TlsConfigBuilder::build)
            .err(),
    ] {
        assert!(matches!(refused, Some(Error::TlsConfig(_))), "{refused:?}");
    }
}

/// The second connection resumes the session of the first.
#[test]
fn sessions_are_resumed() {
    let server = server_with(pki::server_config_for(&AUTHORITY.issue(&["localhost"])));
    let tls = own_config();
    let mut rig = Rig::new();
    for _ in 0..2 {
        assert_opened(&try_once(
            &mut rig,
            request(&server, "localhost", Some(tls.clone())),
        ));
    }
    let events = rig.reactor.trace().iter();
    let established = events.filter(|event| event.kind() == Kind::TlsEstablished);
    let resumed: Vec<_> = established
        .map(|event| (event.code(), event.resumed()))
        .collect();
    assert_eq!(resumed, [(0x0304, false), (0x0304, true)]);
}

/// For each TLS handshake of this reactor, in order: did it resume a session?
fn resumptions(rig: &Rig) -> Vec<bool> {
    let events = rig.reactor.trace().iter();
    let established = events.filter(|event| event.kind() == Kind::TlsEstablished);
    established.map(websockex::trace::Event::resumed).collect()
}

/// A configuration whose session store no other test has a part in.
fn own_config() -> TlsConfig {
    TlsConfig::builder()
        .root_certificates_pem(AUTHORITY.pem().as_bytes())
        .and_then(websockex::TlsConfigBuilder::build)
        .expect("a configuration")
}

/// Connections that were lost together come back together, and rustls's own store would keep tickets
/// for eight of them.
#[test]
fn in_a_storm_every_connection_resumes() {
    const CONNECTIONS: usize = 64;
    let server = server_with(pki::server_config_with_tickets());
    let tls = own_config();
    let wave = || {
        let mut rig = Rig::new();
        let opened = Arc::new(AtomicUsize::new(0));
        let mut ids = Vec::new();
        for _ in 0..CONNECTIONS {
            let opened = Arc::clone(&opened);
            let recorder = Recorder::new().open(move |_, _| {
                opened.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            let request = request(&server, "localhost", Some(tls.clone()));
            let request = request.reconnect(websockex::ReconnectPolicy::never());
            ids.push(rig.connect(request, recorder).id());
        }
        rig.run_until(|| opened.load(Ordering::Relaxed) == CONNECTIONS);
        for id in ids {
            let closed = rig.reactor.remote().close(id, CloseCode::NORMAL, "");
            closed.expect("it is open");
        }
        rig.run();
        resumptions(&rig)
    };
    wave();
    assert_eq!(wave(), [true; CONNECTIONS]);
}

/// What one name was given is not shown to another, even where both are the same server.
#[test]
fn a_ticket_belongs_to_a_name() {
    let server = server_with(pki::server_config());
    let tls = own_config();
    let mut rig = Rig::new();
    for host in ["localhost", "127.0.0.1", "localhost", "127.0.0.1"] {
        let log = try_once(&mut rig, request(&server, host, Some(tls.clone())));
        assert_opened(&log);
    }
    assert_eq!(resumptions(&rig), [false, false, true, true]);
}

/// In TLS 1.2 it may be used any number of times.
#[test]
fn sessions_of_tls_1_2_are_resumed_again_and_again() {
    let server = server_with(pki::server_config_tls12(&AUTHORITY.issue(&["localhost"])));
    let tls = own_config();
    let mut rig = Rig::new();
    for _ in 0..3 {
        let log = try_once(&mut rig, request(&server, "localhost", Some(tls.clone())));
        assert_opened(&log);
    }
    assert_eq!(resumptions(&rig), [false, true, true]);
}

#[test]
fn tls_1_2_is_spoken_too() {
    let server = server_with(pki::server_config_tls12(&AUTHORITY.issue(&["localhost"])));
    let mut rig = Rig::new();
    for _ in 0..2 {
        let tls = Some(pki::client_config());
        assert_opened(&try_once(&mut rig, request(&server, "localhost", tls)));
    }
    let events = rig.reactor.trace().iter();
    let mut established = events.filter(|event| event.kind() == Kind::TlsEstablished);
    assert!(established.all(|event| event.code() == 0x0303));
}

/// A certificate chain longer than the smallest receive buffer.
#[test]
fn a_very_long_certificate_is_taken() {
    let names: Vec<String> = (0..1500)
        .map(|index| format!("name-{index:04}.feed.example.com"))
        .collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("localhost");
    let config = pki::server_config_for(&AUTHORITY.issue(&names));
    let server = server_with(config);
    for buffer in [0, 128 * 1024] {
        let mut rig = Rig::with(Reactor::builder().receive_buffer(buffer));
        let tls = Some(pki::client_config());
        let log = try_once(&mut rig, request(&server, "localhost", tls));
        assert_opened(&log);
    }
}

#[test]
fn a_peer_that_speaks_no_tls() {
    let server = Server::start_raw(Transport::Tls, |_, mut stream| {
        let mut hello = [0; 1024];
        assert!(stream.read(&mut hello).expect("a ClientHello") > 0);
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .expect("the client takes it");
        // Until the client has gone.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut rig = Rig::new();
    let log = try_once(&mut rig, server.request());
    assert!(matches!(
        log.only_lost().why,
        Why::ConnectFailed(Fault::Tls(_))
    ));
}

#[test]
fn a_peer_that_ends_during_the_tls_handshake() {
    let server = Server::start_raw(Transport::Tls, |_, mut stream| {
        let mut hello = [0; 4096];
        assert!(stream.read(&mut hello).expect("a ClientHello") > 0);
    });
    let mut rig = Rig::new();
    let log = try_once(&mut rig, server.request());
    let ended = io::ErrorKind::UnexpectedEof;
    assert_eq!(log.only_lost().why, Why::ConnectFailed(Fault::Io(ended)));
}

/// Below TLS anything may be injected; it does not get through, and what came before it does.
#[test]
fn a_record_that_does_not_decrypt_ends_an_open_connection() {
    let mut duet = Duet::open(Transport::Tls, Recorder::new());
    duet.peer.text("good");
    let mut record = vec![23, 3, 3, 0, 32];
    record.extend([7; 32]);
    duet.peer.tcp().write_all(&record).expect("it is taken");
    duet.rig.run();
    assert_eq!(duet.log.texts(), ["good"]);
    assert!(matches!(
        duet.log.only_lost().why,
        Why::Failed(Fault::Tls(_))
    ));
}

/// A close_notify without a Close frame ends the stream like any other end.
#[test]
fn a_close_notify_without_close_is_a_drop() {
    let mut duet = Duet::open(Transport::Tls, Recorder::new());
    duet.peer.text("last");
    let Stream::Tls(tls) = duet.peer.stream_mut() else {
        unreachable!("it is TLS");
    };
    tls.conn.send_close_notify();
    tls.flush().expect("it is taken");
    duet.rig.run();
    assert_eq!(duet.log.texts(), ["last"]);
    assert_eq!(duet.log.only_lost().why, Why::Dropped);
}

/// New keys, as session tickets, are between the two ends of TLS: for them no handler was at work, however
/// long they have taken.
#[test]
fn what_tls_says_for_itself_is_no_work_of_a_handler() {
    let mut duet = Duet::open(Transport::Tls, Recorder::new());
    duet.rig.settle();
    let remote = duet.rig.reactor.remote();
    let before = remote.stats();
    let Stream::Tls(tls) = duet.peer.stream_mut() else {
        unreachable!("it is TLS");
    };
    tls.conn.refresh_traffic_keys().expect("TLS 1.3");
    tls.flush().expect("it is taken");
    let received = before.received.socket_bytes;
    duet.rig
        .run_until(|| remote.stats().received.socket_bytes > received);
    let after = remote.stats();
    assert_eq!(after.handler_ns, before.handler_ns);
    assert_eq!(after.slowest_handler, before.slowest_handler);
    // A message is its handler's work, and the new keys are in use.
    duet.deliver(&frame(0x81, b"news"));
    assert_eq!(duet.log.texts(), ["news"]);
    let handled = remote.stats().handler_ns.count();
    assert_eq!(handled, before.handler_ns.count() + 1);
}

/// Records cut at every byte, and all of them in one segment.
#[test]
fn records_arrive_in_any_pieces() {
    let mut duet = Duet::open(Transport::Tls, Recorder::new());
    let Stream::Tls(tls) = duet.peer.stream_mut() else {
        unreachable!("it is TLS");
    };
    let mut records = Vec::new();
    for text in ["one", "two", "three"] {
        // Half a frame in each record.
        for half in frame(0x81, text.as_bytes()).chunks(3) {
            tls.conn.writer().write_all(half).expect("room");
            while tls.conn.wants_write() {
                tls.conn.write_tls(&mut records).expect("memory takes it");
            }
        }
    }
    let (single, rest) = records.split_at(records.len() / 2);
    for byte in single {
        duet.peer.tcp().write_all(&[*byte]).expect("it is taken");
        duet.rig.turn();
    }
    duet.peer.tcp().write_all(rest).expect("it is taken");
    duet.rig.turn();
    assert_eq!(duet.log.texts(), ["one", "two", "three"]);
}

/// A socket that counts the TLS records that come in.
struct Counting {
    stream: TcpStream,
    bytes: Vec<u8>,
    records: Arc<Mutex<usize>>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.bytes.extend(&buffer[..length]);
        while let Some(&[_, _, _, high, low]) = self.bytes.get(..5) {
            let end = 5 + usize::from(u16::from_be_bytes([high, low]));
            if self.bytes.len() < end {
                break;
            }
            self.bytes.drain(..end);
            *self.records.lock().expect("no panic") += 1;
        }
        Ok(length)
    }
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything that one turn sends leaves in one write. Segments merge on their way, so that writes
/// cannot be told apart at the other end; but each write is a TLS record, and these can.
#[test]
fn pitfall_30_all_messages_of_a_turn_leave_in_one_write() {
    const MESSAGES: usize = 100;
    let (told, counted) = channel();
    let server = Server::start_raw(Transport::Tls, move |_, stream| {
        let records = Arc::new(Mutex::new(0));
        let counting = Counting {
            stream,
            bytes: Vec::new(),
            records: Arc::clone(&records),
        };
        let connection = ServerConnection::new(pki::server_config()).expect("a configuration");
        let mut tls = rustls::StreamOwned::new(connection, counting);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tls.read_exact(&mut byte).expect("the request");
            head.push(byte[0]);
        }
        let limits = websockex::HandshakeLimits::default();
        let mut handshake = websockex::protocol::handshake::ServerHandshake::new(limits);
        let received = handshake.receive(&head).expect("a request");
        let before = *records.lock().expect("no panic");
        let mut bytes = answer(&received.request.expect("a whole one"));
        // And all pongs and echoes to what comes in one read.
        bytes.extend(frame(0x89, b"ping").repeat(MESSAGES));
        tls.write_all(&bytes).expect("it is taken");
        tls.flush().expect("it is taken");
        // Masked frames: two bytes, the key, and the payload.
        let mut all = [0; MESSAGES * ((2 + 4 + 5) + (2 + 4 + 4))];
        tls.read_exact(&mut all).expect("all frames");
        let after = *records.lock().expect("no panic");
        told.send(after - before).expect("the test listens");
    });
    let mut rig = Rig::new();
    let recorder = Recorder::new().open(|cx, _| {
        for _ in 0..MESSAGES {
            cx.send_text("hello")?;
        }
        Ok(())
    });
    rig.connect(server.request(), recorder);
    rig.run();
    assert_eq!(counted.recv(), Ok(1));
}

/// A handshake message of which only the first record has come lies half read in the TLS layer when
/// the connection is given up, and says goodbye in TLS.
#[test]
fn an_unfinished_handshake_message_is_no_trouble_at_the_end() {
    let mut config = (*pki::server_config_for(&AUTHORITY.issue(&["localhost"]))).clone();
    config.max_fragment_size = Some(64);
    let config = Arc::new(config);
    let server = Server::start_raw(Transport::Tls, move |_, mut stream| {
        let mut tls = ServerConnection::new(Arc::clone(&config)).expect("a configuration");
        let mut records = Vec::new();
        while tls.is_handshaking() {
            records.clear();
            while tls.wants_write() {
                tls.write_tls(&mut records).expect("memory takes it");
            }
            stream.write_all(&records).expect("it is taken");
            assert!(tls.read_tls(&mut stream).expect("an answer") > 0);
            tls.process_new_packets().expect("a good one");
        }
        // Session tickets, each of them longer than a record.
        records.clear();
        while tls.wants_write() {
            tls.write_tls(&mut records).expect("memory takes it");
        }
        let first = 5 + usize::from(u16::from_be_bytes([records[3], records[4]]));
        assert!(first < 100 && records.len() > 200);
        stream.write_all(&records[..first]).expect("it is taken");
        // Until the client has gone.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut rig = Rig::new();
    let request = server.request().handshake_timeout(SHORT * 10);
    let log = try_once(&mut rig, request);
    let late = Fault::Timeout(websockex::Stage::Upgrade);
    assert_eq!(log.only_lost().why, Why::ConnectFailed(late));
}

/// A server that is not trusted is told so before the connection ends.
#[test]
fn a_server_that_is_not_trusted_learns_why() {
    let config = pki::server_config_for(&Authority::new().issue(&["localhost"]));
    let (told, learnt) = channel();
    let server = Server::start_raw(Transport::Tls, move |_, mut stream| {
        let mut tls = ServerConnection::new(Arc::clone(&config)).expect("a configuration");
        let error = loop {
            match tls.complete_io(&mut stream) {
                Ok(_) => assert!(tls.is_handshaking(), "it must not succeed"),
                Err(error) => break error,
            }
        };
        told.send(error.to_string()).expect("the test listens");
    });
    let mut rig = Rig::new();
    let log = try_once(&mut rig, server.request());
    assert!(matches!(
        log.only_lost().why,
        Why::ConnectFailed(Fault::Tls(_))
    ));
    let learnt = learnt.recv().expect("the server saw something");
    assert!(learnt.contains("fatal alert: DecryptError"), "{learnt}");
    let alert = "*DBG* feed sent TLS alert 51: DecryptError".to_owned();
    assert!(rig.dbg_lines().contains(&alert), "{:?}", rig.dbg_lines());
}

/// Alerts from either side, before there are keys, are in the trace.
#[test]
fn alerts_are_recorded() {
    const HANDSHAKE_FAILURE: &[u8] = &[21, 3, 3, 0, 2, 2, 40];
    for (answer, line) in [
        (HANDSHAKE_FAILURE, "received TLS alert 40: HandshakeFailure"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "sent TLS alert 50: DecodeError",
        ),
    ] {
        let server = Server::start_raw(Transport::Tls, move |_, mut stream| {
            stream.write_all(answer).expect("the client reads it");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut rig = Rig::new();
        try_once(&mut rig, server.request());
        let lines = rig.dbg_lines();
        let line = format!("*DBG* feed {line}");
        let place = lines.iter().position(|other| *other == line);
        let place = place.unwrap_or_else(|| panic!("{line} in {lines:?}"));
        let next = &lines[place + 1];
        assert!(next.contains("failed to connect at stage tls"), "{next}");
    }
}

/// A handshake message in so many tiny records that no buffer would hold it: an error, and no end of
/// the stream that nobody has sent, and no loop.
#[test]
fn a_handshake_message_in_tiny_records_is_refused() {
    let server = Server::start_raw(Transport::Tls, |_, mut stream| {
        // A ServerHello that declares 65,280 bytes, one byte in each record.
        let message = [2, 0, 0xff, 0].into_iter().chain(std::iter::repeat(0));
        let records: Vec<u8> = message
            .take(20_000)
            .flat_map(|byte| [22, 3, 3, 0, 1, byte])
            .collect();
        // It may be cut off before all of it is sent.
        let _ = stream.write_all(&records);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut rig = Rig::with(Reactor::builder().receive_buffer(0));
    let log = try_once(&mut rig, server.request());
    assert_untrusted(&log, "a handshake message is too long");
}
