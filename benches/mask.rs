//! Masking by each implementation this machine can run, beside `memcpy`.
//!
//! `apply/dispatch` and `copy/dispatch` are the public functions; the others skip the short path.
//! `copy/memcpy` is the ceiling: the same bytes moved without a key.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use websockex::protocol::mask::{self, MaskKey};

/// From a subscription to a snapshot; the two in the middle straddle the short path's end.
const SIZES: [usize; 8] = [16, 64, 100, 128, 200, 1 << 10, 16 << 10, 1 << 20];
const KEY: MaskKey = [0x37, 0xFA, 0x21, 0x3D];
/// A frame header of a short masked frame is this long, so payloads rarely start on a boundary.
const HEADER: usize = 6;

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mask/apply");
    for size in SIZES {
        let mut buffer = vec![0x55_u8; size + HEADER];
        let bytes = &mut buffer[HEADER..];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("dispatch", size), |bencher| {
            bencher.iter(|| mask::apply(black_box(&mut *bytes), black_box(KEY)));
        });
        for implementation in mask::implementations() {
            group.bench_function(BenchmarkId::new(implementation.name(), size), |bencher| {
                bencher.iter(|| implementation.apply(black_box(&mut *bytes), black_box(KEY)));
            });
        }
    }
    group.finish();
}

fn copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mask/copy");
    for size in SIZES {
        let source = vec![0x55_u8; size];
        let source = source.as_slice();
        let mut buffer = vec![0_u8; size + HEADER];
        let destination = &mut buffer[HEADER..];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("memcpy", size), |bencher| {
            bencher.iter(|| black_box(&mut *destination).copy_from_slice(black_box(source)));
        });
        group.bench_function(BenchmarkId::new("dispatch", size), |bencher| {
            bencher.iter(|| {
                mask::copy(
                    black_box(&mut *destination),
                    black_box(source),
                    black_box(KEY),
                );
            });
        });
        for implementation in mask::implementations() {
            group.bench_function(BenchmarkId::new(implementation.name(), size), |bencher| {
                bencher.iter(|| {
                    implementation.copy(
                        black_box(&mut *destination),
                        black_box(source),
                        black_box(KEY),
                    );
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, apply, copy);
criterion_main!(benches);
