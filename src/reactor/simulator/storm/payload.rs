//! Messages that say whose they are and which one, so that a receiver sees what is missing, out of
//! order or not as it was sent.

use super::super::random::Random;

/// Characters of one to four bytes, so that any cut may fall into one.
const WORDS: [&str; 5] = [
    "ticker ",
    "größe ",
    "€ 7.50 ",
    "𝄞",
    "the quick brown fox jumps over the lazy dog and back over the lazy dog ",
];

/// Characters in front: the sender, and the number of the message.
const HEAD: usize = 24;

/// The message number `number` of `sender`, of at least `length` bytes.
pub(super) fn payload(sender: u64, number: u64, length: usize) -> String {
    let mut text = format!("{sender:016x}{number:08x}");
    let mut words = Random::new(sender ^ number);
    while text.len() < length {
        text.push_str(words.choose::<&str>(&WORDS));
    }
    text
}

/// What one receiver has got from one sender.
#[derive(Default)]
pub(super) struct Received {
    sender: Option<u64>,
    pub(super) count: u64,
}

impl Received {
    /// Whose messages they are; unknown before the first.
    pub(super) fn sender(&self) -> Option<u64> {
        self.sender
    }

    /// Takes the next message, or says what is wrong with it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        let head = bytes
            .get(..HEAD)
            .and_then(|head| std::str::from_utf8(head).ok());
        let head = head.ok_or("a message without a head")?;
        let (sender, number) = head.split_at(16);
        let parse = |digits| u64::from_str_radix(digits, 16).map_err(|_| "a head without numbers");
        let (sender, number) = (parse(sender)?, parse(number)?);
        if *self.sender.get_or_insert(sender) != sender {
            return Err(format!("a message of {sender:016x}, who is somebody else"));
        }
        if number != self.count {
            return Err(format!("message {number} after {} messages", self.count));
        }
        if payload(sender, number, bytes.len()).as_bytes() != bytes {
            return Err(format!("message {number} is not what was sent"));
        }
        self.count += 1;
        Ok(())
    }
}
