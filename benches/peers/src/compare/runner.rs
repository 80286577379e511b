//! Runs a client against the server, and checks what it reports.

use super::workloads::Workload;
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;
use websockex_peers::{Arguments, Granted, Mode, Report, Result, checksum, tls};

/// A client that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the server has to say comes at once.
const SERVER_PATIENCE: Duration = Duration::from_secs(10);
/// The core of the server, and that of the client.
const SERVER_CPU: &str = "0";
const CLIENT_CPU: &str = "1";

/// The server, and what is needed to run clients against it.
pub(crate) struct Runner {
    programs: PathBuf,
    folder: PathBuf,
    server: Child,
    questions: Option<ChildStdin>,
    lines: Receiver<String>,
    ports: (u16, u16),
    runs: u64,
}

/// What the server says of a run.
#[derive(Debug, Deserialize)]
struct Answer {
    run: u64,
    messages: u64,
    checksum: String,
    #[serde(flatten)]
    granted: Granted,
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
        let questions = server.stdin.take();
        Ok(Self {
            programs,
            folder,
            server,
            questions,
            lines,
            ports,
            runs: 0,
        })
    }

    /// One run. Its report is checked: all messages, and the right ones, and all connections.
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
        let mut report = collect(command.stdout(Stdio::piped()).spawn()?)?;
        if report.unsupported.is_none() {
            let answer = self.ask()?;
            report.granted = answer.granted;
            check_messages(&report, workload, &answer)?;
            check_connections(workload, answer.granted)?;
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
            Mode::Echo => format!("echo?run={run}&{query}"),
            Mode::Send => format!("send?run={run}&count={messages}&{query}"),
            Mode::Idle | Mode::Handshakes => format!("idle?run={run}"),
        };
        format!("{scheme}:{port}/{target}")
    }

    /// What the server has to say of the run that has just ended.
    fn ask(&mut self) -> Result<Answer> {
        let questions = self.questions.as_mut().ok_or("the server is gone")?;
        writeln!(questions, "{}", self.runs)?;
        loop {
            let line = self.lines.recv_timeout(SERVER_PATIENCE)?;
            let answer: Answer = serde_json::from_str(&line)?;
            // One may have come too late, when the question was given up.
            if answer.run == self.runs {
                return Ok(answer);
            }
        }
    }
}

fn check_messages(report: &Report, workload: &Workload, answer: &Answer) -> Result<()> {
    let (messages, sum) = match workload.mode {
        Mode::Idle => return Ok(()),
        Mode::Handshakes => (workload.messages, report.checksum.clone()),
        Mode::Echo | Mode::Send => {
            let sum = checksum(Arguments::payload_of(workload.size()).as_bytes());
            let sum = sum.wrapping_mul(workload.messages);
            (workload.messages, format!("{sum:016x}"))
        }
        Mode::Receive => (answer.messages, answer.checksum.clone()),
    };
    if (report.messages, report.checksum.as_str()) == (messages, sum.as_str()) {
        return Ok(());
    }
    let (has, has_sum) = (report.messages, &report.checksum);
    Err(format!("{has} messages with {has_sum}, and not {messages} with {sum}").into())
}

/// Were all connections there that the figures are divided by, and of the kind that was asked for?
fn check_connections(workload: &Workload, granted: Granted) -> Result<()> {
    let Granted {
        upgrades,
        full,
        resumed,
    } = granted;
    let connections = workload.connections as u64;
    let (least, most) = match workload.mode {
        Mode::Receive => {
            let all = connections + workload.idle();
            (all, all)
        }
        Mode::Echo | Mode::Send => (1, 1),
        Mode::Idle => (connections + 1, connections + 1),
        // With or without one before the meter starts.
        Mode::Handshakes => (workload.messages, workload.messages + 1),
    };
    if !(least..=most).contains(&upgrades) {
        return Err(format!("the server granted {upgrades} upgrades, not {least}").into());
    }
    if workload.tls && full + resumed != upgrades {
        return Err(format!("{full} full and {resumed} resumed of {upgrades} handshakes").into());
    }
    if workload.mode == Mode::Handshakes && !workload.is_resumed() && resumed > 0 {
        return Err(format!("{resumed} handshakes were resumed, and all should be full").into());
    }
    Ok(())
}

impl Drop for Runner {
    fn drop(&mut self) {
        // The end of its input is the end of the server, and that of its lines.
        drop(self.questions.take());
        while self.lines.recv_timeout(SERVER_PATIENCE).is_ok() {}
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Waits for a client, and reads its last line. Nothing of the runner wakes up meanwhile: there are no
/// more than the two cores that are measured.
fn collect(mut client: Child) -> Result<Report> {
    let mut output = client.stdout.take().ok_or("the client has no output")?;
    let (sender, ended) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        // Nobody waits for it any more if the client took too long.
        let _ = sender.send(output.read_to_string(&mut text).map(|_| text));
    });
    let text = match ended.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => {
            client.kill()?;
            client.wait()?;
            return Err("it took too long".into());
        }
        text => text??,
    };
    let status = client.wait()?;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    let line = text.lines().last().ok_or("it said nothing")?;
    Ok(serde_json::from_str(line)?)
}
