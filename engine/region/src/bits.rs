//! Three bitmaps over the arena's granules: which are used, which are warm (reserved), and, page by
//! page, which are known: those that have rows and bits at all. What is not known is free and cold,
//! and its rows and bits are not reserved, so that nobody may look at them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::layout::{GRANULES_PER_PAGE, PAGE, granule, header};
use crate::session::Session;

/// The bits of word `index` that lie in `[from, to)`.
fn mask(index: u64, from: u64, to: u64) -> u64 {
    let start = index * 64;
    let low = from.saturating_sub(start).min(64);
    let high = to.saturating_sub(start).min(64);
    let ones = |n: u64| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    ones(high) & !ones(low)
}

/// Words of a bitmap that a page of rows goes with.
const WORDS_PER_PAGE: u64 = GRANULES_PER_PAGE / 64;

/// 64 granules, or more that are not known.
struct Word {
    /// The first granule.
    start: u64,
    /// How many; more than 64 only where all are free and cold.
    len: u64,
    used: u64,
    warm: u64,
}

/// The words of the bitmaps that hold some granules, in order; what is not known at one stroke.
struct Words<'a> {
    s: &'a Session,
    index: u64,
    end: u64,
}

impl Iterator for Words<'_> {
    type Item = Result<Word>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.end {
            return None;
        }
        Some(self.read())
    }
}

impl Words<'_> {
    fn read(&mut self) -> Result<Word> {
        let start = self.index * 64;
        let page = self.index / WORDS_PER_PAGE;
        let known = self.s.known_word(page / 64)?.load(Ordering::Acquire) >> (page % 64);
        if known & 1 == 0 {
            let pages = u64::from(known.trailing_zeros()).min(64 - page % 64);
            self.index = ((page + pages) * WORDS_PER_PAGE).min(self.end);
            return Ok(Word { start, len: self.index * 64 - start, used: 0, warm: 0 });
        }
        let used = self.s.used_word(self.index)?.load(Ordering::Relaxed);
        let warm = self.s.warm_word(self.index)?.load(Ordering::Acquire);
        self.index += 1;
        Ok(Word { start, len: 64, used, warm })
    }
}

impl Session {
    /// Granules at or above were never known.
    pub(crate) fn high(&self) -> u64 {
        let high = self.bytes.word(header::ARENA_HIGH).map_or(0, |w| w.load(Ordering::Relaxed));
        high.min(self.layout.granule_count)
    }

    fn used_word(&self, index: u64) -> Result<&AtomicU64> {
        self.bytes.word(self.layout.used_bits + index * 8)
    }

    fn warm_word(&self, index: u64) -> Result<&AtomicU64> {
        self.bytes.word(self.layout.warm_bits + index * 8)
    }

    fn known_word(&self, index: u64) -> Result<&AtomicU64> {
        self.bytes.word(self.layout.known_bits + index * 8)
    }

    /// Whether a granule has a row and bits.
    pub(crate) fn is_known(&self, granule: u64) -> bool {
        let page = granule / GRANULES_PER_PAGE;
        granule < self.layout.granule_count
            && self
                .known_word(page / 64)
                .is_ok_and(|word| word.load(Ordering::Acquire) >> (page % 64) & 1 == 1)
    }

    /// Gives granules `[from, to)` rows and bits. Under the writer lock.
    pub(crate) fn make_known(&self, from: u64, to: u64) -> Result<()> {
        let (mut page, end) = (from / GRANULES_PER_PAGE, to.div_ceil(GRANULES_PER_PAGE));
        while page < end {
            let known = |page: u64| self.is_known(page * GRANULES_PER_PAGE);
            let mut next = page + 1;
            if !known(page) {
                while next < end && !known(next) {
                    next += 1;
                }
                self.reserve_maps(page, next)?;
                for page in page..next {
                    self.known_word(page / 64)?.fetch_or(1 << (page % 64), Ordering::Release);
                }
                let high = self.bytes.word(header::ARENA_HIGH)?;
                let to = (next * GRANULES_PER_PAGE).min(self.layout.granule_count);
                high.fetch_max(to, Ordering::Relaxed);
            }
            page = next;
        }
        Ok(())
    }

    /// Reserves the rows and bits of some pages of granules.
    fn reserve_maps(&self, from: u64, to: u64) -> Result<()> {
        self.reserve_metadata(self.layout.granules + from * PAGE, (to - from) * PAGE)?;
        let bytes = WORDS_PER_PAGE * 8;
        for bits in [self.layout.used_bits, self.layout.warm_bits] {
            self.reserve_metadata(bits + from * bytes, (to - from) * bytes)?;
        }
        Ok(())
    }

