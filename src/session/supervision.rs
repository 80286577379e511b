//! Starting a connection anew after it has ended: when, and how often before its owner is told.

use super::Time;
use crate::error::DisconnectReason;
use crate::error::Error;
use crate::protocol::close::CloseCode;
use std::collections::VecDeque;
use std::time::Duration;

/// Which ends of a connection are followed by a new start with a fresh handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// None.
    Never,
    /// Those that are failures: a handler that failed, a policy that gave up, a peer that broke the
    /// protocol. A close from this side, and one from the peer with 1000, 1001 or no code, is none.
    #[default]
    OnFailure,
    /// All but those that come with the end of the reactor.
    Always,
}

/// When a supervised connection is started anew. The default: on failure, at most three times in
/// five seconds; then the failure goes to the owner, as an [`Error::Ended`] of
/// [`Reactor::run`](crate::Reactor::run).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supervision {
    restart: Restart,
    most: u32,
    period: Duration,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            restart: Restart::OnFailure,
            most: 3,
            period: Duration::from_secs(5),
        }
    }
}

impl Supervision {
    /// Supervision with this kind of restart, and the default intensity.
    pub fn new(restart: Restart) -> Self {
        Self {
            restart,
            ..Self::default()
        }
    }

    /// Allows at most `restarts` restarts within `period`.
    #[must_use]
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        (self.most, self.period) = (restarts, period);
        self
    }

    pub(crate) fn most(&self) -> u32 {
        self.most
    }
}

/// The restarts of one connection.
#[derive(Default)]
pub(crate) struct Restarts {
    times: VecDeque<Time>,
}

/// What follows the end of a supervised connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// That was it.
    End,
    /// A new start, the `usize`th in this period.
    Restart(usize),
    /// It has failed too often.
    Escalate,
}

impl Restarts {
    /// Judges an end at `now`, which was a failure or not.
    pub(crate) fn judge(&mut self, supervision: &Supervision, failure: bool, now: Time) -> Verdict {
        let wanted = match supervision.restart {
            Restart::Never => false,
            Restart::OnFailure => failure,
            Restart::Always => true,
        };
        if !wanted {
            return Verdict::End;
        }
        while self
            .times
            .front()
            .is_some_and(|then| now.since(*then) >= supervision.period)
        {
            self.times.pop_front();
        }
        if self.times.len() >= supervision.most as usize {
            return Verdict::Escalate;
        }
        self.times.push_back(now);
        Verdict::Restart(self.times.len())
    }
}

/// Is this not how connections are meant to end?
pub(crate) fn is_failure(reason: &DisconnectReason) -> bool {
    match reason {
        DisconnectReason::Local { .. } => false,
        DisconnectReason::Remote { code, .. } => !matches!(
            *code,
            Some(CloseCode::NORMAL | CloseCode::GOING_AWAY) | None
        ),
        _ => true,
    }
}

/// The reason as an error, for somebody who waits for the connection.
pub(crate) fn into_error(reason: DisconnectReason) -> Error {
    match reason {
        DisconnectReason::ConnectFailed(error) | DisconnectReason::Failed(error) => error,
        reason => Error::Ended {
            connection: String::new(),
            reason: Box::new(reason),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO.after(Duration::from_secs(seconds))
    }

    #[test]
    fn too_many_restarts_in_a_period_escalate() {
        let supervision = Supervision::new(Restart::Always).intensity(2, Duration::from_secs(10));
        let mut restarts = Restarts::default();
        let mut judge = |seconds| restarts.judge(&supervision, true, at(seconds));
        assert_eq!(judge(0), Verdict::Restart(1));
        assert_eq!(judge(5), Verdict::Restart(2));
        assert_eq!(judge(9), Verdict::Escalate);
        assert_eq!(
            judge(10),
            Verdict::Restart(2),
            "the first one is ten seconds ago"
        );
        assert_eq!(judge(14), Verdict::Escalate);
        assert_eq!(judge(30), Verdict::Restart(1));
    }

    #[test]
    fn what_counts_as_a_failure() {
        let remote = |code: u16| DisconnectReason::Remote {
            code: Some(code.into()),
            reason: String::new(),
        };
        let local = DisconnectReason::Local {
            code: None,
            reason: String::new(),
        };
        let judge = |restart, reason: &DisconnectReason| {
            Restarts::default().judge(&Supervision::new(restart), is_failure(reason), at(0))
        };
        for (reason, failure) in [
            (local, false),
            (remote(1000), false),
            (remote(1001), false),
            (remote(1011), true),
            (DisconnectReason::Dropped, true),
        ] {
            assert_eq!(
                judge(Restart::OnFailure, &reason) != Verdict::End,
                failure,
                "{reason:?}"
            );
            assert_ne!(judge(Restart::Always, &reason), Verdict::End);
            assert_eq!(judge(Restart::Never, &reason), Verdict::End);
        }
    }
}
