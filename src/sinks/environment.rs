//! The trace of a program that nobody can recompile: what an environment variable says of it.

use super::file::Format;
use crate::trace::Level;
use std::ffi::OsStr;
use std::path::PathBuf;

/// The variable that [`ReactorBuilder::build`](crate::ReactorBuilder::build) reads.
pub const VARIABLE: &str = "WEBSOCKEX_TRACE";

/// What the variable asks for: words with commas between.
///
/// | word | |
/// | --- | --- |
/// | `off`, `lifecycle`, `frames`, `payload` | the level of all connections, whatever the program says |
/// | `print` | `*DBG*` lines on standard error |
/// | `file=PATH` | lines to a file, which is rotated |
/// | `json` | the file has JSON lines |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) level: Option<Level>,
    pub(crate) print: bool,
    pub(crate) file: Option<PathBuf>,
    pub(crate) format: Format,
    /// A word that is none of those above.
    pub(crate) unknown: Option<String>,
}

impl Wishes {
    pub(crate) fn parse(text: &OsStr) -> Self {
        let mut wishes = Self::default();
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
        let Some(text) = text.to_str() else {
            wishes.unknown = Some(text.to_string_lossy().into_owned());
            return wishes;
        };
            if let Some(path) = word.strip_prefix("file=") {
                wishes.file = Some(path.into());
            } else if let Some(level) = Level::named(word) {
                wishes.level = Some(level);
            } else {
                match word {
                    "print" => wishes.print = true,
                    "json" => wishes.format = Format::Json,
                    _ => wishes.unknown = Some(word.to_owned()),
                }
            }
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_in_any_order() {
        assert_eq!(parse(""), Wishes::default());
        let wishes = parse("frames, print");
        assert_eq!((wishes.level, wishes.print), (Some(Level::Frames), true));
    fn parse(text: &str) -> Wishes {
        Wishes::parse(text.as_ref())
    }

        let wishes = parse("file=a=b.json,json,payload,");
        let expected = Wishes {
            level: Some(Level::Payload),
            file: Some("a=b.json".into()),
            format: Format::Json,
            ..Wishes::default()
        };
        assert_eq!(wishes, expected);
        for odd in ["loud", "print=1", "frames,files=x"] {
            assert!(parse(odd).unknown.is_some(), "{odd}");
        }
    }
}
