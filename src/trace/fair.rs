//! Keeps events so that no connection can crowd out another's: for the lifecycle events, which are
//! few and are what a flight recorder is opened for.
//!
//! One of the two stores of [`super::ring`]; the other is [`super::newest`]. Who gives up an event
//! for a new one, when all places are taken:
//!
//! 1. the connection itself, if it holds its share already: its own oldest event;
//! 2. else connections that have ended, the one first that ended first: their handlers have seen
//!    their last events in `on_terminate`;
//! 3. else the connection that holds most, and that is itself if no other holds more: its oldest event.
//!
//! So with N live connections, one that has recorded no more than capacity / N events (and no more
//! than the share) has lost none of them, whatever the others do.
//!
//! Everything is found in constant time: the events of a connection form a list, connections that
//! hold equally many form a list, and a table finds a connection's entry. All of it is reserved when
//! the store is made.

use super::event::Event;
use super::kind::Kind;

/// No event, no owner.
const NONE: u32 = u32::MAX;
/// The list of owners that have ended; that of live ones which hold n events is number n.
const ENDED: usize = 0;

/// At least so many events of one connection are kept, where there is room: its way to an open
/// connection takes seven or eight, so this shows the last few attempts.
const LEAST_SHARE: usize = 32;
/// In a large store a connection may hold this part of it.
const SHARE_DIVISOR: usize = 64;

/// Events of many connections, each with its fair part.
pub(super) struct Fair {
    events: Vec<Event>,
    /// By place: that of the same connection's next event.
    later: Vec<u32>,
    capacity: usize,
    /// Most events that one connection holds.
    share: usize,
    owners: Vec<Owner>,
    /// Entries of `owners` that are not in use, linked by `after`.
    vacant: u32,
    /// Owners by connection: open addressing, half empty at least.
    table: Box<[u32]>,
    lists: Box<[List]>,
    /// No live owner holds more events than this.
    heaviest: usize,
    overwritten: u64,
}

/// A connection that holds at least one event.
#[derive(Clone, Copy)]
struct Owner {
    connection: u64,
    oldest: u32,
    newest: u32,
    /// Of 32 bits, so that all of it has 32 bytes: of very many connections each event has an owner of
    /// its own.
    count: u32,
    ended: bool,
    /// Neighbours in its list.
    before: u32,
    after: u32,
}

const _: () = assert!(size_of::<Owner>() == 32);

impl Owner {
    fn list(&self) -> usize {
        if self.ended { ENDED } else { index(self.count) }
    }
}

#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

