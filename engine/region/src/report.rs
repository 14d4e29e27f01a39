//! What can be said about a region: statistics, holders, and whether its parts agree.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::arena::granules;
use crate::error::Result;
use crate::index::NameIndex;
use crate::layout::{GRANULE, checksum, class_of, header, session as field, slot};
use crate::pins::Line;
use crate::session::Session;
use crate::state::{self, State};
use crate::types::{HoldKind, LeaseRecord, Report, Stats};

impl Session {
    fn number(&self, at: u64) -> Result<u64> {
        Ok(self.bytes.word(at)?.load(Ordering::Relaxed))
    }

    /// The slots of sessions that are (or died while) open.
    fn open_sessions(&self) -> Result<Vec<u32>> {
        let mut open = Vec::new();
        for index in 0..self.sessions_high() {
            if self.incarnation_in(index)? != 0 {
                open.push(index);
            }
        }
        Ok(open)
    }

    pub(crate) fn stats(&self) -> Result<Stats> {
        self.check_fork()?;
        let open = self.open_sessions()?;
        let mut chained = 0;
        for &index in &open {
            let blocks = self.number(self.layout.session(index) + field::CHAIN_COUNT)?;
            chained = u64::saturating_add(chained, blocks);
        }
        let (mut poisoned, mut tickets) = (0, 0);
        for slot in 0..self.slots_high() {
            let table = crate::catalog::visible(self.state_word(slot)?);
            poisoned += u64::from(table && self.is_broken(slot)?);
            tickets += u64::from(self.ticket_of(slot)? != 0 && self.passes_keep(slot)?);
        }
        let capacity = self.layout.capacity;
        let used = self.number(header::USED)?.saturating_sub(chained).saturating_mul(GRANULE);
        Ok(Stats {
            capacity,
            used,
            free: capacity.saturating_sub(used),
            reserved: self.number(header::COMMITTED)?.saturating_mul(GRANULE),
            tables: self.number(header::TABLES)?,
            retired: self.number(header::RETIRED)?,
            poisoned,
            tickets,
            sessions: open.len() as u64,
            extents: self.local.lock().live,
            max_tables: u64::from(self.layout.max_tables),
            recoveries: self.number(header::RECOVERIES)?,
        })
    }

