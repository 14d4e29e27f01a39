//! Tables that a thread has for itself: an exclusive lease over several updates, and what its holder
//! can do meanwhile.
//!
//! Whatever needs the lease borrows it, so that nothing runs within what runs: an update that a
//! signal handler makes in the midst of a query is refused like anybody's. Queries read under it;
//! what they would share with the table is copied, since nobody may have a part in memory that is
//! exclusively leased. Views are refused: they could outlive the lease.

use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use insitu_query::Expr;
use insitu_region::{
    Exclusive as Lease, ForkMutex, Lease as Shared, Pin, Updater, fork_generation,
};

use crate::error::{Error, Result};
use crate::query::CollectOptions;
use crate::storage::Storage;
use crate::table::Table;
use crate::update::{TURN, UpdateOptions};
use crate::version::Version;

/// What such a lease is for, as others see it.
const WHAT: &str = "exclusive";

/// Exclusive leases of this process that wait for their holders' next use of them.
pub(crate) type Held = ForkMutex<Vec<Arc<Block>>>;

/// An exclusive lease over several updates, and the thread whose they are.
pub(crate) struct Block {
    thread: ThreadId,
    /// The process of the thread: a forked child does not have what its parent has exclusively.
    process: u64,
    has: ForkMutex<Has>,
    timeout: Option<Duration>,
}

/// What a block has of its table.
#[derive(Default)]
enum Has {
    /// All of it.
    Lease(Lease),
    /// Nothing: an update swapped a version in, or tried to, and the table was not to be had again
    /// at once. The next update asks once more, before it changes anything.
    Lost(Pin),
    /// Nothing to give: it is borrowed, or the block has ended.
    #[default]
    Lent,
}

/// What a block has, borrowed by something that its thread does. Goes back when dropped.
pub(crate) struct Loan {
    block: Arc<Block>,
    has: Has,
}

/// What keeps a table's content as it is while something runs.
pub(crate) enum Hold {
    /// A result, which nobody changes.
    Unneeded,
    /// A lease beside others'.
    Shared(Shared),
    /// The thread has the table exclusively.
    Own(Loan),
}

/// A table that its holder's thread has for itself: nobody else reads or changes it, and queries and
/// updates by that thread need not ask. Dropped, it is everyone's again.
pub struct Exclusive {
    table: Table,
    block: Arc<Block>,
}

impl Exclusive {
    /// The table.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        let held = &self.table.region().shared.held;
        held.lock().retain(|block| !Arc::ptr_eq(block, &self.block));
        let has = std::mem::take(&mut *self.block.has.lock());
        drop(has);
    }
}

impl std::fmt::Debug for Exclusive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Exclusive").field(&self.table).finish()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut has = std::mem::take(&mut self.has);
        if let Has::Lease(lease) = &has
            && lease.is_changing()
        {
            // What failed half-way is poisoned now, and not when the block ends, which would read
            // halves till then.
            let pin = lease.pin().clone();
            has = Has::Lost(pin);
        }
        *self.block.has.lock() = has;
    }
}

impl Loan {
    /// The lease.
    ///
    /// # Errors
    /// `InvalidArgument` if it is lost; see [`Loan::regain`].
    pub fn lease(&self) -> Result<&Lease> {
        match &self.has {
            Has::Lease(lease) => Ok(lease),
            Has::Lost(_) | Has::Lent => Err(ended()),
        }
    }

    /// Asks for the table again if it was lost.
    ///
    /// # Errors
    /// `LeaseHeld` if others have it for longer than the timeout (none: the block's), `Cancelled`,
    /// and those of an update.
    pub fn regain(&mut self, options: &UpdateOptions<'_>) -> Result<()> {
        let Has::Lost(pin) = &self.has else { return Ok(()) };
        let mut patience = options.patience(TURN);
        patience.timeout = options.timeout.or(self.block.timeout).unwrap_or(TURN);
        patience.what = WHAT;
        let updater = pin.updater(&patience)?;
        let lease = updater.exclusive(&patience).map_err(|(_, e)| e)?;
        lease.goes_on_from(pin);
        self.has = Has::Lease(lease);
        Ok(())
    }

