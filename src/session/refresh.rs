//! What a request changes of itself before each attempt: tokens that expire, signatures with a time.
//!
//! Before everything else of an attempt; what was changed is forgotten when the attempt has failed or
//! the connection is open, so that the next one begins with the request as it was built.

use super::life::Life;
use super::options::Target;
use crate::error::{BoxError, Error};
use crate::protocol::handshake::{self, HeaderError};
use crate::protocol::url::{Url, UrlError};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// An attempt to connect that is about to begin, and what may still be changed of its request. It
/// begins with the request as it was built, whatever was changed for earlier attempts.
pub struct Attempt<'a> {
    number: u32,
    epoch: u64,
    target: &'a mut Target,
}

impl Attempt<'_> {
    /// Attempts since the connection was last open, this one included.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How often the connection has been opened so far.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The URL.
    pub fn url(&self) -> &Url {
        &self.target.url
    }

    /// Gives the opening handshake this header, instead of any of the same name. `Authorization`
    /// replaces what the URL's userinfo says.
    ///
    /// # Errors
    /// As [`Request::header`](crate::Request::header).
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        handshake::validate_header(name, value)?;
        self.remove_header(name);
        let header = (name.to_owned(), value.to_owned());
        Arc::make_mut(&mut self.target.options).headers.push(header);
        Ok(())
    }

    /// Leaves the headers of this name out.
    pub fn remove_header(&mut self, name: &str) {
        let options = Arc::make_mut(&mut self.target.options);
        let other = |(given, _): &(String, String)| !given.eq_ignore_ascii_case(name);
        options.headers.retain(other);
    }

    /// Puts `query` in the place of the URL's query, without the question mark; an empty one leaves
    /// none. Encode what is not to be read as a separator.
    ///
    /// # Errors
    /// White space, a control character or a `#` in it; a URL that gets too long.
    pub fn set_query(&mut self, query: &str) -> Result<(), UrlError> {
        self.target.url = self.target.url.with_query(query)?;
        Ok(())
    }
}

impl fmt::Debug for Attempt<'_> {
    /// Without headers and URL, which may be secrets here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("number", &self.number)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

type Change = dyn Fn(&mut Attempt<'_>) -> Result<(), BoxError> + Send + Sync;

/// A request's own change before each attempt.
#[derive(Clone)]
pub(crate) struct Refresh(Arc<Change>);

impl Refresh {
    pub(crate) fn new(
        change: impl Fn(&mut Attempt<'_>) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(change))
    }
}

impl Life {
    /// Lets the request change itself for the attempt that begins. A redirect is no attempt.
    ///
    /// # Errors
    /// The closure's own, or that it panicked. Neither repeats its words where they are displayed:
    /// what is displayed is recorded, and they may hold secrets.
    pub(super) fn refresh(&mut self) -> Result<(), Error> {
        if self.redirects > 0 {
            return Ok(());
        }
        let Some(Refresh(change)) = self.target.options.refresh.clone() else {
            return Ok(());
        };
        let mut target = self.target.clone();
        let mut attempt = Attempt {
            number: self.attempt,
            epoch: self.epoch(),
            target: &mut target,
        };
        catch_unwind(AssertUnwindSafe(|| change(&mut attempt)))
            .map_err(|_| Error::HandlerPanicked("while refreshing the request".to_owned()))?
            .map_err(Error::Refresh)?;
        target.request_head(None).validate()?;
        let built = std::mem::replace(&mut self.target, target);
        self.aside().built = Some(built);
        Ok(())
    }

    /// The request is again as it was built, before a refresh and any redirects.
    pub(super) fn restore(&mut self) {
        if let Some(built) = self.aside.as_mut().and_then(|aside| aside.built.take()) {
            self.target = built;
            self.tidy();
        }
    }
}
