//! Tables on their way: waiting for what others publish, and results that travel to another
//! process without a name.

use std::sync::{Arc, Weak};
use std::time::Duration;

use insitu_region::{Location, Pass, Patience, Pin, fork_epoch};

use crate::error::{Error, Result};
use crate::manifest;
use crate::region::{Home, Region, Shared};
use crate::storage::{Anonymous, Storage};
use crate::table::Table;

/// What finds a table that has a name in another process: see [`Table::way`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Way {
    /// Where this version is.
    pub slot: u32,
    /// What tells it from all that were or will be there.
    pub sequence: u64,
    /// What all versions have that updates and appends make of it, and no other table of the name.
    pub identity: u64,
    /// Its rows: an update changes no number of rows.
    pub rows: u64,
}

impl Way {
    /// As it was when it was sent.
    pub fn new(slot: u32, sequence: u64, identity: u64, rows: u64) -> Way {
        Way { slot, sequence, identity, rows }
    }
}

/// A region that is kept open by its tables only.
#[derive(Clone)]
pub struct WeakRegion(Weak<Shared>);

impl WeakRegion {
    /// The region, if it still is open.
    pub fn upgrade(&self) -> Option<Region> {
        let region = self.0.upgrade().map(|shared| Region { shared })?;
        (!region.is_closed()).then_some(region)
    }
}

impl std::fmt::Debug for WeakRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WeakRegion")
    }
}

impl Region {
    /// Remembers it without keeping it open.
    pub fn downgrade(&self) -> WeakRegion {
        WeakRegion(Arc::downgrade(&self.shared))
    }

    /// The anonymous region of that identity, if this process has it open, or has inherited it.
    ///
    /// # Errors
    /// Those of opening a region, in a process that has inherited it.
    pub fn anonymous(id: u128, read_only: bool) -> Result<Option<Region>> {
        insitu_region::Region::find(id, read_only)
            .map(|region| Region::new(region, Home::Anonymous))
            .transpose()
    }

