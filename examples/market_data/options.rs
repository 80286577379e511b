//! The command line.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Consumes market data on very many WebSocket connections with one reactor, and measures it.

Without --url it starts an exchange of its own on the loopback interface, in a thread of this
process, and checks that not one message is lost.

usage: market_data [OPTIONS]

  --connections N    connections to open (default 1000; with --url 1)
  --tls              wss instead of ws; the certificate is verified
  --rate R           messages per second that the exchange publishes in all (default 100000)
  --seconds S        how long to measure once everybody has subscribed (default 10)
  --json             print the summary as one JSON line on standard output
  --report FILE      write what was measured as one HTML page with plots
  --trace NUMBER     print what happens on this connection, from 0, frames and all
  --url URL          consume this venue instead of the exchange of our own
  --subscribe TEXT   with --url: a message to send on open; may be given several times
  --help             print this

A signal USR1 prints all connections as a table.

CPU time is that of the reactor's thread, the exchange not included, where the system tells it.

exit status: 0 all went well; 1 a connection could not be opened or was lost, or a sequence number
was missed; 2 wrong usage
";

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    pub(crate) json: bool,
    /// Where to write the report.
    pub(crate) report: Option<PathBuf>,
    /// The connection to be traced.
    pub(crate) trace: Option<usize>,
    pub(crate) source: Source,
}

/// Where the messages come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// The embedded exchange.
    Exchange {
        tls: bool,
        /// Messages per second.
        rate: f64,
    },
    /// A real venue.
    Venue { url: String, subscribe: Vec<String> },
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Asked {
    Help,
    Run(Options),
}

const DEFAULT_CONNECTIONS: usize = 1000;
/// Two cores cope with it over TLS too, and are far enough from saturation for the latency to be
/// that of the software and not that of a queue.
const DEFAULT_RATE: f64 = 100_000.0;
const DEFAULT_SECONDS: f64 = 10.0;

/// Reads the arguments, the program's name not among them.
///
/// # Errors
/// What is wrong with them, in one line.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Asked, String> {
    let (mut connections, mut seconds, mut rate) = (None, None, None);
    let (mut tls, mut json) = (false, false);
    let (mut report, mut trace) = (None, None);
    let (mut url, mut subscribe) = (None, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let next = arguments.next();
            next.ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--help" | "-h" => return Ok(Asked::Help),
            "--tls" => tls = true,
            "--json" => json = true,
            "--connections" => connections = Some(count(&argument, &value()?)?),
            "--seconds" => seconds = Some(positive(&argument, &value()?)?),
            "--rate" => rate = Some(positive(&argument, &value()?)?),
            "--report" => report = Some(PathBuf::from(value()?)),
            "--trace" => trace = Some(number(&argument, &value()?)?),
            "--url" => url = Some(value()?),
            "--subscribe" => subscribe.push(value()?),
            _ => return Err(format!("unknown argument: {argument}")),
        }
    }
    let default_connections = if url.is_some() {
        1
    } else {
        DEFAULT_CONNECTIONS
    };
    let source = match url {
        Some(_) if tls || rate.is_some() => {
            return Err("--tls and --rate are for the exchange of our own, not for --url".into());
        }
        Some(url) => Source::Venue { url, subscribe },
        None if !subscribe.is_empty() => return Err("--subscribe needs --url".into()),
        None => Source::Exchange {
            tls,
            rate: rate.unwrap_or(DEFAULT_RATE),
        },
    };
    Ok(Asked::Run(Options {
        connections: connections.unwrap_or(default_connections),
        duration: Duration::try_from_secs_f64(seconds.unwrap_or(DEFAULT_SECONDS))
            .map_err(|error| format!("--seconds: {error}"))?,
        json,
        report,
        trace,
        source,
    }))
}

fn count(name: &str, value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(0) | Err(_) => Err(format!("{name} takes a whole number from 1, not {value:?}")),
        Ok(count) => Ok(count),
    }
}

fn number(name: &str, value: &str) -> Result<usize, String> {
    let number = value.parse();
    number.map_err(|_| format!("{name} takes a whole number, not {value:?}"))
}

fn positive(name: &str, value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("{name} takes a number above 0, not {value:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Asked, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn options(line: &str) -> Options {
        match parsed(line) {
            Ok(Asked::Run(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_every_option() {
        let options = options(
            "--connections 7 --tls --rate 1e3 --seconds 0.5 --json --report a.html --trace 0",
        );
        assert_eq!(
            (options.report, options.trace),
            (Some("a.html".into()), Some(0))
        );
        assert_eq!(options.connections, 7);
        assert_eq!(options.duration, Duration::from_millis(500));
        assert!(options.json);
        let (tls, rate) = (true, 1000.0);
        assert_eq!(options.source, Source::Exchange { tls, rate });
    }

    #[test]
    fn a_venue_has_other_defaults() {
        assert_eq!(options("").connections, DEFAULT_CONNECTIONS);
        let options = options("--url wss://example.com --subscribe a --subscribe b");
        assert_eq!(options.connections, 1);
        let expected = Source::Venue {
            url: "wss://example.com".into(),
            subscribe: vec!["a".into(), "b".into()],
        };
        assert_eq!(options.source, expected);
    }

    #[test]
    fn says_what_is_wrong() {
        for (line, complaint) in [
            ("--nothing", "unknown argument: --nothing"),
            ("--rate", "--rate needs a value"),
            ("--rate -1", "--rate takes a number above 0"),
            ("--rate inf", "--rate takes a number above 0"),
            ("--seconds 1e300", "--seconds: "),
            (
                "--connections 0",
                "--connections takes a whole number from 1",
            ),
            ("--trace one", "--trace takes a whole number, not"),
            ("--subscribe x", "--subscribe needs --url"),
            ("--url ws://x --tls", "--tls and --rate are for"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.starts_with(complaint), "{line}: {error}");
        }
        assert_eq!(parsed("--json --help"), Ok(Asked::Help));
    }
}
