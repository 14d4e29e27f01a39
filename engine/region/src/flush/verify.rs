//! Whether what is durable is what was flushed.

use std::sync::atomic::Ordering;

use crate::checkpoint;
use crate::error::Result;
use crate::layout::header;
use crate::pins::Line;
use crate::roots::{self, Root};
use crate::session::Session;
use crate::types::Report;

impl Session {
    /// Compares what is durable with its checksums, and the roots with what they should say.
    pub(crate) fn verify_durable(&self, report: &mut Report) -> Result<()> {
        if !self.backing.is_durable() {
            return Ok(());
        }
        let flags = self.bytes.word(header::FLAGS)?.load(Ordering::Acquire);
        if flags & header::FLAG_SYNC_FAILED != 0 {
            report
                .problems
                .push("the system failed to write the file; no flush can succeed".into());
        }
        let Some(slot) = self.hidden_slot(header::CHECKPOINT)? else {
            if self.root(0)?.is_none() {
                report.problems.push("the first durable root is damaged".into());
            }
            return Ok(());
        };
        let word = self.state_word(slot)?;
        // Held, so that a flush that completes meanwhile does not have it recycled.
        if !self.hold(slot, Line::Pins, word, "")? {
            return Ok(());
        }
        let outcome = self.verify_checkpoint(slot, report);
        self.unhold(slot, Line::Pins);
        outcome
    }

    fn verify_checkpoint(&self, slot: u32, report: &mut Report) -> Result<()> {
        let number = self.checkpoint_number(slot)?;
        let place = self.place_of(slot)?;
        let root = self.root((number % 2) as usize)?;
        let Some(root) = root.filter(|root| root.number == number && root.place == place) else {
            // Unless another flush has completed meanwhile, it is the place where it was written.
            if self.hidden_slot(header::CHECKPOINT)? == Some(slot) {
                let at = roots::at(number);
                report.problems.push(format!("the durable root at byte {at} is damaged"));
            }
            return Ok(());
        };
        self.verify_sums(&root, report)
    }

    /// Compares a root's checkpoint, and all that it keeps, with the checksums.
    pub(crate) fn verify_sums(&self, root: &Root, report: &mut Report) -> Result<()> {
        let place = root.place;
        if place.offset == 0 {
            return Ok(());
        }
        let kept = self.read_checkpoint(place)?;
        if self.sum(place.offset, place.bytes(), &|| false)? != Some(root.sum) {
            report
                .problems
                .push(format!("the checkpoint at byte {} is not what was flushed", place.offset));
            return Ok(());
        }
        for (&(offset, bytes), &expected) in kept.extents.iter().zip(&kept.sums) {
            if self.sum(offset, bytes, &|| false)? == Some(expected) {
                continue;
            }
            let of = kept.tables.iter().filter(|table| {
                (table.manifest.offset, table.manifest.bytes()) == (offset, bytes)
                    || self
                        .kept_extents(&kept, table)
                        .is_ok_and(|e| checkpoint::contains(&e, offset, bytes))
            });
            let names: Vec<_> =
                of.map(|table| format!("{:?}", String::from_utf8_lossy(&table.name))).collect();
            report.problems.push(format!(
                "table {}: the {bytes} bytes at byte {offset} are not what was flushed",
                names.join(", ")
            ));
        }
        Ok(())
    }
}
