//! The reports of the modes that end otherwise than with a full tally.

use websockex_peers::{Arguments, Report, Result, Tally, Usage, live_heap, resident};

/// The report of `send`, from the server's answer: how many messages, and their checksum.
pub(crate) fn sent(
    client: &str,
    arguments: &Arguments,
    usage: &Usage,
    answer: &[u8],
) -> Result<Report> {
    let answer = std::str::from_utf8(answer)?;
    let (messages, checksum) = answer
        .split_once(' ')
        .ok_or("the server's answer is not MESSAGES CHECKSUM")?;
    let mut tally = Tally::new(0, false);
    tally.messages = messages.parse()?;
    tally.bytes = tally.messages * arguments.size as u64;
    let mut report = Report::new(client, arguments, usage, &tally);
    report.checksum = checksum.to_owned();
    Ok(report)
}

/// The report of `idle`, from resident memory and live heap `before` the connections.
pub(crate) fn idle(mut report: Report, before: (u64, i64)) -> Report {
    let connections = report.connections.max(1) as f64;
    report.resident_per_connection = resident().saturating_sub(before.0) as f64 / connections;
    report.heap_per_connection = (live_heap() - before.1) as f64 / connections;
    report
}
