//! What happened in a run, in order: a digest of all of it, the last lines for whoever looks into a
//! failure, and the diary, which tests compare.

use crate::session::Time;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::{Arguments, Write};
use std::rc::Rc;

/// Lines kept for a failure.
const TAIL: usize = 200;

/// FNV-1a, 64 bits: a digest that tells runs apart, not one that resists anybody.
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Everybody in a simulation writes into the same one.
#[derive(Clone)]
pub(super) struct Log {
    clock: Rc<Cell<Time>>,
    book: Rc<RefCell<Book>>,
}

struct Book {
    digest: u64,
    tail: VecDeque<String>,
    diary: Vec<(u64, String)>,
    violations: Vec<String>,
}

impl Log {
    pub(super) fn new(clock: Rc<Cell<Time>>) -> Self {
        let book = Book {
            digest: OFFSET_BASIS,
            tail: VecDeque::new(),
            diary: Vec::new(),
            violations: Vec::new(),
        };
        let book = Rc::new(RefCell::new(book));
        Self { clock, book }
    }

    pub(super) fn now(&self) -> Time {
        self.clock.get()
    }

    /// Milliseconds since the start, rounded down.
    pub(super) fn milliseconds(&self) -> u64 {
        self.now().nanoseconds() / 1_000_000
    }

    /// Something has happened.
    pub(super) fn note(&self, what: Arguments<'_>) {
        let now = self.now().nanoseconds();
        let mut book = self.book.borrow_mut();
        let mut line = if book.tail.len() < TAIL {
            String::new()
        } else {
            book.tail.pop_front().unwrap_or_default()
        };
        line.clear();
        write!(line, "{now:>15} {what}").expect("a string takes all");
        for byte in line.bytes() {
            book.digest = (book.digest ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        book.tail.push_back(line);
    }

    /// Bytes have gone somewhere: their length and digest are noted.
    pub(super) fn bytes(&self, what: &str, number: usize, bytes: &[u8]) {
        let hash = |digest: u64, byte: &u8| (digest ^ u64::from(*byte)).wrapping_mul(PRIME);
        let digest: u64 = bytes.iter().fold(OFFSET_BASIS, hash);
        let length = bytes.len();
        self.note(format_args!(
            "{what} {number}: {length} bytes {digest:016x}"
        ));
    }

    /// Something has happened that a test wants to compare.
    pub(super) fn tell(&self, what: String) {
        self.note(format_args!("{what}"));
        let time = self.milliseconds();
        self.book.borrow_mut().diary.push((time, what));
    }

    /// Something has happened that must not. Kept and not raised: in a callback, the reactor would
    /// take it for the handler's failure.
    pub(super) fn violation(&self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.book.borrow_mut().violations.push(what);
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.book.borrow().violations.clone()
    }

    pub(super) fn diary(&self) -> Vec<(u64, String)> {
        self.book.borrow().diary.clone()
    }

    pub(super) fn digest(&self) -> u64 {
        self.book.borrow().digest
    }

    pub(super) fn print_tail(&self) {
        for line in &self.book.borrow().tail {
            eprintln!("{line}");
        }
    }
}