    pub(crate) fn leases(&self) -> Result<Vec<LeaseRecord>> {
        self.check_fork()?;
        let mut out = Vec::new();
        let open = self.open_sessions()?;
        for slot in 0..self.slots_high() {
            let word = self.state_word(slot)?;
            if matches!(state::state(word), None | Some(State::Free | State::Building)) {
                continue;
            }
            let sequence = state::sequence(word);
            let mut holders = Vec::new();
            let owner = |token: u64| {
                let index = (token & 0x1ff) as u32;
                (token != 0 && open.contains(&index)).then_some(index)
            };
            if let Some(index) = owner(self.updater_of(slot)?) {
                let shut = matches!(state::state(word), Some(State::Leased | State::Writing))
                    || word & state::TORN != 0;
                holders.push((index, if shut { HoldKind::Exclusive } else { HoldKind::Update }));
            }
            for &index in &open {
                for (line, kind) in [(Line::Pins, HoldKind::Pin), (Line::Leases, HoldKind::Lease)] {
                    if self.has_bit(slot, line, index)? {
                        holders.push((index, kind));
                    }
                }
            }
            let mut held = holders
                .into_iter()
                .map(|(index, kind)| self.holder(index, sequence, kind))
                .collect::<Result<Vec<_>>>()?;
            held.extend(self.sender_of(slot, sequence)?);
            if held.is_empty() {
                continue;
            }
            // What a damaged manifest owns is not known.
            let extents = self.slot_extents(slot).unwrap_or_default();
            let bytes = extents.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes));
            for holder in held {
                out.push(LeaseRecord {
                    pid: holder.pid,
                    table: String::from_utf8_lossy(&self.slot_name(slot)?).into_owned(),
                    sequence,
                    current: crate::catalog::visible(word),
                    kind: holder.kind,
                    since: holder.since,
                    what: holder.what,
                    bytes,
                });
            }
        }
        for index in open {
            self.noted_builds(index, &mut out)?;
        }
        Ok(out)
    }

    /// Compares what is recorded with what is derived from it. Damage is reported, not raised.
    pub(crate) fn verify(&self) -> Report {
        let mut report = Report::default();
        let outcome = if self.read_only {
            self.verify_slots(&mut report, &mut HashMap::new())
        } else {
            self.verify_all(&mut report)
        };
        for outcome in [outcome, self.verify_durable(&mut report)] {
            if let Err(e) = outcome {
                report.problems.push(e.to_string());
            }
        }
        report
    }

    fn verify_all(&self, report: &mut Report) -> Result<()> {
        // Under the lock, so that nothing moves meanwhile.
        let writer = self.write()?;
        let mut owners = HashMap::new();
        self.verify_slots(report, &mut owners)?;
        self.verify_links(report)?;
        for index in self.open_sessions()? {
            let (records, chain) = writer.session_records(index)?;
            for (_, offset, bytes) in records {
                *owners.entry((offset, bytes)).or_insert(0_u64) += 1;
            }
            for block in &chain {
                *owners.entry((*block, GRANULE)).or_insert(0) += 1;
            }
        }
        let (mut owned, mut covered) = (0, 0);
        let mut extents: Vec<_> = owners.into_iter().collect();
        extents.sort_unstable();
        let mut end = 0;
        for ((offset, bytes), count) in extents {
            report.extents += 1;
            if offset < end {
                report.problems.push(format!("extents overlap at byte {offset}"));
            }
            end = offset.saturating_add(bytes);
            let Some(first) = self.layout.granule_of(offset) else {
                report.problems.push(format!("an extent lies outside the arena at byte {offset}"));
                continue;
            };
            let n = if class_of(bytes).is_some() { 1 } else { granules(bytes) };
            // Sorted, so that what was counted before lies before; blocks share granules.
            let to = first.saturating_add(n).min(self.layout.granule_count);
            owned += to.saturating_sub(first.max(covered));
            covered = covered.max(to);
            match writer.owners(offset, bytes) {
                Ok(found) if found == count => {}
                Ok(found) => report.problems.push(format!(
                    "the extent at byte {offset} has {count} owners, and {found} are counted"
                )),
                Err(e) => report.problems.push(e.to_string()),
            }
        }
        let used = self.count_used(0, self.high())?;
        if used != owned {
            report
                .problems
                .push(format!("{used} granules are marked used, and {owned} have owners"));
        }
        for (at, found, what) in [
            (header::USED, used, "used granules"),
            (header::COMMITTED, self.count_committed()?, "reserved granules"),
        ] {
            let kept = self.number(at)?;
            if kept != found {
                report.problems.push(format!("{found} {what}, and {kept} are counted"));
            }
        }
        // Who flushes takes memory before it is a checkpoint's.
        let flushing = self.number(header::FLUSHER)? != 0;
        if self.count_committed()? > self.limit()? && !flushing {
            report.problems.push("more memory is reserved than the capacity allows".into());
        }
        Ok(())
    }

    /// What is wrong with a slot's state, updater and ticket, if anything. A session that died is
    /// open until it is swept.
    fn verify_holds(&self, slot: u32, word: u64) -> Result<Option<String>> {
        let flags = state::SUPERSEDED | state::TICKET | state::CHECKPOINT | state::TORN;
        let state = state::state(word);
        if word & flags != 0 && !matches!(state, Some(State::Retired | State::Reclaiming)) {
            return Ok(Some("it is marked as only a retired table can be".into()));
        }
        let token = self.updater_of(slot)?;
        if token != 0 && self.incarnation_in((token & 0x1ff) as u32)? != token >> 9 {
            return Ok(Some("it is updated by a session that is not there".into()));
        }
        if self.is_orphaned(slot)? {
            return Ok(Some("it was sent by a session that is not there".into()));
        }
        if matches!(state, Some(State::Leased | State::Writing)) && self.updater_of(slot)? == 0 {
            return Ok(Some("it is exclusively leased, and by nobody".into()));
        }
        Ok(None)
    }

    fn verify_slots(
        &self,
        report: &mut Report,
        owners: &mut HashMap<(u64, u64), u64>,
    ) -> Result<()> {
        let (mut tables, mut retired) = (0, 0);
        for slot in 0..self.slots_high() {
            let word = self.state_word(slot)?;
            match state::state(word) {
                None => report.problems.push(format!("slot {slot} is in no known state")),
                Some(State::Free) => continue,
                Some(State::Building) => {
                    report.problems.push(format!("slot {slot} was left half made"));
                }
                Some(State::Retired) if self.is_kept(slot, word)? => {}
                Some(State::Retired) => retired += 1,
                Some(State::Reclaiming) => {
                    retired += 1;
                    if !self.read_only {
                        report.problems.push(format!("slot {slot} was left half freed"));
                    }
                }
                Some(State::Published | State::Leased | State::Writing | State::Poisoned) => {
                    tables += 1;
                }
            }
            report.tables += u64::from(slot >= slot::HIDDEN);
            let name = self.slot_name(slot)?;
            let shown = String::from_utf8_lossy(&name).into_owned();
            if crate::catalog::visible(word) && self.is_broken(slot)? {
                report.poisoned.push(self.poisoned(slot, &shown).to_string());
            }
            if let Some(problem) = self.verify_holds(slot, word)? {
                report.problems.push(format!("table {shown:?}: {problem}"));
            }
            let manifest = match self.manifest_at(slot) {
                Ok(manifest) => manifest,
                Err(e) => {
                    report.problems.push(format!("table {shown:?}: {e}"));
                    continue;
                }
            };
            *owners.entry((manifest.offset, manifest.bytes())).or_insert(0) += 1;
            match self.slot_extents(slot) {
                Ok(extents) => {
                    for extent in extents {
                        *owners.entry(extent).or_insert(0) += 1;
                    }
                }
                Err(e) => report.problems.push(format!("table {shown:?}: {e}")),
            }
            if crate::catalog::visible(word) {
                let hash = checksum(&name);
                let found = self.probe(hash, |_, found| Ok((found == slot).then_some(())))?;
                if found.is_none() {
                    report.problems.push(format!("table {shown:?} is missing from the index"));
                }
            }
        }
        for (at, found, what) in
            [(header::TABLES, tables, "tables"), (header::RETIRED, retired, "retired tables")]
        {
            let kept = self.number(at)?;
            if kept != found && !self.read_only {
                report.problems.push(format!("{found} {what}, and {kept} are counted"));
            }
        }
        Ok(())
    }
}
