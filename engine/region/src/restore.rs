//! Opening a file after another boot: back to what the last flush made durable.
//!
//! Of such a file only the roots are believed, and what they name. All else is whatever the
//! kernel had written by the time the system went down. It is emptied, and slots, marks and index
//! are made again from the checkpoint. Nothing durable is written meanwhile, and the boot's
//! identity is stored last: who dies on the way leaves it to the next to begin again.

use std::sync::atomic::Ordering;

use rustix::fs::FallocateFlags;

use crate::arena::granules;
use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::kill;
use crate::layout::{
    GRANULE, INDEX_MIN_LOG2, checksum, class_of, header, known_bytes, session as field, slot,
};
use crate::roots::{self, Root};
use crate::session::{Session, boot_id};
use crate::state::{self, State};
use crate::types::Report;
use crate::writer::Writer;

impl Session {
    /// Makes the region what its last flush made durable. All lock bytes are ours.
    pub(crate) fn roll_back(&self) -> Result<()> {
        let (root, kept) = self.choose_root()?;
        let bytes = &self.bytes;
        let sequence = self.next_sequence(&kept)?;
        self.forget()?;
        kill::point("restore: emptied");
        bytes.word(header::SEQUENCE)?.store(sequence, Ordering::Relaxed);
        {
            let mut writer = self.write()?;
            let restored = writer.restore(&root, &kept);
            writer.noting(restored)?;
        }
        self.punch_all_but(&kept, &root)?;
        kill::point("restore: rebuilt");
        let flags = bytes.word(header::FLAGS)?;
        flags.fetch_and(!header::FLAG_SYNC_FAILED, Ordering::AcqRel);
        bytes.word(header::EPOCH)?.fetch_add(1, Ordering::AcqRel);
        kill::point("restore: epoch raised");
        // Two words, of which the second decides.
        bytes.word(header::BOOT_ID)?.store(boot_id() as u64, Ordering::Release);
        bytes.word(header::BOOT_ID + 8)?.store((boot_id() >> 64) as u64, Ordering::Release);
        Ok(())
    }

    /// The newest root whose checkpoint is whole, and the checkpoint.
    ///
    /// Two whole roots with consecutive numbers are what an undisturbed file has: the newer one's
    /// checkpoint is read, and its tables are as they were flushed. Where a root is damaged (or was
    /// being written when the power failed), or a checkpoint is, what it would have named is not
    /// known, and memory of an older one may have been recycled since: then all sums are looked at.
    fn choose_root(&self) -> Result<(Root, Checkpoint)> {
        let both = [self.root(0)?, self.root(1)?];
        let mut found: Vec<Root> = both.into_iter().flatten().collect();
        found.sort_by_key(|root| std::cmp::Reverse(root.number));
        let undisturbed = match found.as_slice() {
            [newer, older] => newer.number == older.number + 1,
            // Before the second flush the other place was never written.
            [only] => only.number == 0 && self.root_is_blank(1)?,
            _ => false,
        };
        let mut trouble = Error::corrupt(
            "both of its durable roots are damaged, and it was last used before the system started",
            header::ROOTS[0],
        );
        for (i, root) in found.iter().enumerate() {
            match self.checked(root, !undisturbed || i > 0) {
                Ok(kept) => return Ok((*root, kept)),
                Err(e) if i == 0 => trouble = e,
                Err(_) => {}
            }
        }
        Err(trouble)
    }

    /// A root's checkpoint, if its checksum is right; and those of all that it keeps, if so asked.
    fn checked(&self, root: &Root, all: bool) -> Result<Checkpoint> {
        let place = root.place;
        if place.offset == 0 {
            return Ok(Checkpoint::default());
        }
        let kept = self.read_checkpoint(place)?;
        if self.sum(place.offset, place.bytes(), &|| false)? != Some(root.sum)
            || kept.number != root.number
            || kept.tables.len() > self.layout.max_tables as usize
        {
            return Err(Error::corrupt("its checkpoint is damaged", place.offset));
        }
        if all {
            let mut report = Report::default();
            self.verify_sums(root, &mut report)?;
            if let Some(problem) = report.problems.first() {
                let at = roots::at(root.number);
                return Err(Error::corrupt(format!("a durable root is damaged; {problem}"), at));
            }
        }
        Ok(kept)
    }

    /// A sequence that none of those reaches which were given out after the last flush, and are
    /// forgotten now: handles that were written to elsewhere may carry them still.
    fn next_sequence(&self, kept: &Checkpoint) -> Result<u64> {
        let before = self.bytes.word(header::SEQUENCE)?.load(Ordering::Relaxed);
        let before = if before > state::LAST_SEQUENCE / 2 { 0 } else { before };
        let leap = 1 << 32 | crate::backing::random_u64()? >> 32;
        Ok(before.max(kept.sequence).saturating_add(leap).min(state::LAST_SEQUENCE))
    }

