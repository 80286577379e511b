//! UTF-8 validation beside the standard library, `simdutf8` and `memcpy`, whole texts and pieces.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use websockex::protocol::utf8::{self, Validator};

const SIZES: [usize; 7] = [16, 64, 128, 256, 1 << 10, 16 << 10, 1 << 20];
/// What one read of a large text typically brings.
const PIECE: usize = 16 << 10;

/// (name, what the text repeats): a feed's JSON, the same with a currency sign now and then, prose
/// in a script of three bytes a letter.
const TEXTS: [(&str, &str); 3] = [
    (
        "ascii",
        r#"{"e":"trade","s":"BTCUSDT","p":"67012.10","q":"0.0120","t":1718000000000},"#,
    ),
    (
        "mixed",
        r#"{"e":"trade","s":"BTCUSDT","p":"67012.10 €","q":"0.0120","t":1718000000000},"#,
    ),
    ("multibyte", "市場データは絶えず流れ続ける。"),
];

/// `size` bytes of `pattern` over and over; a character that does not fit is left out for spaces.
fn text(pattern: &str, size: usize) -> Vec<u8> {
    let mut text = String::with_capacity(size);
    for character in pattern.chars().cycle() {
        if text.len() + character.len_utf8() > size {
            break;
        }
        text.push(character);
    }
    let mut bytes = text.into_bytes();
    bytes.resize(size, b' ');
    bytes
}

fn whole(criterion: &mut Criterion) {
    for (name, pattern) in TEXTS {
        let mut group = criterion.benchmark_group(format!("utf8/{name}"));
        for size in SIZES {
            let bytes = text(pattern, size);
            let bytes = bytes.as_slice();
            group.throughput(Throughput::Bytes(size as u64));
            let mut copy = vec![0; size];
            group.bench_function(BenchmarkId::new("memcpy", size), |bencher| {
                bencher.iter(|| black_box(copy.as_mut_slice()).copy_from_slice(black_box(bytes)));
            });
            group.bench_function(BenchmarkId::new("validate", size), |bencher| {
                bencher.iter(|| utf8::validate(black_box(bytes)).is_ok());
            });
            group.bench_function(BenchmarkId::new("std", size), |bencher| {
                bencher.iter(|| std::str::from_utf8(black_box(bytes)).is_ok());
            });
            #[cfg(feature = "simdutf8")]
            group.bench_function(BenchmarkId::new("simdutf8", size), |bencher| {
                bencher.iter(|| simdutf8::basic::from_utf8(black_box(bytes)).is_ok());
            });
            group.bench_function(BenchmarkId::new("pieces", size), |bencher| {
                bencher.iter(|| {
                    let mut validator = Validator::new();
                    let mut pieces = black_box(bytes).chunks(PIECE);
                    pieces.all(|piece| validator.update(piece).is_ok())
                        && validator.finish().is_ok()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, whole);
criterion_main!(benches);
