//! Which connections there are, shared between the reactor and its [`Remote`](super::Remote)s: ids
//! are given out here, and how far each connection has come is published here.
//!
//! Touched when a connection begins, changes its stage or ends; never per message.

use crate::error::Error;
use crate::handler::ConnectionId;
use crate::request::Request;
use crate::stats::meter::ConnectionMeter;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

const NO_SLOT: Error = Error::Refused("all connection slots are taken");

/// What other threads may know of a connection: can it be sent to?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    NotOpen,
    /// It is not open; what is sent is held until it is.
    Holding,
    /// Likewise, but as much is held as may be.
    HoldFull,
    Open,
    Closing,
}

impl Availability {
    /// Before the first attempt.
    pub(super) fn at_first(request: &Request) -> Self {
        if request.target.options.hold.is_some() {
            Self::Holding
        } else {
            Self::NotOpen
        }
    }
}

/// The slots of a reactor, and who is in them.
#[derive(Default)]
pub(super) struct Slots {
    entries: Vec<Entry>,
    free: Vec<u32>,
    occupied: usize,
    names: HashMap<String, ConnectionId>,
}

struct Entry {
    /// Counts the users of the slot, so that an id is never used twice (pitfall 24).
    generation: u32,
    state: Option<Availability>,
    /// Its numbers, once the reactor knows of it.
    meter: Option<Arc<ConnectionMeter>>,
}

impl Slots {
    /// Takes a slot for the connection of `request`, and its name if there is one.
    pub(super) fn reserve_for(&mut self, request: &Request) -> Result<ConnectionId, Error> {
        let id = self.reserve(request.target.options.name.as_deref())?;
        self.publish(id, Availability::at_first(request));
        Ok(id)
    }

    fn reserve(&mut self, name: Option<&str>) -> Result<ConnectionId, Error> {
        if let Some(name) = name
            && self.names.contains_key(name)
        {
            return Err(Error::NameTaken(name.to_owned()));
        }
        let id = self.take().ok_or(NO_SLOT)?;
        if let Some(name) = name {
            self.names.insert(name.to_owned(), id);
        }
        Ok(id)
    }

    /// Who has this name.
    pub(super) fn find(&self, name: &str) -> Option<ConnectionId> {
        self.names.get(name).copied()
    }

    /// `None` when all that can be numbered are taken.
    fn take(&mut self) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.entries.len()).ok()?;
                if slot == u32::MAX {
                    return None;
                }
                self.entries.push(Entry {
                    generation: 0,
                    state: None,
                    meter: None,
                });
                slot
            }
        };
        let entry = &mut self.entries[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.state = Some(Availability::NotOpen);
        self.occupied += 1;
        Some(ConnectionId::new(slot, entry.generation))
    }

    /// Gives the slot of `id` back, and its name.
    pub(super) fn release(&mut self, id: ConnectionId, name: Option<&str>) {
        if let Some(name) = name
            && self.names.get(name) == Some(&id)
        {
            self.names.remove(name);
        }
        if let Some(entry) = self.entry(id) {
            entry.state = None;
            entry.meter = None;
            self.free.push(id.slot());
            self.occupied -= 1;
        }
    }

    pub(super) fn register(&mut self, id: ConnectionId, meter: &Arc<ConnectionMeter>) {
        if let Some(entry) = self.entry(id) {
            entry.meter = Some(Arc::clone(meter));
        }
    }

    pub(super) fn meter(&mut self, id: ConnectionId) -> Option<Arc<ConnectionMeter>> {
        self.entry(id)?.meter.clone()
    }

    /// How many slots there are, in use or not.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The numbers of those connections whose slots are in `range`.
    pub(super) fn meters(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (ConnectionId, &Arc<ConnectionMeter>)> {
        let end = range.end.min(self.entries.len());
        (range.start..end).filter_map(|slot| {
            let entry = &self.entries[slot];
            let id = ConnectionId::new(u32::try_from(slot).ok()?, entry.generation);
            Some((id, entry.meter.as_ref()?))
        })
    }

    pub(super) fn publish(&mut self, id: ConnectionId, state: Availability) {
        if let Some(entry) = self.entry(id) {
            entry.state = Some(state);
        }
    }

    /// `None`: there is no such connection any more.
    pub(super) fn availability(&mut self, id: ConnectionId) -> Option<Availability> {
        self.entry(id)?.state
    }

    /// How many connections there are.
    pub(super) fn occupied(&self) -> usize {
        self.occupied
    }

    /// The entry of `id`, if it is still its user.
    fn entry(&mut self, id: ConnectionId) -> Option<&mut Entry> {
        self.entries
            .get_mut(id.slot() as usize)
            .filter(|entry| entry.generation == id.generation() && entry.state.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pitfall 24: the id of a connection that has ended does not reach its successor.
    #[test]
    fn pitfall_24_a_slot_used_again_has_another_id() {
        let mut slots = Slots::default();
        let first = slots.reserve(None).unwrap();
        let second = slots.reserve(None).unwrap();
        slots.publish(first, Availability::Open);
        slots.release(first, None);
        let third = slots.reserve(None).unwrap();
        assert_eq!(third.slot(), first.slot());
        assert_ne!(third, first);
        slots.publish(first, Availability::Closing);
        slots.release(first, None);
        assert_eq!(slots.availability(first), None);
        assert_eq!(slots.availability(third), Some(Availability::NotOpen));
        assert_eq!(slots.availability(second), Some(Availability::NotOpen));
        assert_eq!(slots.occupied(), 2);
    }

    #[test]
    fn a_name_has_one_owner_at_a_time() {
        let mut slots = Slots::default();
        let first = slots.reserve(Some("trades")).unwrap();
        assert!(matches!(
            slots.reserve(Some("trades")),
            Err(Error::NameTaken(_))
        ));
        assert_eq!(slots.occupied(), 1);
        assert_eq!(slots.find("trades"), Some(first));
        slots.release(first, Some("trades"));
        assert_eq!(slots.find("trades"), None);
        let second = slots.reserve(Some("trades")).unwrap();
        slots.release(first, Some("trades"));
        assert_eq!(slots.find("trades"), Some(second));
    }
}
