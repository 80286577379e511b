//! The trace of a program that nobody can recompile: what an environment variable says of it.

use super::file::Format;
use crate::trace::Level;
use std::ffi::OsStr;
use std::path::PathBuf;

/// The variable that [`ReactorBuilder::build`](crate::ReactorBuilder::build) reads: words with commas
/// between. What means nothing is told on standard error.
///
/// | word | |
/// | --- | --- |
/// | `off`, `lifecycle`, `frames`, `payload` | the level of all connections, whatever the program says, at the start or later |
/// | `print` | `*DBG*` lines on standard error |
/// | `file=PATH` | lines to a file, as [`FileSink`](super::FileSink) writes them |
/// | `json` | the file has JSON lines |
///
/// Each reactor has a file of its own. While one writes to `PATH`, the next one of the same process, or of
/// another with the same variable, takes `PATH-2`, then `PATH-3`, and so on; a file `PATH.lock` beside each says
/// that it is taken, and stays.
pub const VARIABLE: &str = "WEBSOCKEX_TRACE";

/// What the variable asks for.
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
        let Some(text) = text.to_str() else {
            wishes.unknown = Some(text.to_string_lossy().into_owned());
            return wishes;
        };
        for word in text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
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

    fn parse(text: &str) -> Wishes {
        Wishes::parse(text.as_ref())
    }

    #[test]
    fn words_in_any_order() {
        assert_eq!(parse(""), Wishes::default());
        let wishes = parse("frames, print");
        assert_eq!((wishes.level, wishes.print), (Some(Level::Frames), true));
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