    /// Makes all that is not durable what it is in a region that was just created.
    fn forget(&self) -> Result<()> {
        let l = &self.layout;
        // Holes read as zeros, and cost nothing where nothing was. Our own page, the first, stays:
        // should we fail on the way, leaving touches it.
        let from = l.session(0) + field::BYTES;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.backing.fd()?, flags, from, l.arena - from)
            .map_err(|e| Error::io(format!("clearing {}", self.backing.describe()), e))?;
        self.bytes.zero(l.session(0), field::BYTES)?;
        kill::point("restore: forgotten");
        self.bytes.zero(header::VOLATILE, header::ROOTS[0] - header::VOLATILE)?;
        self.reserve_metadata(l.index, 8 << INDEX_MIN_LOG2)?;
        self.reserve_metadata(l.known_bits, known_bytes(l.granule_count))?;
        self.reserve_metadata(l.slots, u64::from(slot::HIDDEN) * slot::BYTES)?;
        for (at, value) in [
            (header::SESSIONS_HIGH, 1),
            (header::INDEX_LOG2, INDEX_MIN_LOG2),
            (header::SLOTS_HIGH, u64::from(slot::HIDDEN)),
        ] {
            self.bytes.word(at)?.store(value, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The runs of granules that a checkpoint's memory lies in.
    fn kept_runs(&self, kept: &Checkpoint, root: &Root) -> Vec<(u64, u64)> {
        let mut all = kept.extents.clone();
        if root.place.offset != 0 {
            all.push((root.place.offset, root.place.bytes()));
        }
        all.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (offset, bytes) in all {
            let Some(from) = self.layout.granule_of(offset) else { continue };
            let to = from + if class_of(bytes).is_some() { 1 } else { granules(bytes) };
            match runs.last_mut() {
                Some(last) if last.1 >= from => last.1 = last.1.max(to),
                _ => runs.push((from, to)),
            }
        }
        runs
    }

    /// Gives the disk back what the file took for all that is forgotten.
    fn punch_all_but(&self, kept: &Checkpoint, root: &Root) -> Result<()> {
        let mut at = 0;
        let end = self.layout.granule_count;
        for (from, to) in self.kept_runs(kept, root).into_iter().chain([(end, end)]) {
            if from > at {
                let (offset, bytes) = (self.layout.granule_at(at), (from - at) * GRANULE);
                self.ground().punch(offset, bytes);
            }
            at = to;
        }
        Ok(())
    }
}

impl Writer<'_> {
    /// Makes slots, marks and index of an empty region from a checkpoint.
    fn restore(&mut self, root: &Root, kept: &Checkpoint) -> Result<()> {
        let s = self.s;
        for (from, to) in s.kept_runs(kept, root) {
            s.make_known(from, to)?;
            // It is all there; should a granule's unused end not be, nobody may find that out by
            // storing to it.
            let (at, bytes) = (s.layout.granule_at(from), (to - from) * GRANULE);
            s.ground().reserve_small(at, bytes).map_err(|e| s.full(e, bytes))?;
            s.set_warm(from, to, true)?;
        }
        kill::point("restore: marks set");
        if root.place.offset != 0 {
            s.describe_checkpoint(0, root.place, root.number)?;
            let word = s.bytes.word(s.layout.slot(0) + slot::STATE)?;
            let hidden = state::word(State::Retired, kept.sequence) | state::CHECKPOINT;
            word.store(hidden, Ordering::Release);
            s.bytes.word(header::CHECKPOINT)?.store(1, Ordering::Release);
        }
        for table in &kept.tables {
            let slot = self.take_slot()?;
            let at = s.layout.slot(slot);
            s.bytes.word(at + slot::CONTENT)?.store(table.content, Ordering::Relaxed);
            s.bytes.word(at + slot::MANIFEST)?.store(table.manifest.offset, Ordering::Relaxed);
            let message = table.manifest.message;
            s.bytes.word(at + slot::MANIFEST_BYTES)?.store(message, Ordering::Relaxed);
            s.bytes.half(at + slot::EXTENTS)?.store(table.manifest.extents, Ordering::Relaxed);
            let len = table.name.len() as u32;
            s.bytes.half(at + slot::NAME_BYTES)?.store(len, Ordering::Relaxed);
            let hash = checksum(&table.name);
            s.bytes.word(at + slot::NAME_HASH)?.store(hash, Ordering::Relaxed);
            s.bytes.write(at + slot::NAME, &table.name)?;
            let word = state::word(State::Published, table.sequence);
            s.bytes.word(at + slot::STATE)?.store(word, Ordering::Release);
            kill::point("restore: slot restored");
        }
        kill::point("restore: slots restored");
        self.rebuild()
    }
}
