//! What the benches decode, and the floor they are compared with.

/// A trade as venues send it, 128 bytes of ASCII.
pub(crate) const TRADE: &str = concat!(
    r#"{"e":"trade","E":1718000000123,"s":"BTCUSDT","t":3687542110,"p":"67012.10000000","#,
    r#""q":"1200.01200000","T":1718000000121,"m":true}"#,
);

const _: () = assert!(TRADE.len() == 128);

/// Whole messages out of `pattern`, over and over, as many as fit into `size` bytes.
pub(crate) fn fill(size: usize, pattern: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    for message in pattern.iter().cycle() {
        if bytes.len() + message.len() > size {
            return bytes;
        }
        bytes.extend_from_slice(message);
    }
    bytes
}

/// The least that anybody can do with frames: finds where each of them ends, hands its first byte
/// and its payload to `frame`, and checks nothing. Returns the bytes taken, whole frames only.
#[inline(always)]
pub(crate) fn walk(bytes: &[u8], mut frame: impl FnMut(u8, &[u8])) -> usize {
    let mut position = 0;
    while let Some((header, length)) = header(&bytes[position..]) {
        let start = position + header;
        let Some(payload) = bytes.get(start..start + length) else {
            break;
        };
        frame(bytes[position], payload);
        position = start + length;
    }
    position
}

/// Length of the header that `bytes` begin with, and of the payload behind it.
#[inline(always)]
pub(crate) fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? & 0x7f {
        126 => {
            let length = bytes.get(2..4)?.try_into().ok()?;
            Some((4, usize::from(u16::from_be_bytes(length))))
        }
        127 => {
            let length = bytes.get(2..10)?.try_into().ok()?;
            Some((10, usize::try_from(u64::from_be_bytes(length)).ok()?))
        }
        length => Some((2, usize::from(length))),
    }
}
