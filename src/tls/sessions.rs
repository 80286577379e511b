//! What servers gave for resuming their TLS sessions, by the server's name.
//!
//! rustls asks it when a handshake begins, and feeds it when one is done and when tickets arrive. Its
//! own store keeps eight tickets of a server: too few where many connections to one server begin at a
//! time, because each takes one along and brings new ones only at its end. Those that find none pay a
//! full handshake, with its signatures, which is most of what a handshake costs.

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{ServerName, UnixTime};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// TLS 1.3 tickets kept of one server: as many as connections to one host are on their way at a time by
/// the default [`Admission`](crate::Admission), and every one of them that opens brings new ones. More
/// would only be memory: some 0.5 KiB each, and the server's certificates on top, which rustls keeps with
/// every ticket (some 3 KiB of a public server).
const TICKETS_PER_SERVER: usize = 128;

/// So many are kept whatever comes, and so many more for each handshake: a server may send any number, of
/// any size that fits into a handshake message, on its only connection. Two are usual.
const TICKETS_AT_FIRST: usize = 4;
const TICKETS_PER_HANDSHAKE: usize = 4;

/// Servers and tickets kept in all: thousands of servers with one or two tickets each (pitfall 39), or
/// some thirty with as many as are allowed. Memory is taken as they come.
const PLACES: usize = 4096;

/// RFC 8446 section 4.6.1: "Clients MUST NOT cache tickets for longer than 7 days, regardless of the
/// ticket_lifetime". The lifetime itself is rustls's secret: it looks at it when it has taken a ticket.
const LONGEST_SECONDS: u64 = 7 * 24 * 60 * 60;

/// The store of one TLS configuration.
///
/// The mutex is free unless reactors share the configuration.
pub(super) struct SessionStore(Mutex<Sessions<Tls13ClientSessionValue, Tls12ClientSessionValue>>);

impl SessionStore {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Sessions::new()))
    }

    fn sessions(
        &self,
    ) -> MutexGuard<'_, Sessions<Tls13ClientSessionValue, Tls12ClientSessionValue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SessionStore {
    /// Says nothing of what is in it: these are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore").finish_non_exhaustive()
    }
}

impl ClientSessionStore for SessionStore {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.sessions().note_handshake(name, group, now());
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions().servers.get(name)?.group
    }

    fn set_tls12_session(&self, name: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.sessions().server(name, now()).session = Some(session);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.sessions().servers.get(name)?.session.clone()
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        if let Some(server) = self.sessions().servers.get_mut(name) {
            server.session = None;
        }
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.sessions().insert(name, ticket, now());
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.sessions().take(name, now())
    }
}

/// Seconds since 1970, as rustls counts the age of its tickets.
fn now() -> u64 {
    UnixTime::now().as_secs()
}

/// What is known of all servers, for any types of tickets (TLS 1.3) and sessions (TLS 1.2).
struct Sessions<T, S> {
    servers: HashMap<ServerName<'static>, Server<T, S>>,
    /// Tickets of all servers together.
    tickets: usize,
    /// How often a server was heard of.
    heard: u64,
}

/// What is known of one server.
struct Server<T, S> {
    /// The group it chose for the key exchange.
    group: Option<NamedGroup>,
    /// Of TLS 1.2, where a session may be resumed any number of times.
    session: Option<S>,
    /// Oldest first, with the second in which they came.
    tickets: VecDeque<(u64, T)>,
    /// How many of them are kept.
    allowed: usize,
    /// The value of [`Sessions::heard`] when it was heard of last.
    heard: u64,
}

impl<T, S> Sessions<T, S> {
    fn new() -> Self {
        Self {
            servers: HashMap::new(),
            tickets: 0,
            heard: 0,
        }
    }

    /// The entry of a server that was just heard of.
    fn server(&mut self, name: ServerName<'static>, now: u64) -> &mut Server<T, S> {
        // For a server, and for the ticket that may follow.
        if self.places() + 2 > PLACES {
            self.make_room(now);
        }
        self.heard += 1;
        let server = self.servers.entry(name).or_insert_with(|| Server {
            group: None,
            session: None,
            tickets: VecDeque::new(),
            allowed: TICKETS_AT_FIRST,
            heard: 0,
        });
        server.heard = self.heard;
        server
    }

    /// rustls says once in each TLS 1.3 handshake which group was chosen.
    fn note_handshake(&mut self, name: ServerName<'static>, group: NamedGroup, now: u64) {
        let server = self.server(name, now);
        server.group = Some(group);
        server.allowed = TICKETS_PER_SERVER.min(server.allowed + TICKETS_PER_HANDSHAKE);
    }