    /// The region in shared memory of that name and identity, if this process has it open for writing
    /// or has inherited it. Asks nothing of the system.
    ///
    /// # Errors
    /// Those of opening a region, in a process that has inherited it.
    pub fn known(name: &str, id: u128) -> Result<Option<Region>> {
        let Some(region) = insitu_region::Region::find(id, false) else { return Ok(None) };
        match region.location() {
            Ok(Location::Shm(its)) if its == name => {
                Region::new(region, Home::Named(its)).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Waits until there is a table of that name, or (`newer_than`) a newer one than a handle has
    /// seen last. The end of an update makes it newer. `interrupt` is asked now and then.
    ///
    /// # Errors
    /// `Timeout`; `Cancelled`; `InvalidArgument` for a handle without a name or of another region;
    /// `Stale`.
    pub fn wait(
        &self,
        name: &str,
        newer_than: Option<&Table>,
        timeout: Option<Duration>,
        interrupt: &dyn Fn() -> bool,
    ) -> Result<Table> {
        let than = newer_than.map(|table| self.version_of(table)).transpose()?;
        let timeout = timeout.unwrap_or(Duration::MAX);
        let patience = Patience { timeout, interrupt, what: "waiting" };
        let pin = self.shared.region.wait(name, than, &patience)?;
        self.named(pin)
    }

    /// What a handle has seen last.
    fn version_of(&self, table: &Table) -> Result<(u64, u64)> {
        let wrong = |what: &str| Err(Error::InvalidArgument(format!("newer_than: {what}")));
        if !self.is_same(table.region()) {
            return wrong("the table lies in another region");
        }
        let seen = table.seen();
        match seen.sequence() {
            Some(sequence) => Ok((sequence, seen.content)),
            None => wrong("a result without a name has no newer versions"),
        }
    }

    /// The table that a way leads to: the version that was sent, or what updates have made of it
    /// since. One that has lost its name is found as long as somebody keeps it.
    ///
    /// # Errors
    /// `Stale` if it was replaced or deleted, and nobody keeps it.
    pub fn follow(&self, name: &str, way: Way) -> Result<Table> {
        if let Some(pin) = self.shared.region.revisit(way.slot, way.sequence)? {
            return self.named(pin.follow()?);
        }
        let gone =
            |what| Err(Error::Stale(format!("the table {name:?} that was sent is gone: {what}")));
        let table = match self.get(name) {
            Ok(table) => table,
            Err(Error::TableNotFound { .. }) => return gone("it was deleted"),
            Err(error) => return Err(error),
        };
        if table.identity()? != Some(way.identity) {
            return gone("it was replaced; get the new one by its name");
        }
        if table.num_rows() != way.rows {
            return gone(
                "rows were appended to it, and nobody keeps it without; get it by its name",
            );
        }
        Ok(table)
    }

    fn named(&self, pin: Pin) -> Result<Table> {
        let content = pin.content_version();
        let meta = self.shared.meta_at(&pin, content)?;
        Ok(Table::new(self.clone(), meta, Storage::Named(pin), content))
    }

    /// Takes what a pass names. The pass is used up: of several who come with it the first has
    /// the result.
    ///
    /// # Errors
    /// `Stale` if the pass was used before, or the result is not kept any more; `Timeout`.
    pub fn redeem(&self, pass: Pass) -> Result<Table> {
        let pin = self.shared.region.redeem(pass)?;
        let meta = self.shared.meta(&pin)?;
        let leases = vec![pin.lease_for("received")?];
        let kept = Anonymous { leases, ..Anonymous::default() };
        Ok(Table::new(self.clone(), meta, Storage::Anonymous(kept), 0))
    }
}

impl Table {
    /// The way to a table that has a name, for another process ([`Region::follow`]); none to a
    /// result. Nothing is kept for it.
    ///
    /// # Errors
    /// `RegionCorrupt`, `Stale`.
    pub fn way(&self) -> Result<Option<Way>> {
        let version = self.version()?;
        let Storage::Named(pin) = &version.storage else { return Ok(None) };
        let (slot, sequence) = pin.place();
        let layout = &version.meta.layout;
        Ok(Some(Way { slot, sequence, identity: layout.origin_of(sequence), rows: layout.rows }))
    }

    /// A pass for a result without a name, to be sent to another process that redeems it
    /// ([`Region::redeem`]), once. The result stays until all its passes were redeemed; those that
    /// were not when this process leaves the region, or dies, are good for another
    /// [`crate::TICKET_GRACE`]. Buffers that are very small are copied for it
    /// ([`crate::Stats::copies`]).
    ///
    /// # Errors
    /// `InvalidArgument` for a table with a name, which is its pass; `RegionFull`; `TableLimit`;
    /// `ReadOnly`; `Stale`; `Timeout`.
    pub fn pass(&self) -> Result<Pass> {
        let process = fork_epoch();
        let known = self.sent().lock().clone();
        // A parent's is kept by the parent.
        if let Some((_, pin)) = known.filter(|(maker, _)| *maker == process)
            && let Some(pass) = pin.issue()?
        {
            return Ok(pass);
        }
        let pin = self.hidden()?;
        let Some(pass) = pin.issue()? else {
            return Err(Error::Stale("a result was sent by others while it was made".into()));
        };
        *self.sent().lock() = Some((process, pin));
        Ok(pass)
    }

    /// This result as a table that no name finds.
    fn hidden(&self) -> Result<Pin> {
        let shared = &self.region().shared;
        shared.check_open()?;
        let version = self.seen();
        let Storage::Anonymous(kept) = &version.storage else {
            return Err(Error::InvalidArgument("a table with a name is found by it".into()));
        };
        let meta = &version.meta;
        if kept.slabs.is_empty() {
            let message = manifest::encode(&meta.arrow, &meta.layout)?;
            let used = kept.used_by(&meta.layout)?;
            return Ok(shared.region.ticket(&used.parts(), &message)?);
        }
        let (kept, layout) = kept.out_of_slabs(shared, &meta.layout)?;
        let message = manifest::encode(&meta.arrow, &layout)?;
        Ok(shared.region.ticket(&kept.used_by(&layout)?.parts(), &message)?)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use arrow_select::concat::concat_batches;
    use insitu_query::Expr;
    use insitu_region::CreateOptions;

    use super::*;

    #[test]
    fn of_a_result_that_is_sent_or_named_no_more_is_copied_than_is_small() {
        let options = CreateOptions { capacity: Some(64 << 20), ..CreateOptions::default() };
        let region = Region::create(Location::Memfd, options).unwrap();
        let numbers = Int64Array::from_iter((0..200_000).map(|i| (i % 7 != 0).then_some(i)));
        let batch = RecordBatch::try_from_iter([("a", Arc::new(numbers) as ArrayRef)]).unwrap();
        let table = region.put("t", batch.schema(), [Ok(batch)], false).unwrap();
        let a = || Expr::column("a");
        // The values are large and the bitmap is not; both are small; and all is.
        let results = [
            table.query().with_columns(vec![(a() * 2).alias("b")]),
            table.query().with_columns(vec![a().gt(5).alias("b"), (a() * 2).alias("c")]),
            table.query().select(vec![a().gt(5)]).slice(7, Some(1_000)),
        ];
        for result in results {
            let result = result.collect(None, Default::default()).unwrap();
            let before = region.stats().unwrap();
            let pass = result.pass().unwrap();
            let sent = region.stats().unwrap();
            let named = region.put_table("named", &result, true).unwrap();
            let after = region.stats().unwrap();
            for (before, after) in [(before, sent), (sent, after)] {
                assert_eq!(after.copies, before.copies + 1);
                let copied = after.copied_bytes - before.copied_bytes;
                assert!((1..=128 << 10).contains(&copied), "{copied}");
            }
            let all = |t: &Table| concat_batches(&t.schema(), &t.to_batches().unwrap()).unwrap();
            let expected = all(&result);
            drop(result);
            let received = region.redeem(pass).unwrap();
            assert_eq!((all(&received), all(&named)), (expected.clone(), expected));
            assert!(region.verify().ok(), "{:?}", region.verify());
        }
        drop(table);
        region.delete("t").unwrap();
        region.delete("named").unwrap();
        region.gc().unwrap();
        // What is kept for small results.
        assert!(region.stats().unwrap().used <= 512 << 10);
    }
}