impl Fair {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let share = LEAST_SHARE.max(capacity / SHARE_DIVISOR).min(capacity);
        Self {
            events: Vec::with_capacity(capacity),
            later: Vec::with_capacity(capacity),
            capacity,
            share,
            owners: Vec::with_capacity(capacity),
            vacant: NONE,
            table: vec![NONE; (2 * capacity).next_power_of_two()].into_boxed_slice(),
            lists: vec![
                List {
                    first: NONE,
                    last: NONE,
                };
                share + 1
            ]
            .into_boxed_slice(),
            heaviest: 0,
            overwritten: 0,
        }
    }

    /// Never allocates, never fails.
    pub(super) fn record(&mut self, event: Event) {
        if self.capacity == 0 {
            return;
        }
        let connection = event.connection();
        let own = self.find(connection);
        let place = self.place_for(own);
        if index(place) == self.events.len() {
            self.events.push(event);
            self.later.push(NONE);
        } else {
            self.events[index(place)] = event;
            self.later[index(place)] = NONE;
        }
        // Its only event may have been the one that made room, and with that it is forgotten.
        let owner = match own {
            own if own != NONE && self.owners[index(own)].count > 0 => own,
            _ => self.add_owner(connection),
        };
        self.append(owner, place);
        // Under supervision a connection begins anew after its end.
        self.set_ended(owner, event.kind() == Kind::Terminated);
    }

    /// The connection has ended, and no event says so: its level forbids that.
    pub(super) fn end(&mut self, connection: u64) {
        match self.find(connection) {
            NONE => {}
            owner => self.set_ended(owner, true),
        }
    }

    /// The events of one connection, oldest first.
    pub(super) fn of(&self, connection: u64) -> impl Iterator<Item = &Event> {
        let mut next = match self.find(connection) {
            NONE => NONE,
            owner => self.owners[index(owner)].oldest,
        };
        std::iter::from_fn(move || {
            let event = self.events.get(index(next))?;
            next = self.later[index(next)];
            Some(event)
        })
    }

    /// What is held, in no order.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(super) fn share(&self) -> usize {
        self.share
    }

    pub(super) fn overwritten(&self) -> u64 {
        self.overwritten
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let per_event = size_of::<Event>() + size_of::<u32>() + size_of::<Owner>();
        self.capacity * per_event + size_of_val(&*self.table) + size_of_val(&*self.lists)
    }

    /// A place for an event of the connection with the entry `own`: one never used, or one that an older
    /// event gives up.
    fn place_for(&mut self, own: u32) -> u32 {
        if own != NONE && index(self.owners[index(own)].count) >= self.share {
            return self.give_up_oldest(own);
        }
        if self.events.len() < self.capacity {
            return narrow(self.events.len());
        }
        let ended = self.lists[ENDED].first;
        if ended != NONE {
            return self.give_up_oldest(ended);
        }
        // It grows by one per event, so going down costs no more than going up has.
        while self.lists[self.heaviest].first == NONE {
            self.heaviest -= 1;
        }
        let own_is_heaviest = own != NONE && index(self.owners[index(own)].count) == self.heaviest;
        self.give_up_oldest(if own_is_heaviest {
            own
        } else {
            self.lists[self.heaviest].first
        })
    }

    /// Takes the oldest event from its owner, which is forgotten if it has no other.
    fn give_up_oldest(&mut self, owner: u32) -> u32 {
        self.overwritten += 1;
        let Owner { oldest, count, .. } = self.owners[index(owner)];
        if count == 1 {
            self.unlink(owner);
            self.remove_owner(owner);
        } else {
            self.recount(owner, count - 1);
            self.owners[index(owner)].oldest = self.later[index(oldest)];
        }
        oldest
    }

    /// Adds the event at `place` as its owner's newest.
    fn append(&mut self, owner: u32, place: u32) {
        let entry = &mut self.owners[index(owner)];
        match std::mem::replace(&mut entry.newest, place) {
            NONE => entry.oldest = place,
            newest => self.later[index(newest)] = place,
        }
        let count = entry.count + 1;
        self.recount(owner, count);
    }

    /// An owner holds `count` events now. One that has ended keeps its place in the list of those.
    fn recount(&mut self, owner: u32, count: u32) {
        let Owner {
            count: before,
            ended,
            ..
        } = self.owners[index(owner)];
        if !ended && before > 0 {
            self.unlink(owner);
        }
        self.owners[index(owner)].count = count;
        if !ended {
            self.heaviest = self.heaviest.max(index(count));
            self.link(owner);
        }
    }

    /// The events of a connection that has ended are the first to make room.
    fn set_ended(&mut self, owner: u32, ended: bool) {
        if self.owners[index(owner)].ended != ended {
            self.unlink(owner);
            let entry = &mut self.owners[index(owner)];
            entry.ended = ended;
            self.heaviest = self.heaviest.max(entry.list());
            self.link(owner);
        }
    }

    /// Puts an owner at the end of the list it belongs to.
    fn link(&mut self, owner: u32) {
        let list = &mut self.lists[self.owners[index(owner)].list()];
        let last = std::mem::replace(&mut list.last, owner);
        if last == NONE {
            list.first = owner;
        } else {
            self.owners[index(last)].after = owner;
        }
        let entry = &mut self.owners[index(owner)];
        (entry.before, entry.after) = (last, NONE);
    }

    /// Takes an owner out of its list.
    fn unlink(&mut self, owner: u32) {
        let entry = self.owners[index(owner)];
        let list = &mut self.lists[entry.list()];
        match entry.before {
            NONE => list.first = entry.after,
            before => self.owners[index(before)].after = entry.after,
        }
        match entry.after {
            NONE => list.last = entry.before,
            after => self.owners[index(after)].before = entry.before,
        }
    }

    /// Where the search for a connection begins.
    fn home(&self, connection: u64) -> usize {
        // Fibonacci hashing: ids are small numbers in two halves, and its upper bits depend on all
        // of them. Ids are ours, so nobody can choose them to collide.
        let hash = connection.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        index(narrow_hash(hash)) & (self.table.len() - 1)
    }

    fn find(&self, connection: u64) -> u32 {
        let mut position = self.home(connection);
        loop {
            match self.table[position] {
                NONE => return NONE,
                owner if self.owners[index(owner)].connection == connection => return owner,
                _ => position = (position + 1) & (self.table.len() - 1),
            }
        }
    }

    /// There is room: each owner holds an event, and the new one's place was found before.
    fn add_owner(&mut self, connection: u64) -> u32 {
        let entry = Owner {
            connection,
            oldest: NONE,
            newest: NONE,
            count: 0,
            ended: false,
            before: NONE,
            after: NONE,
        };
        let owner = match self.vacant {
            NONE => {
                self.owners.push(entry);
                narrow(self.owners.len() - 1)
            }
            vacant => {
                self.vacant = self.owners[index(vacant)].after;
                self.owners[index(vacant)] = entry;
                vacant
            }
        };
        let mut position = self.home(connection);
        while self.table[position] != NONE {
            position = (position + 1) & (self.table.len() - 1);
        }
        self.table[position] = owner;
        owner
    }

    fn remove_owner(&mut self, owner: u32) {
        let mask = self.table.len() - 1;
        let mut hole = self.home(self.owners[index(owner)].connection);
        while self.table[hole] != owner {
            hole = (hole + 1) & mask;
        }
        // Those behind it move up, so that no search ends at the hole before it finds them.
        let mut position = (hole + 1) & mask;
        while self.table[position] != NONE {
            let home = self.home(self.owners[index(self.table[position])].connection);
            if (position.wrapping_sub(home) & mask) >= (position.wrapping_sub(hole) & mask) {
                self.table[hole] = self.table[position];
                hole = position;
            }
            position = (position + 1) & mask;
        }
        self.table[hole] = NONE;
        let entry = &mut self.owners[index(owner)];
        entry.count = 0;
        entry.after = self.vacant;
        self.vacant = owner;
    }
}

