//! Runs a client against the server, and checks what it reports.

use super::workloads::Workload;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use websockex_peers::{Arguments, Mode, Report, Result, checksum, tls};

/// A client that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the server has to say comes at once.
const SERVER_PATIENCE: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The core of the server, and that of the client.
const SERVER_CPU: &str = "0";
const CLIENT_CPU: &str = "1";

/// The server, and what is needed to run clients against it.
pub(crate) struct Runner {
    programs: PathBuf,
    folder: PathBuf,
    server: Child,
    lines: Receiver<String>,
    ports: (u16, u16),
    runs: u64,
}

impl Runner {
    /// Starts the server, with an authority of its own. `programs` is the folder of the executables.
    pub(crate) fn new(programs: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("websockex-peers-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        tls::write_certificates(&folder)?;
        let mut server = Command::new(programs.join("server"))
            .arg(&folder)
            .arg(SERVER_CPU)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = server.stdout.take().ok_or("the server has no output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output)
                .lines()
                .map_while(std::result::Result::ok)
            {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let line = lines.recv_timeout(SERVER_PATIENCE)?;
        let mut ports = line.split(' ').skip(1).map(str::parse);
        let ports = match (ports.next(), ports.next()) {
            (Some(ws), Some(wss)) => (ws?, wss?),
            _ => return Err(format!("the server says {line}").into()),
        };
        let programs = programs.to_owned();
        Ok(Self {
            programs,
            folder,
            server,
            lines,
            ports,
            runs: 0,
        })
    }

    /// One run. Its report is checked: all messages, and the right ones.
    pub(crate) fn run(&mut self, client: &str, workload: &Workload) -> Result<Report> {
        self.runs += 1;
        let mut command = Command::new(self.programs.join(client));
        command.args(["--cpu", CLIENT_CPU, "--mode", workload.mode.name()]);
        command.args(["--connections", &workload.connections.to_string()]);
        command.args(["--messages", &workload.messages.to_string()]);
        command
            .args(["--url", &self.url(workload)])
            .args(workload.arguments);
        if workload.tls {
            command.arg("--ca").arg(self.folder.join(tls::CA_FILE));
        }
        let report = collect(command.stdout(Stdio::piped()).spawn()?)?;
        if report.unsupported.is_none() {
            self.check(&report, workload)?;
        }
        Ok(report)
    }

    fn url(&self, workload: &Workload) -> String {
        let (scheme, port) = match workload.tls {
            true => ("wss://localhost", self.ports.1),
            false => ("ws://127.0.0.1", self.ports.0),
        };
        let (run, query, messages) = (self.runs, workload.query, workload.messages);
        let target = match workload.mode {
            Mode::Receive => {
                let connections = workload.connections;
                let count = messages / connections as u64;
                format!("receive?run={run}&connections={connections}&count={count}&{query}")
            }
            Mode::Echo => format!("echo?{query}"),
            Mode::Send => format!("send?count={messages}&{query}"),
            Mode::Idle | Mode::Handshakes => "idle".to_owned(),
        };
        format!("{scheme}:{port}/{target}")
    }

    fn check(&self, report: &Report, workload: &Workload) -> Result<()> {
        let (messages, sum) = match workload.mode {
            Mode::Idle => return Ok(()),
            Mode::Handshakes => (workload.messages, report.checksum.clone()),
            Mode::Echo | Mode::Send => {
                let sum = checksum(Arguments::payload_of(workload.size()).as_bytes());
                let sum = sum.wrapping_mul(workload.messages);
                (workload.messages, format!("{sum:016x}"))
            }
            Mode::Receive => loop {
                let line = self.lines.recv_timeout(SERVER_PATIENCE)?;
                let said: serde_json::Value = serde_json::from_str(&line)?;
                // Of a run that was given up there may still be a line.
                if said["run"].as_u64() == Some(self.runs) {
                    let sum = said["checksum"].as_str().unwrap_or("").to_owned();
                    break (said["messages"].as_u64().unwrap_or(0), sum);
                }
            },
        };
        if (report.messages, report.checksum.as_str()) == (messages, sum.as_str()) {
            return Ok(());
        }
        let (has, has_sum) = (report.messages, &report.checksum);
        Err(format!("{has} messages with {has_sum}, and not {messages} with {sum}").into())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // The end of its input is the end of the server.
        drop(self.server.stdin.take());
        let deadline = Instant::now() + SERVER_PATIENCE;
        while Instant::now() < deadline && matches!(self.server.try_wait(), Ok(None)) {
            thread::sleep(POLL_INTERVAL);
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Waits for a client, and reads its last line.
fn collect(mut client: Child) -> Result<Report> {
    let mut output = client.stdout.take().ok_or("the client has no output")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = client.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            client.kill()?;
            client.wait()?;
            return Err("it took too long".into());
        }
        thread::sleep(POLL_INTERVAL);
    };
    let text = reader.join().map_err(|_| "the reader panicked")??;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    let line = text.lines().last().ok_or("it said nothing")?;
    Ok(serde_json::from_str(line)?)
}
