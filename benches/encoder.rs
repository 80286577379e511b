//! Whole frames written by a client, which masks, and by a server, which does not; beside `memcpy`
//! of the payload.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use websockex::protocol::Role;
use websockex::protocol::buffer::Buffer;
use websockex::protocol::encoder;
use websockex::protocol::frame::OpCode;

/// From a ping to a snapshot.
const SIZES: [usize; 4] = [20, 128, 1 << 10, 64 << 10];
const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encoder");
    for size in SIZES {
        let payload = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        let mut destination = vec![0; size];
        group.bench_function(BenchmarkId::new("memcpy", size), |bencher| {
            bencher.iter(|| black_box(&mut destination).copy_from_slice(black_box(&payload)));
        });
        for (name, role) in [("client", Role::Client), ("server", Role::Server)] {
            let mut out = Buffer::new();
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let (payload, key) = (black_box(&payload), black_box(KEY));
                    encoder::encode(role, true, OpCode::Text, payload, key, &mut out);
                    black_box(out.as_slice());
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
