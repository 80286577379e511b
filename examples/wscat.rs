//! A WebSocket in the terminal: lines in, messages out.
//!
//! `cargo run --example wscat -- wss://host/path`; `--help` lists the options. The lines are read
//! on a thread of their own and sent through a [`Remote`], as any other thread would do it; the
//! messages are printed by the handler, on the reactor's thread.

use std::any::Any;
use std::cell::Cell;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;
use std::time::Duration;
use websockex::trace::Level;
use websockex::{
    BoxError, CloseCode, ConnectionId, Context, Disconnect, DisconnectReason, Handler,
    HandlerResult, Message, Open, OwnedMessage, Reactor, Reconnect, Remote, Request, SendError,
    TimerId, TlsConfig,
};

const HELP: &str = "\
Sends the lines of standard input as messages and prints the messages that come.

usage: wscat [OPTIONS] URL

  --header 'NAME: VALUE'  add a header to the opening handshake; may be given several times
  --subprotocol NAME      offer a subprotocol; may be given several times
  --ca FILE               trust the certificate authorities in this PEM file, and no others
  --insecure              accept any certificate, whoever it belongs to
  --binary                send the lines as binary messages, not as text
  --wait SECONDS          after the end of input, go on listening so long (default 0.5)
  --trace                 print what happens on standard error, frame by frame
  --help                  print this

Received text is printed as it is, received binary in hexadecimal after \"binary\". The end of input
and Ctrl-C close the connection in an orderly way; a second Ctrl-C ends the program at once.

exit status: 0 closed in an orderly way; 1 no connection; 2 wrong usage; 3 the connection broke, or
was closed with a code that tells of an error
";

/// What we send is not taken yet: wait so long before trying again.
const RETRY: Duration = Duration::from_millis(10);
const END_OF_WAIT: TimerId = TimerId(0);

/// How it went, as the exit status tells it.
#[derive(Clone, Copy)]
enum Outcome {
    Clean = 0,
    NotConnected = 1,
    WrongUsage = 2,
    Broken = 3,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

/// Cast by the reading thread.
struct EndOfInput;

struct Cat {
    remote: Remote,
    binary: bool,
    wait: Duration,
    outcome: Rc<Cell<Outcome>>,
}

impl Handler for Cat {
    fn on_open(&mut self, cx: &mut Context<'_>, open: &Open<'_>) -> HandlerResult {
        match open.response.subprotocol() {
            Some(subprotocol) => eprintln!("connected to {}, {subprotocol}", open.peer),
            None => eprintln!("connected to {}", open.peer),
        }
        // Not earlier: there would be nowhere to send the lines.
        let (remote, id, binary) = (self.remote.clone(), cx.id(), self.binary);
        thread::spawn(move || send_lines(&remote, id, binary));
        Ok(())
    }

    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        let mut out = io::stdout().lock();
        let printed = match message {
            Message::Text(text) => writeln!(out, "{text}"),
            Message::Binary(bytes) => print_hexadecimal(&mut out, bytes),
        };
        if printed.and_then(|()| out.flush()).is_err() {
            // Nobody reads what we print any more.
            cx.close();
        }
        Ok(())
    }

