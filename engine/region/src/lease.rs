//! Holds on tables' content, for what is exported and for running queries.

use std::sync::Arc;

use crate::error::Result;
use crate::pin::Pin;
use crate::pins::Line;

/// A hold on a table's content: nobody changes it in place while the lease lives. Implies a pin.
#[derive(Clone)]
pub struct Lease(Arc<LeaseInner>);

struct LeaseInner(Pin, Line);

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lease").field(self.pin()).finish()
    }
}

impl Drop for LeaseInner {
    fn drop(&mut self) {
        let pin = &self.0;
        pin.0.session.unhold(pin.0.held.slot, self.1);
    }
}

impl Lease {
    /// For a pin whose slot the session has just leased, and how that is counted.
    pub(crate) fn new(pin: Pin, line: Line) -> Self {
        Self(Arc::new(LeaseInner(pin, line)))
    }

    /// Another on the same content, as long as its holder likes: for what outlives the run that a
    /// [`Pin::lease_while`] was for.
    ///
    /// # Errors
    /// [`crate::Error::Stale`] in a forked child that has no share in it.
    pub fn kept(&self) -> Result<Lease> {
        self.pin().0.check()?;
        // The content is held, so that nothing stands in the way.
        match self.pin().try_lease(Line::Leases, "result")? {
            true => Ok(Lease::new(self.pin().clone(), Line::Leases)),
            false => self.pin().lease(),
        }
    }

    /// The pin it implies.
    pub fn pin(&self) -> &Pin {
        &self.0.0
    }
}