    /// Lets others in, for a moment, while the next version of the table is swapped in, and has that
    /// one exclusively then, or the old one if there is none.
    ///
    /// # Errors
    /// What the swap fails with.
    pub fn swap(
        &mut self,
        options: &UpdateOptions<'_>,
        swap: impl FnOnce(Updater) -> Result<Pin>,
    ) -> Result<Pin> {
        let pin = self.lease()?.pin().clone();
        let Has::Lease(lease) = std::mem::replace(&mut self.has, Has::Lost(pin)) else {
            return Err(ended());
        };
        let swapped = swap(lease.into_updater());
        // Not to be had again, it is asked for by the next update.
        let _ = self.regain(options);
        swapped
    }
}

fn ended() -> Error {
    Error::InvalidArgument("the exclusive block has ended".into())
}

impl Table {
    /// Takes the table exclusively, for several queries and updates by this thread.
    ///
    /// # Errors
    /// `LeaseHeld` if others read or update it longer than the timeout (none: not at all, and ten
    /// seconds for an update); `Stale`, `Poisoned`, `ReadOnly`, `Cancelled`.
    pub fn exclusive(&self, options: UpdateOptions<'_>) -> Result<Exclusive> {
        self.region().shared.check_open()?;
        let seen = self.version()?;
        let Storage::Named(pin) = &seen.storage else {
            return Err(Error::Unsupported(
                "a result without a name is this process's alone already".into(),
            ));
        };
        let options = UpdateOptions { what: WHAT, ..options };
        let updater = pin.updater(&options.patience(TURN)).map_err(|e| self.behind(e))?;
        let lease = updater.exclusive(&options.patience(Duration::ZERO)).map_err(|(_, e)| e)?;
        self.at(lease.pin())?;
        let block = Arc::new(Block {
            thread: std::thread::current().id(),
            process: fork_generation(),
            has: ForkMutex::new(Has::Lease(lease)),
            timeout: options.timeout,
        });
        self.region().shared.held.lock().push(block.clone());
        Ok(Exclusive { table: self.clone(), block })
    }

    /// A copy of a column, as a result of its own, if this thread has the table exclusively: then
    /// views of the table itself are refused. None if it has not. `interrupt` is asked now and then
    /// while it is made.
    ///
    /// # Errors
    /// Those of a query; `InvalidArgument` for a column that is not there.
    pub fn own_copy(&self, column: usize, interrupt: &dyn Fn() -> bool) -> Result<Option<Table>> {
        if self.borrow()?.is_none() {
            return Ok(None);
        }
        let schema = self.schema();
        let Some(field) = schema.fields().get(column) else {
            return Err(Error::InvalidArgument(format!("there is no column {column}")));
        };
        let query = self.query().select(vec![Expr::column(field.name().as_str())]);
        let options = CollectOptions { interrupt: Some(interrupt), ..CollectOptions::default() };
        query.collect(None, options).map(Some)
    }

    /// Whether this thread has the table exclusively, and is not using the lease right now.
    pub fn is_own(&self) -> bool {
        self.borrow().is_ok_and(|loan| loan.is_some())
    }

    /// The exclusive lease that this thread has on the table, and the version that it is on.
    pub(crate) fn borrow(&self) -> Result<Option<(Arc<Version>, Loan)>> {
        let Some(pin) = self.pin() else { return Ok(None) };
        let Some(loan) = self.own_lease(&pin) else { return Ok(None) };
        let Ok(lease) = loan.lease() else { return Ok(None) };
        let version = self.at(lease.pin())?;
        Ok(Some((version, loan)))
    }

    /// What this thread's block has of this version of the table.
    pub(crate) fn own_lease(&self, pin: &Pin) -> Option<Loan> {
        let held = self.region().shared.held.lock();
        let own = (std::thread::current().id(), fork_generation());
        held.iter().filter(|block| (block.thread, block.process) == own).find_map(|block| {
            let mut has = block.has.lock();
            let is_it = match &*has {
                Has::Lease(lease) => lease.pin().sequence() == pin.sequence(),
                Has::Lost(last) => {
                    last.follow().is_ok_and(|last| last.sequence() == pin.sequence())
                }
                Has::Lent => false,
            };
            is_it.then(|| Loan { block: block.clone(), has: std::mem::take(&mut *has) })
        })
    }

    /// The error of something that this thread's own exclusive lease is in the way of, with what to
    /// do instead.
    pub(crate) fn advise(&self, error: Error, advice: &str) -> Error {
        match error {
            Error::LeaseHeld { name, holders, .. } if self.is_own() => {
                let text = format!("this thread has the table {name:?} exclusively: {advice}");
                Error::LeaseHeld { name, holders, text }
            }
            other => other,
        }
    }
}
