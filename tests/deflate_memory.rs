//! What permessage-deflate costs a connection in memory: nothing before the first compressed
//! message, nothing between messages that stand by themselves, a window where one is carried over.
//!
//! A binary of its own, because an allocator is the whole program's; it counts by thread, because the
//! test runner's own threads allocate when they like.

#![cfg(feature = "deflate")]
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use websockex::protocol::Role;
use websockex::protocol::decoder::{Decoder, Event, Pool};
use websockex::protocol::deflate::Deflate;
use websockex::{Limits, ProtocolError};
use zlib_rs::{DeflateFlush, Status};

/// The system's allocator, and how many bytes of it this thread has in use.
struct Counting;

thread_local! {
    /// What the thread has freed of others' counts against it.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // While the thread ends there is nothing to count in.
    let _ = LIVE.try_with(|live| {
        let most = live.get() + more.cast_signed();
        live.set(most - less.cast_signed());
        PEAK.try_with(|peak| peak.set(peak.get().max(most)))
    });
}

// SAFETY: every call is passed on to `System` as it is; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above; `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are in use while the content moves.
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONNECTIONS: isize = 100;

/// RFC 7692 §7.2.3.1: "Hello", compressed, in one text frame.
const HELLO: [u8; 9] = [0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
const PLAIN_HELLO: [u8; 7] = *b"\x81\x05Hello";

fn live() -> isize {
    LIVE.get()
}

fn decoder(answer: &str, limits: Limits) -> Decoder {
    let agreed = Deflate::new().accept(Some(answer)).unwrap().unwrap();
    Decoder::new(Role::Client, limits).with_deflate(&agreed)
}

/// Decodes one "Hello", and looks for more: the connection is idle then.
fn receive(decoder: &mut Decoder, pool: &mut Pool, frame: &[u8]) {
    let mut input = frame;
    let event = decoder.decode(&mut input, pool, &mut ()).unwrap();
    assert_eq!(event, Some(Event::Text("Hello")));
    assert_eq!(decoder.decode(&mut input, pool, &mut ()), Ok(None));
}

/// Bytes of heap per connection: idle before the first compressed message, and after it.
fn per_connection(answer: &str) -> (isize, isize) {
    let mut pool = Pool::default();
    // What the connections of a reactor share is there after the first.
    let mut first = decoder(answer, Limits::default());
    receive(&mut first, &mut pool, &HELLO);

    let mut decoders = Vec::with_capacity(CONNECTIONS.cast_unsigned());
    let before = live();
    decoders.resize_with(CONNECTIONS.cast_unsigned(), || {
        decoder(answer, Limits::default())
    });
    for decoder in &mut decoders {
        receive(decoder, &mut pool, &PLAIN_HELLO);
    }
    let idle = live() - before;
    for decoder in &mut decoders {
        receive(decoder, &mut pool, &HELLO);
    }
    let after = live() - before;
    (idle / CONNECTIONS, after / CONNECTIONS)
}

/// The most memory that a bomb takes before it is refused.
fn bomb(limit: u64) -> isize {
    let mut payload = vec![0; 1 << 20];
    let mut deflate = zlib_rs::Deflate::new(9, false, 15);
    let zeros = vec![0; 100 << 20];
    let status = deflate.compress(&zeros, &mut payload, DeflateFlush::SyncFlush);
    assert_eq!(status, Ok(Status::Ok));
    payload.truncate(usize::try_from(deflate.total_out()).unwrap());
    let mut frame = vec![0xc2, 127];
    frame.extend((payload.len() as u64).to_be_bytes());
    frame.extend(payload);
    drop((zeros, deflate));

    let limits = Limits {
        max_message: limit,
        ..Limits::default()
    };
    let mut pool = Pool::default();
    let mut decoder = decoder("permessage-deflate", limits);
    let before = live();
    PEAK.set(before);
    let error = decoder
        .decode(&mut &frame[..], &mut pool, &mut ())
        .unwrap_err();
    let length = limit + 1;
    assert_eq!(error, ProtocolError::MessageTooLarge { length, limit });
    PEAK.get() - before
}

#[test]
fn pitfall_4_a_connection_owns_a_window_only_if_it_must() {
    let takeover = per_connection("permessage-deflate");
    let small = per_connection("permessage-deflate; server_max_window_bits=9");
    let alone = per_connection("permessage-deflate; server_no_context_takeover");
    println!("bytes of heap per connection     idle before   idle after a compressed message");
    for (name, (before, after)) in [
        ("takeover, 15 bits", takeover),
        ("takeover, 9 bits", small),
        ("no takeover", alone),
    ] {
        println!("{name:<32} {before:>11}   {after:>31}");
    }
    assert_eq!((takeover.0, small.0), (0, 0));
    assert_eq!(alone, (0, 0));
    // A window and zlib's state; nothing of the message.
    assert!(takeover.1 < 64 * 1024, "{takeover:?}");
    assert!(small.1 <= takeover.1, "{small:?}");

    let limit = 1 << 20;
    let peak = bomb(limit);
    println!("100 MiB of zeros with a limit of 1 MiB: at most {peak} bytes in use");
    // The buffer doubles up to the limit, and is there twice while it moves.
    assert!(peak < 4 << 20, "{peak}");
}
