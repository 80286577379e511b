//! Addresses as events keep them: the text that `Display` of the standard library gives, which takes a
//! call for each number and each dot between them. Every attempt to connect records two or three.

use std::fmt;
use std::net::SocketAddr;

/// An address whose text is made in one piece.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub(crate) SocketAddr);

/// `255.255.255.255:65535`.
const LONGEST: usize = 21;

impl Address {
    /// Writes the text of an IPv4 address, and passes it on; none of an IPv6 address, which is for `Display`.
    pub(crate) fn write<T>(self, pass: impl FnOnce(&str) -> T) -> Option<T> {
        let SocketAddr::V4(address) = self.0 else {
            return None;
        };
        let mut text = [0; LONGEST];
        let mut length = 0;
        for octet in address.ip().octets() {
            length = write_number(&mut text, length, octet.into());
            text[length] = b'.';
            length += 1;
        }
        // In place of the last dot.
        text[length - 1] = b':';
        length = write_number(&mut text, length, address.port());
        std::str::from_utf8(&text[..length]).ok().map(pass)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = self.write(|text| f.write_str(text));
        written.unwrap_or_else(|| self.0.fmt(f))
    }
}

/// Writes `number` in decimal digits behind the first `length` bytes; returns how many there are then.
fn write_number(text: &mut [u8; LONGEST], length: usize, number: u16) -> usize {
    let mut end = length;
    // By constants, so that nothing is divided.
    for unit in [10_000, 1000, 100, 10, 1] {
        if number >= unit || unit == 1 {
            text[end] = b'0' + (number / unit % 10) as u8;
            end += 1;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_standard_library() {
        let numbers = [0, 1, 9, 10, 99, 100, 109, 199, 255];
        let ports = [0, 9, 80, 443, 8080, 9999, 10_000, 65_535];
        for (number, port) in numbers.iter().flat_map(|n| ports.map(|p| (*n, p))) {
            for ip in [[number; 4], [number, 0, 255, 10]] {
                let address = SocketAddr::from((ip, port));
                assert_eq!(Address(address).to_string(), address.to_string());
            }
        }
        for text in ["[::1]:443", "[2001:db8::7]:65535"] {
            assert_eq!(Address(text.parse().unwrap()).to_string(), text);
        }
    }
}