    fn on_cast(&mut self, cx: &mut Context<'_>, message: Box<dyn Any + Send>) -> HandlerResult {
        if message.is::<EndOfInput>() {
            cx.set_timer(END_OF_WAIT, self.wait);
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _timer: TimerId) -> HandlerResult {
        cx.close();
        Ok(())
    }

    fn on_disconnect(&mut self, _cx: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        eprintln!("{}", disconnect.reason);
        self.outcome.set(match disconnect.reason {
            _ if disconnect.epoch == 0 => Outcome::NotConnected,
            DisconnectReason::Local { .. } if disconnect.clean => Outcome::Clean,
            DisconnectReason::Remote { code, .. } if disconnect.clean && is_friendly(*code) => {
                Outcome::Clean
            }
            _ => Outcome::Broken,
        });
        Reconnect::Never
    }
}

/// Does the peer close because all is done, and not because something is wrong?
fn is_friendly(code: Option<CloseCode>) -> bool {
    matches!(code, None | Some(CloseCode::NORMAL | CloseCode::GOING_AWAY))
}

fn print_hexadecimal(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write!(out, "binary ")?;
    for byte in bytes {
        write!(out, "{byte:02x}")?;
    }
    writeln!(out)
}

/// Runs on a thread of its own, as reading standard input waits.
fn send_lines(remote: &Remote, id: ConnectionId, binary: bool) {
    for line in io::stdin().lock().split(b'\n') {
        let Ok(mut line) = line else { break };
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let message = if binary {
            OwnedMessage::Binary(line)
        } else {
            match String::from_utf8(line) {
                Ok(text) => OwnedMessage::Text(text),
                Err(_) => {
                    eprintln!("a line that is not UTF-8 cannot be sent as text (try --binary)");
                    continue;
                }
            }
        };
        loop {
            match remote.send(id, message.clone()) {
                Ok(()) => break,
                // `NotOpen` for as long as `on_open` has not returned.
                Err(SendError::Full { .. } | SendError::NotOpen) => thread::sleep(RETRY),
                // It ends already, and the handler says why.
                Err(_) => return,
            }
        }
    }
    // Fails only when the connection has ended meanwhile.
    let _ = remote.cast(id, EndOfInput);
}

/// What the command line says.
#[derive(Default)]
struct Options {
    url: Option<String>,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
    ca: Option<String>,
    insecure: bool,
    binary: bool,
    trace: bool,
    wait: Option<f64>,
}

/// `Ok(None)`: only help was asked for.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let next = arguments.next();
            next.ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--header" => {
                let header = value()?;
                let (name, value) = header
                    .split_once(':')
                    .ok_or_else(|| format!("a header is 'NAME: VALUE', not {header:?}"))?;
                let header = (name.trim().to_owned(), value.trim().to_owned());
                options.headers.push(header);
            }
            "--subprotocol" => options.subprotocols.push(value()?),
            "--ca" => options.ca = Some(value()?),
            "--insecure" => options.insecure = true,
            "--binary" => options.binary = true,
            "--trace" => options.trace = true,
            "--wait" => options.wait = Some(seconds(&value()?)?),
            _ if argument.starts_with('-') => {
                return Err(format!("unknown argument: {argument}"));
            }
            _ if options.url.is_some() => return Err("one URL is enough".to_owned()),
            _ => options.url = Some(argument),
        }
    }
    if options.url.is_none() {
        return Err("which URL?".to_owned());
    }
    Ok(Some(options))
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds >= 0.0 && seconds.is_finite() => Ok(seconds),
        _ => Err(format!("--wait takes a number of seconds, not {text:?}")),
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("wscat: {message}\nTry --help.");
            return Outcome::WrongUsage.into();
        }
    };
    // A URL, a header or a certificate that cannot be used is found before any I/O.
    let request = match request(&options) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("wscat: {error}");
            return Outcome::WrongUsage.into();
        }
    };
    match run(&options, request) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("wscat: {error}");
            Outcome::Broken.into()
        }
    }
}

fn request(options: &Options) -> Result<Request, BoxError> {
    let mut request = Request::new(options.url.as_deref().unwrap_or_default())?;
    for (name, value) in &options.headers {
        request = request.header(name, value)?;
    }
    for name in &options.subprotocols {
        request = request.subprotocol(name)?;
    }
    if options.ca.is_some() || options.insecure {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &options.ca {
            tls = tls.root_certificates_file(path)?;
        }
        if options.insecure {
            eprintln!("warning: certificates are not verified; anybody could answer");
            tls = tls.danger_accept_any_certificate();
        }
        request = request.tls(tls.build()?);
    }
    Ok(request)
}

fn run(options: &Options, request: Request) -> Result<Outcome, BoxError> {
    let mut builder = Reactor::builder();
    if options.trace {
        builder = builder.trace(Level::Payload).print_trace(true);
    }
    let mut reactor = builder.build()?;
    let outcome = Rc::new(Cell::new(Outcome::NotConnected));
    let handler = Cat {
        remote: reactor.remote(),
        binary: options.binary,
        wait: Duration::try_from_secs_f64(options.wait.unwrap_or(0.5))?,
        outcome: Rc::clone(&outcome),
    };
    let id = reactor.connect(request, handler)?;
    close_on_ctrl_c(reactor.remote(), id)?;
    reactor.run()?;
    Ok(outcome.get())
}

/// The first Ctrl-C closes the connection, the second ends the program.
fn close_on_ctrl_c(remote: Remote, id: ConnectionId) -> Result<(), ctrlc::Error> {
    let mut asked_before = false;
    ctrlc::set_handler(move || {
        let refused = remote.close(id, CloseCode::NORMAL, "").is_err();
        if std::mem::replace(&mut asked_before, true) || refused {
            // The status that a shell gives to a program that SIGINT has ended.
            std::process::exit(130);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Option<Options>, String> {
        parse(line.iter().map(|&argument| argument.to_owned()))
    }

    #[test]
    fn reads_the_options() {
        let options = parsed(&[
            "--header",
            "X-Time: 12:30",
            "--subprotocol",
            "a",
            "--wait",
            "2",
            "--trace",
            "ws://host/",
        ]);
        let options = options.unwrap().unwrap();
        assert_eq!(options.headers, [("X-Time".into(), "12:30".into())]);
        assert_eq!(options.subprotocols, ["a"]);
        assert_eq!(options.wait, Some(2.0));
        assert_eq!(options.url.as_deref(), Some("ws://host/"));
        assert!(options.trace && !options.binary && !options.insecure);
        assert!(parsed(&["--help"]).unwrap().is_none());
    }

    #[test]
    fn says_what_is_wrong() {
        for line in [
            &[][..],
            &["ws://a/", "ws://b/"],
            &["--nothing", "ws://a/"],
            &["--header", "no colon", "ws://a/"],
            &["--wait", "-1", "ws://a/"],
            &["ws://a/", "--ca"],
        ] {
            assert!(parsed(line).is_err(), "{line:?}");
        }
    }
}