/// A place or owner as an index; [`NONE`] is beyond every slice.
fn index(number: u32) -> usize {
    number as usize
}

/// An index as it is stored. A store holds at most 2^20 events.
#[expect(clippy::cast_possible_truncation, reason = "below 2^20")]
fn narrow(index: usize) -> u32 {
    index as u32
}

/// The half of a product that was shifted down.
#[expect(clippy::cast_possible_truncation, reason = "32 bits are left")]
fn narrow_hash(hash: u64) -> u32 {
    hash as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(connection: u64, number: u64) -> Event {
        Event::connecting(0, connection, number, "")
    }

    fn numbers(fair: &Fair, connection: u64) -> Vec<u64> {
        fair.of(connection).map(Event::value).collect()
    }

    /// xorshift64, for tests that want many cases and the same ones every time.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }
    }

    /// The three rules, as plainly as they can be said.
    struct Model {
        capacity: usize,
        share: usize,
        /// Connections in the order in which they came to hold as many events as they hold.
        held: Vec<(u64, Vec<u64>)>,
        ended: Vec<u64>,
    }

    impl Model {
        fn is_ended(&self, connection: u64) -> bool {
            self.ended.contains(&connection)
        }

        fn victim(&self, connection: u64) -> Option<usize> {
            let own = self.held.iter().position(|(id, _)| *id == connection);
            if let Some(own) = own.filter(|own| self.held[*own].1.len() >= self.share) {
                return Some(own);
            }
            let total: usize = self.held.iter().map(|(_, events)| events.len()).sum();
            if total < self.capacity {
                return None;
            }
            let ended = self.ended.iter().find_map(|ended| {
                let holds = |(id, _): &(u64, Vec<u64>)| id == ended;
                self.held.iter().position(holds)
            });
            ended.or_else(|| {
                let most = self.held.iter().map(|(_, events)| events.len()).max()?;
                own.filter(|own| self.held[*own].1.len() == most)
                    .or_else(|| {
                        self.held
                            .iter()
                            .position(|(_, events)| events.len() == most)
                    })
            })
        }

        fn record(&mut self, connection: u64, number: u64) {
            if let Some(victim) = self.victim(connection) {
                let (id, mut events) = self.held.remove(victim);
                events.remove(0);
                if !events.is_empty() {
                    self.held.push((id, events));
                }
            }
            let own = self.held.iter().position(|(id, _)| *id == connection);
            let (_, mut events) = own.map_or((0, Vec::new()), |own| self.held.remove(own));
            events.push(number);
            self.held.push((connection, events));
        }
    }

    #[test]
    fn does_what_its_rules_say() {
        for (capacity, connections, seed) in [(1, 3, 1), (8, 3, 2), (64, 5, 3), (128, 40, 4)] {
            let mut dice = Dice(seed);
            let mut fair = Fair::with_capacity(capacity);
            let mut model = Model {
                capacity,
                share: fair.share(),
                held: Vec::new(),
                ended: Vec::new(),
            };
            // Ids whose halves both vary, as those of slots with generations do.
            let mut ids: Vec<u64> = (0..connections).map(|slot| slot | 1 << 32).collect();
            for number in 0..4000 {
                // Some are far busier than others.
                let chosen = dice.below(connections).min(dice.below(connections));
                let id = &mut ids[usize::try_from(chosen).unwrap()];
                if dice.below(20) == 0 {
                    if dice.below(2) == 0 {
                        fair.record(Event::terminated(0, *id, ""));
                        model.record(*id, 0);
                    } else {
                        // Its level keeps the event out.
                        fair.end(*id);
                    }
                    model.ended.push(*id);
                    *id += 1 << 32;
                } else {
                    fair.record(event(*id, number));
                    model.record(*id, number);
                }
                assert!(fair.events.len() <= capacity && fair.owners.len() <= capacity);
                let all = ids
                    .iter()
                    .flat_map(|id| (1..=id >> 32).map(move |g| id & 0xFF | g << 32));
                let held = |id: u64| {
                    let found = model.held.iter().find(|(held, _)| *held == id);
                    found.map_or(Vec::new(), |(_, events)| events.clone())
                };
                if number % 50 == 0 || capacity < 64 {
                    for id in all {
                        assert_eq!(numbers(&fair, id), held(id), "{capacity} {number} {id:#x}");
                        assert!(!model.is_ended(id) || !ids.contains(&id));
                    }
                }
            }
            assert!(fair.overwritten() > 0);
        }
    }

    #[test]
    fn a_busy_neighbour_pushes_nothing_out() {
        let mut fair = Fair::with_capacity(256);
        for number in 0..8 {
            fair.record(event(1, number));
        }
        for number in 0..100_000 {
            fair.record(event(2 + number % 3, number));
        }
        assert_eq!(numbers(&fair, 1), (0..8).collect::<Vec<_>>());
        let newest: Vec<u64> = (99_904..100_000).filter(|n| n % 3 == 0).collect();
        assert_eq!(numbers(&fair, 2), newest);
    }

    /// The promise of the module's documentation, with every neighbour as busy as it likes.
    #[test]
    fn everybody_has_an_equal_part() {
        let (capacity, connections) = (1024, 64);
        let mut fair = Fair::with_capacity(capacity);
        let mut dice = Dice(7);
        for number in 0..20_000 {
            fair.record(event(dice.below(connections - 1), number));
        }
        for number in 0..capacity as u64 / connections {
            fair.record(event(connections - 1, number));
            fair.record(event(dice.below(connections - 1), number));
        }
        for number in 0..20_000 {
            fair.record(event(dice.below(connections - 1), number));
        }
        assert_eq!(numbers(&fair, connections - 1), (0..16).collect::<Vec<_>>());
        for neighbour in 0..connections - 1 {
            assert_eq!(numbers(&fair, neighbour).len(), 16);
        }
    }

    #[test]
    fn connections_that_come_and_go_leave_the_living_alone() {
        let mut fair = Fair::with_capacity(64);
        for number in 0..6 {
            fair.record(event(1 << 40, number));
        }
        for id in 0..1000 {
            for number in 0..7 {
                fair.record(event(id, number));
            }
            fair.record(Event::terminated(0, id, ""));
        }
        assert_eq!(numbers(&fair, 1 << 40), [0, 1, 2, 3, 4, 5]);
        // One that begins anew is alive again.
        fair.record(event(999, 7));
        for id in 2000..2100 {
            fair.record(Event::terminated(0, id, ""));
        }
        assert_eq!(numbers(&fair, 999).len(), 9);
        assert_eq!(numbers(&fair, 998), []);
        let mut fair = Fair::with_capacity(64);
        for id in 0..1000 {
            for number in 0..7 {
                fair.record(event(id, number));
            }
            fair.record(Event::terminated(0, id, ""));
        }
        // What the last ones left is still there.
        assert_eq!(numbers(&fair, 999).len(), 8);
        assert_eq!(numbers(&fair, 0), []);
    }
}
