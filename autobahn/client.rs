//! The client that `autobahn/run` puts before the fuzzing server of the Autobahn testsuite.
//!
//! Asks for the number of cases, runs each with the crate's default settings, echoing every message,
//! and asks for the reports. One reactor for all of them, one connection after the other.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use websockex::{
    Context, Deflate, Disconnect, DisconnectReason, Handler, HandlerResult, Message, Reactor,
    Reconnect, ReconnectPolicy, Request, TlsConfig,
};

/// What the command line says.
struct Arguments {
    url: String,
    agent: String,
    ca: Option<String>,
    deflate: bool,
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| run(&arguments).map_err(|error| error.to_string())) {
        Ok(cases) => {
            eprintln!("ran {cases} cases");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut parsed = Arguments {
        url: "ws://127.0.0.1:9001".into(),
        agent: "websockex".into(),
        ca: None,
        deflate: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--url" => parsed.url = value()?,
            "--agent" => parsed.agent = value()?,
            "--ca" => parsed.ca = Some(value()?),
            "--deflate" => parsed.deflate = true,
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    Ok(parsed)
}

fn run(arguments: &Arguments) -> Result<u32, Box<dyn std::error::Error>> {
    let mut reactor = Reactor::new()?;
    let tls = match &arguments.ca {
        Some(file) => Some(TlsConfig::builder().root_certificates_file(file)?.build()?),
        None => None,
    };
    let request = |path: String| -> Result<Request, websockex::Error> {
        let request =
            Request::new(format!("{}{path}", arguments.url))?.reconnect(ReconnectPolicy::never());
        let request = match &tls {
            Some(tls) => request.tls(tls.clone()),
            None => request,
        };
        Ok(match arguments.deflate {
            true => request.deflate(Deflate::new()),
            false => request,
        })
    };
    let count = Rc::new(Cell::new(0));
    let failure = Rc::new(RefCell::new(None));
    let asked = Count {
        count: Rc::clone(&count),
        failure: Rc::clone(&failure),
    };
    reactor.connect(request("/getCaseCount".into())?, asked)?;
    reactor.run()?;
    for case in 1..=count.get() {
        let path = format!("/runCase?case={case}&agent={}", arguments.agent);
        reactor.connect(
            request(path)?,
            Echo {
                failure: Rc::clone(&failure),
            },
        )?;
        reactor.run()?;
        if let Some(error) = failure.take() {
            return Err(format!("case {case}: {error}").into());
        }
    }
    let path = format!("/updateReports?agent={}", arguments.agent);
    reactor.connect(
        request(path)?,
        Echo {
            failure: Rc::clone(&failure),
        },
    )?;
    reactor.run()?;
    match failure.take() {
        Some(error) => Err(error.into()),
        None if count.get() == 0 => Err("the server has no cases".into()),
        None => Ok(count.get()),
    }
}

/// Why the suite cannot go on, if it cannot.
type Failure = Rc<RefCell<Option<String>>>;

/// A connection that never opened means that the suite is gone; all else is the suite's to judge.
fn note_failure(failure: &Failure, disconnect: &Disconnect<'_>) {
    if let DisconnectReason::ConnectFailed(error) = disconnect.reason {
        *failure.borrow_mut() = Some(error.to_string());
    }
}

/// Takes the number of cases.
struct Count {
    count: Rc<Cell<u32>>,
    failure: Failure,
}

impl Handler for Count {
    fn on_message(&mut self, _cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        if let Message::Text(text) = message {
            self.count.set(text.parse()?);
        }
        Ok(())
    }

    fn on_disconnect(&mut self, _: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        note_failure(&self.failure, disconnect);
        Reconnect::ByPolicy
    }
}

/// Sends back what comes.
struct Echo {
    failure: Failure,
}

impl Handler for Echo {
    fn on_message(&mut self, cx: &mut Context<'_>, message: Message<'_>) -> HandlerResult {
        match cx.send(message) {
            // The server may close while its messages are still on their way.
            Ok(()) | Err(websockex::SendError::Closing) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn on_disconnect(&mut self, _: &mut Context<'_>, disconnect: &Disconnect<'_>) -> Reconnect {
        note_failure(&self.failure, disconnect);
        Reconnect::ByPolicy
    }
}
