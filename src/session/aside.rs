//! What few connections have at a time: kept apart, so that an idle one pays a pointer for it.

use super::backlog::{Backlog, Waiting};
use super::closing::Handing;
use super::life::Life;
use super::options::Target;
use super::pace::Paced;
use crate::error::{DisconnectReason, SendError};

/// What a connection has put aside until it opens, and what it comes to before it ends.
#[derive(Default)]
pub(crate) struct Aside {
    /// Why the connection ends, once that is known.
    ending: Option<DisconnectReason>,
    /// The target as it was built, while an attempt is made with a refreshed one or another server
    /// is tried after a redirect.
    pub(super) built: Option<Target>,
    /// What it is that the next open ends.
    pub(super) before: Option<Before>,
    /// Messages for the next open.
    pub(super) held: Backlog,
    /// Frames that wait for their pace.
    pub(super) paced: Paced,
    /// How many messages were put aside since there was nothing.
    pub(super) entered: u64,
    /// Somebody waits for some of them: the numbers go on, and what becomes of each is noted.
    watched: bool,
    /// What has become of which since that was last asked.
    outcomes: Vec<(u64, Outcome)>,
    /// A Close frame that waits behind other output.
    pub(super) handing: Option<Handing>,
}

/// What has become of a message that was put aside: it has left, or never will.
pub(crate) type Outcome = Result<(), SendError>;

/// What came before an open.
pub(crate) struct Before {
    pub(crate) step: Comeback,
    pub(crate) reason: DisconnectReason,
}

/// How a connection comes back after an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comeback {
    /// To where it was.
    Again,
    /// To another target, which the handler has named.
    Elsewhere,
    /// With a fresh handler, by supervision.
    Anew,
}

impl Aside {
    fn is_empty(&self) -> bool {
        !self.watched
            && self.ending.is_none()
            && self.built.is_none()
            && self.before.is_none()
            && self.handing.is_none()
            && self.held.is_empty()
            && self.paced.is_empty()
    }

    /// What has left in this turn has not left after all.
    pub(super) fn lose(&mut self) {
        for (_, outcome) in &mut self.outcomes {
            *outcome = outcome.and(Err(SendError::Gone));
        }
    }

    pub(super) fn note(&mut self, waiting: &Waiting, outcome: Outcome) {
        if self.watched {
            self.outcomes.push((waiting.ordinal(), outcome));
        }
    }
}

impl Life {
    pub(super) fn aside(&mut self) -> &mut Aside {
        self.aside.get_or_insert_default()
    }

    /// Somebody waits for messages that were put aside, or nobody does any more.
    pub(crate) fn watch(&mut self, watched: bool) {
        if watched {
            self.aside().watched = true;
        } else if let Some(aside) = &mut self.aside {
            aside.watched = false;
            aside.outcomes.clear();
            self.tidy();
        }
    }

    /// What has become of which messages, by their numbers, since this was last asked.
    pub(crate) fn outcomes(&mut self) -> impl Iterator<Item = (u64, Outcome)> {
        let aside = self.aside.iter_mut();
        aside.flat_map(|aside| aside.outcomes.drain(..))
    }

    /// Why it ends, if that is known.
    pub(super) fn ending(&self) -> Option<&DisconnectReason> {
        self.aside.as_ref()?.ending.as_ref()
    }

    pub(super) fn set_ending(&mut self, reason: DisconnectReason) {
        self.aside().ending = Some(reason);
    }

    pub(super) fn take_ending(&mut self) -> Option<DisconnectReason> {
        let reason = self.aside.as_mut()?.ending.take()?;
        self.tidy();
        Some(reason)
    }

    /// Likewise when the end is there. What is no longer needed is given back if the connection goes on;
    /// otherwise there will be an ending again.
    pub(super) fn take_last_ending(&mut self) -> Option<DisconnectReason> {
        let aside = self.aside.as_mut()?;
        aside.handing = None;
        aside.ending.take()
    }

    /// What is no longer needed takes no memory.
    pub(super) fn tidy(&mut self) {
        if self.aside.as_ref().is_some_and(|aside| aside.is_empty()) {
            self.aside = None;
        }
    }

    /// It has ended for `reason` and comes back. Data is missing since it was last open, so what was
    /// remembered of that stays; a failed attempt before the first open leaves no gap.
    pub(super) fn remember(&mut self, step: Comeback, reason: DisconnectReason) {
        let was_open = self.attempt == 0;
        if !was_open && let Some(before) = &mut self.aside().before {
            if step == Comeback::Elsewhere {
                before.step = step;
            }
        } else if was_open || step == Comeback::Elsewhere {
            self.aside().before = Some(Before { step, reason });
        }
        self.tidy();
    }

    /// Supervision has begun it in the place of one that ended for `reason`, and held messages, of
    /// which the last had the number `entered`.
    pub(crate) fn succeed(&mut self, reason: DisconnectReason, held: Backlog, entered: u64) {
        let step = Comeback::Anew;
        *self.aside() = Aside {
            before: Some(Before { step, reason }),
            held,
            entered,
            ..Aside::default()
        };
    }

    /// It is open: what came before is told once.
    pub(crate) fn take_before(&mut self) -> Option<Before> {
        let before = self.aside.as_mut()?.before.take();
        self.tidy();
        before
    }
}