    /// The maximal runs of known pages of granules, as (first page, end).
    fn known_pages(&self) -> Result<Vec<(u64, u64)>> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for index in 0..self.high().div_ceil(GRANULES_PER_PAGE * 64) {
            let mut word = self.known_word(index)?.load(Ordering::Acquire);
            while word != 0 {
                let page = index * 64 + u64::from(word.trailing_zeros());
                match runs.last_mut() {
                    Some(last) if last.1 == page => last.1 = page + 1,
                    _ => runs.push((page, page + 1)),
                }
                word &= word - 1;
            }
        }
        Ok(runs)
    }

    /// Forgets what the rows and used bits say; warm granules stay warm.
    pub(crate) fn clear_maps(&self) -> Result<()> {
        for (from, to) in self.known_pages()? {
            let bytes = WORDS_PER_PAGE * 8;
            self.bytes.zero(self.layout.used_bits + from * bytes, (to - from) * bytes)?;
            let rows = GRANULES_PER_PAGE * granule::BYTES;
            self.bytes.zero(self.layout.granules + from * rows, (to - from) * rows)?;
        }
        Ok(())
    }

    fn words(&self, from: u64, to: u64) -> Words<'_> {
        Words { s: self, index: from / 64, end: to.div_ceil(64) }
    }

    /// Sets or clears a run of bits; gives how many changed.
    fn set<'a>(
        &'a self,
        word: impl Fn(u64) -> Result<&'a AtomicU64>,
        range: (u64, u64),
        on: bool,
    ) -> Result<u64> {
        let mut changed = 0;
        let (from, to) = range;
        for index in from / 64..to.div_ceil(64) {
            if !self.is_known(index * 64) {
                return Err(Error::corrupt(
                    "a granule that was never reserved is in use",
                    self.layout.granule_at(index * 64),
                ));
            }
            let bits = mask(index, from, to);
            let word = word(index)?;
            let old = word.load(Ordering::Relaxed);
            let new = if on { old | bits } else { old & !bits };
            changed += u64::from((old ^ new).count_ones());
            word.store(new, Ordering::Release);
        }
        Ok(changed)
    }

    /// Marks known granules `[from, to)` used or free; gives how many changed.
    pub(crate) fn set_used(&self, from: u64, to: u64, on: bool) -> Result<u64> {
        self.set(|i| self.used_word(i), (from, to), on)
    }

    /// Marks known granules `[from, to)` warm or cold; gives how many changed.
    pub(crate) fn set_warm(&self, from: u64, to: u64, on: bool) -> Result<u64> {
        self.set(|i| self.warm_word(i), (from, to), on)
    }

    fn count(&self, from: u64, to: u64, bits: impl Fn(&Word) -> u64) -> Result<u64> {
        let to = to.min(self.high());
        let mut count = 0;
        for word in self.words(from, to) {
            let word = word?;
            count += u64::from((bits(&word) & mask(word.start / 64, from, to)).count_ones());
        }
        Ok(count)
    }

    /// How many of the granules `[from, to)` are warm.
    pub(crate) fn count_warm(&self, from: u64, to: u64) -> Result<u64> {
        self.count(from, to, |word| word.warm)
    }

    /// How many of the granules `[from, to)` are used.
    pub(crate) fn count_used(&self, from: u64, to: u64) -> Result<u64> {
        self.count(from, to, |word| word.used)
    }

    /// How many granules are used or warm: what counts against the capacity.
    pub(crate) fn count_committed(&self) -> Result<u64> {
        self.count(0, self.high(), |word| word.used | word.warm)
    }

    /// The lowest run of `n` free granules; of warm ones, if so asked.
    pub(crate) fn find_run(&self, n: u64, warm: bool) -> Result<Option<u64>> {
        let high = self.high();
        let (mut start, mut len) = (0, 0);
        for word in self.words(0, high) {
            let word = word?;
            let index = word.start / 64;
            if word.len > 64 || (word.used, word.warm) == (0, 0) {
                if warm {
                    (start, len) = (word.start + word.len, 0);
                    continue;
                }
                len += word.len.min(high - word.start);
                if len >= n {
                    return Ok(Some(start));
                }
                continue;
            }
            let mut free = !word.used & mask(index, 0, high);
            if warm {
                free &= word.warm;
            }
            let mut at = 0;
            while at < 64 {
                let rest = free >> at;
                let ones = u64::from(rest.trailing_ones()).min(64 - at);
                len += ones;
                if len >= n {
                    return Ok(Some(start));
                }
                at += ones;
                if at < 64 {
                    at += u64::from((free >> at).trailing_zeros()).min(64 - at);
                    (start, len) = (index * 64 + at, 0);
                }
            }
        }
        // Behind the last row everything is free, and cold.
        let rest = self.layout.granule_count - high;
        if len == 0 {
            start = high;
        }
        Ok((!warm && len + rest >= n).then_some(start))
    }

    /// The maximal runs of granules in `[from, to)` that are warm (or cold), as (start, end).
    pub(crate) fn runs(&self, from: u64, to: u64, warm: bool) -> Result<Vec<(u64, u64)>> {
        self.runs_of(from, to, |word| if warm { word.warm } else { !word.warm })
    }

    /// The maximal runs of free warm granules.
    pub(crate) fn idle_runs(&self) -> Result<Vec<(u64, u64)>> {
        self.idle_runs_in(0, self.high())
    }

    /// The maximal runs of free warm granules in `[from, to)`.
    pub(crate) fn idle_runs_in(&self, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
        self.runs_of(from, to, |word| word.warm & !word.used)
    }

    /// The maximal runs of used granules.
    pub(crate) fn used_runs(&self) -> Result<Vec<(u64, u64)>> {
        self.runs_of(0, self.high(), |word| word.used)
    }

    /// The maximal runs of free granules in `[from, to)`.
    pub(crate) fn free_runs(&self, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
        self.runs_of(from, to, |word| !word.used)
    }

    fn runs_of(&self, from: u64, to: u64, bits: impl Fn(&Word) -> u64) -> Result<Vec<(u64, u64)>> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut add = |start: u64, end: u64| match runs.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => runs.push((start, end)),
        };
        for word in self.words(from, to) {
            let word = word?;
            let index = word.start / 64;
            if word.len > 64 {
                if bits(&word) != 0 {
                    add(word.start.max(from), (word.start + word.len).min(to));
                }
                continue;
            }
            let mut bits = bits(&word) & mask(index, from, to);
            while bits != 0 {
                let low = u64::from(bits.trailing_zeros());
                let ones = u64::from((bits >> low).trailing_ones());
                add(index * 64 + low, index * 64 + low + ones);
                bits &= !mask(0, low, low + ones);
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::mask;
    use crate::layout::{GRANULES_PER_PAGE, header};
    use crate::{CreateOptions, Location, Region};

    #[test]
    fn masks_cut_words_at_both_ends() {
        assert_eq!(mask(0, 0, 64), u64::MAX);
        assert_eq!(mask(0, 1, 3), 0b110);
        assert_eq!(mask(1, 0, 65), 1);
        assert_eq!(mask(1, 70, 200), !0 << 6);
        assert_eq!(mask(2, 0, 128), 0);
    }

    #[test]
    fn what_lies_between_far_granules_is_free_cold_and_costs_nothing() {
        let options = CreateOptions { capacity: Some(8 << 30), ..CreateOptions::default() };
        let region = Region::create(Location::Memfd, options).unwrap();
        let s = region.for_tests();
        let before = rustix::fs::fstat(s.backing.fd().unwrap()).unwrap().st_blocks;
        let far = 400_000;
        {
            let _writer = s.write().unwrap();
            s.make_known(far, far + 1).unwrap();
            s.make_known(0, 1).unwrap();
            assert_eq!(s.set_used(far, far + 1, true).unwrap(), 1);
            assert_eq!(s.set_used(3, 5, true).unwrap(), 2);
            assert!(s.set_used(GRANULES_PER_PAGE, GRANULES_PER_PAGE + 1, true).is_err());
        }
        let grown = rustix::fs::fstat(s.backing.fd().unwrap()).unwrap().st_blocks - before;
        assert!(grown * 512 <= 64 << 10, "{grown} blocks");
        assert!(s.is_known(far) && s.is_known(0) && !s.is_known(1000));
        assert!(s.high() > far && s.high() <= far + GRANULES_PER_PAGE);
        assert_eq!(s.count_used(0, s.layout.granule_count).unwrap(), 3);
        assert_eq!(s.find_run(3, false).unwrap(), Some(0));
        assert_eq!(s.find_run(4, false).unwrap(), Some(5));
        assert_eq!(s.find_run(far, false).unwrap(), None);
        assert_eq!(s.find_run(far - 5, false).unwrap(), Some(5));
        assert_eq!(s.find_run(1, true).unwrap(), None);
        let count = s.layout.granule_count;
        let free = s.free_runs(0, count).unwrap();
        assert_eq!(free, [(0, 3), (5, far), (far + 1, count)]);
        assert_eq!(s.runs(2, count - 2, false).unwrap(), [(2, count - 2)]);
        {
            let _writer = s.write().unwrap();
            s.clear_maps().unwrap();
            s.bytes.word(header::DIRTY).unwrap().store(1, super::Ordering::Relaxed);
        }
        assert_eq!(s.count_used(0, s.high()).unwrap(), 0);
    }
}
