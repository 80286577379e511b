//! Addresses as events keep them: the text that `Display` of the standard library gives, which takes a
//! call for each number and each dot between them. Every attempt to connect records two or three.

use std::fmt;
use std::net::SocketAddr;

/// An address whose text is made in one piece.
#[derive(Clone, Copy)]
pub(crate) struct Address(pub(crate) SocketAddr);

/// `255.255.255.255:65535`.
const LONGEST: usize = 21;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SocketAddr::V4(address) = self.0 else {
            return self.0.fmt(f);
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
        f.write_str(std::str::from_utf8(&text[..length]).map_err(|_| fmt::Error)?)
    }
}

/// Writes `number` in decimal digits behind the first `length` bytes; returns how many there are then.
fn write_number(text: &mut [u8; LONGEST], length: usize, number: u16) -> usize {
    let mut unit = 1;
    while number / unit >= 10 {
        unit *= 10;
    }
    let mut end = length;
    while unit > 0 {
        text[end] = b'0' + (number / unit % 10) as u8;
        end += 1;
        unit /= 10;
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