    /// Keeps a ticket; of too many of one server the oldest goes.
    fn insert(&mut self, name: ServerName<'static>, ticket: T, now: u64) {
        let server = self.server(name, now);
        let before = server.tickets.len();
        server.forget_expired(now);
        server.keep_newest(server.allowed - 1);
        server.tickets.push_back((now, ticket));
        let after = server.tickets.len();
        self.tickets = self.tickets - before + after;
    }

    /// Gives away the newest ticket of a server: it has the most of its life before it, and is the last
    /// that a server forgets which remembers so many.
    ///
    /// RFC 8446 section C.4: "Clients SHOULD NOT reuse a ticket for multiple connections."
    fn take(&mut self, name: &ServerName<'static>, now: u64) -> Option<T> {
        let server = self.servers.get_mut(name)?;
        let before = server.tickets.len();
        server.forget_expired(now);
        let (_, ticket) = server.tickets.pop_back().unzip();
        server.give_back_room();
        let after = server.tickets.len();
        self.tickets = self.tickets - before + after;
        ticket
    }

    /// Frees an eighth of the places, so that this is rare. First what has expired goes, then the older
    /// tickets of those servers that have most of them. When each has only one left, the servers go
    /// that were not heard of for longest.
    fn make_room(&mut self, now: u64) {
        let enough = PLACES - PLACES / 8;
        self.of_each_server(|server| server.forget_expired(now));
        let lengths = self.servers.values().map(|server| server.tickets.len());
        let mut each = lengths.max().unwrap_or(0);
        while self.places() > enough && each > 1 {
            each -= each.div_ceil(8);
            self.of_each_server(|server| server.keep_newest(each));
        }
        if self.places() > enough {
            let mut heard: Vec<u64> = self.servers.values().map(|server| server.heard).collect();
            let eighth = heard.len() / 8;
            let (_, &mut last, _) = heard.select_nth_unstable(eighth);
            self.servers.retain(|_, server| server.heard > last);
            self.count_tickets();
        }
    }

    fn of_each_server(&mut self, forget: impl Fn(&mut Server<T, S>)) {
        for server in self.servers.values_mut() {
            forget(server);
            server.give_back_room();
        }
        self.count_tickets();
    }

    fn count_tickets(&mut self) {
        let servers = self.servers.values();
        self.tickets = servers.map(|server| server.tickets.len()).sum();
    }

    /// How many of [`PLACES`] are taken.
    fn places(&self) -> usize {
        self.servers.len() + self.tickets
    }
}

impl<T, S> Server<T, S> {
    fn forget_expired(&mut self, now: u64) {
        let is_old = |(came, _): &(u64, T)| now.saturating_sub(*came) > LONGEST_SECONDS;
        while self.tickets.front().is_some_and(is_old) {
            self.tickets.pop_front();
        }
    }

    fn keep_newest(&mut self, most: usize) {
        let surplus = self.tickets.len().saturating_sub(most);
        self.tickets.drain(..surplus);
    }

    /// What a storm needed is not kept for good.
    fn give_back_room(&mut self) {
        let length = self.tickets.len();
        if length < self.tickets.capacity() / 4 {
            self.tickets.shrink_to(2 * length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        LONGEST_SECONDS, NamedGroup, PLACES, ServerName, Sessions, TICKETS_AT_FIRST,
        TICKETS_PER_HANDSHAKE, TICKETS_PER_SERVER,
    };

    /// Tickets that are numbers.
    type Numbered = Sessions<usize, ()>;

    const NOW: u64 = 1_000_000_000;

    fn name(number: usize) -> ServerName<'static> {
        ServerName::try_from(format!("feed-{number}.example.com")).expect("a name")
    }

    fn with(server: usize, tickets: impl IntoIterator<Item = usize>) -> Numbered {
        let mut sessions = Sessions::new();
        for ticket in tickets {
            sessions.insert(name(server), ticket, NOW);
        }
        sessions
    }

    /// As many handshakes with a server as allow the most tickets.
    fn storm(sessions: &mut Numbered, server: usize, now: u64) {
        for _ in 0..TICKETS_PER_SERVER / TICKETS_PER_HANDSHAKE {
            sessions.note_handshake(name(server), NamedGroup::X25519, now);
        }
    }

    fn take_all(sessions: &mut Numbered, server: usize, now: u64) -> Vec<usize> {
        std::iter::from_fn(|| sessions.take(&name(server), now)).collect()
    }

    /// What is counted is what is there.
    #[track_caller]
    fn check(sessions: &Numbered) {
        let servers = sessions.servers.values();
        let tickets: usize = servers.map(|server| server.tickets.len()).sum();
        assert_eq!(sessions.tickets, tickets);
        assert!(sessions.places() <= PLACES);
    }

    #[test]
    fn each_ticket_is_used_once_and_the_newest_first() {
        let mut sessions = with(0, 0..3);
        assert_eq!(take_all(&mut sessions, 0, NOW), [2, 1, 0]);
        assert_eq!(sessions.take(&name(0), NOW), None);
        check(&sessions);
    }

    #[test]
    fn a_server_has_its_own() {
        let mut sessions = with(0, [1]);
        sessions.insert(name(1), 2, NOW);
        assert_eq!(take_all(&mut sessions, 1, NOW), [2]);
        assert_eq!(take_all(&mut sessions, 2, NOW), [0; 0]);
        assert_eq!(take_all(&mut sessions, 0, NOW), [1]);
        check(&sessions);
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let mut sessions = with(0, []);
        storm(&mut sessions, 0, NOW);
        for ticket in 0..TICKETS_PER_SERVER + 10 {
            sessions.insert(name(0), ticket, NOW);
        }
        check(&sessions);
        let kept = take_all(&mut sessions, 0, NOW);
        let newest: Vec<usize> = (10..TICKETS_PER_SERVER + 10).rev().collect();
        assert_eq!(kept, newest);
        check(&sessions);
        let room = sessions.servers[&name(0)].tickets.capacity();
        assert!(room <= 4, "room for {room} is kept");
    }

    /// One connection does not fill the store, whatever its server sends.
    #[test]
    fn tickets_are_allowed_by_handshakes() {
        let mut sessions = with(0, []);
        for handshakes in 1..3 {
            sessions.note_handshake(name(0), NamedGroup::X25519, NOW);
            for ticket in 0..1000 {
                sessions.insert(name(0), ticket, NOW);
            }
            check(&sessions);
            let most = TICKETS_AT_FIRST + handshakes * TICKETS_PER_HANDSHAKE;
            assert_eq!(sessions.tickets, most);
        }
    }

    #[test]
    fn after_seven_days_a_ticket_is_gone() {
        let mut sessions = with(0, [0]);
        sessions.insert(name(0), 1, NOW + 1);
        sessions.insert(name(0), 2, NOW + 2);
        assert_eq!(sessions.take(&name(0), NOW + LONGEST_SECONDS), Some(2));
        let later = NOW + LONGEST_SECONDS + 1;
        assert_eq!(take_all(&mut sessions, 0, later), [1]);
        check(&sessions);
        // A clock that was set back does no harm.
        sessions.insert(name(0), 3, NOW);
        assert_eq!(sessions.take(&name(0), 0), Some(3));
    }

    /// A server that has many gives them up before another loses its only one.
    #[test]
    fn those_who_have_most_make_room() {
        let mut sessions = with(0, [0]);
        let hoards = PLACES / TICKETS_PER_SERVER + 1;
        for server in 1..=hoards {
            storm(&mut sessions, server, NOW);
            for ticket in 0..TICKETS_PER_SERVER {
                sessions.insert(name(server), ticket, NOW);
            }
            check(&sessions);
        }
        assert_eq!(take_all(&mut sessions, 0, NOW), [0]);
        for server in 1..=hoards {
            let kept = take_all(&mut sessions, server, NOW);
            assert!(kept.len() > TICKETS_PER_SERVER / 2, "{}", kept.len());
            assert_eq!(kept[0], TICKETS_PER_SERVER - 1);
        }
    }

    /// And what nobody can use any more goes before that.
    #[test]
    fn expired_tickets_make_room_first() {
        let half = PLACES / 2 / (TICKETS_PER_SERVER + 1);
        let mut sessions = Numbered::new();
        let later = NOW + LONGEST_SECONDS + 1;
        for (servers, now) in [(0..half, NOW), (half..2 * half + 2, later)] {
            for server in servers {
                storm(&mut sessions, server, now);
                for ticket in 0..TICKETS_PER_SERVER {
                    sessions.insert(name(server), ticket, now);
                }
            }
        }
        check(&sessions);
        for server in half..2 * half + 2 {
            let kept = take_all(&mut sessions, server, later).len();
            assert_eq!(kept, TICKETS_PER_SERVER);
        }
    }

    #[test]
    fn of_too_many_servers_those_go_that_were_not_heard_of_for_longest() {
        let mut sessions = Numbered::new();
        for server in 0..PLACES {
            sessions.insert(name(server), server, NOW);
            // It is heard of again and again.
            sessions.server(name(0), NOW);
            assert!(sessions.places() <= PLACES);
        }
        assert_eq!(sessions.take(&name(0), NOW), Some(0));
        assert_eq!(sessions.take(&name(1), NOW), None);
        for server in PLACES - PLACES / 4..PLACES {
            assert_eq!(sessions.take(&name(server), NOW), Some(server));
        }
        check(&sessions);
    }
}
