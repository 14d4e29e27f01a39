//! Two bitmaps over the arena's granules: which are used, and which are warm (reserved).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::layout::header;
use crate::session::Session;

/// The bits of word `index` that lie in `[from, to)`.
fn mask(index: u64, from: u64, to: u64) -> u64 {
    let start = index * 64;
    let low = from.saturating_sub(start).min(64);
    let high = to.saturating_sub(start).min(64);
    let ones = |n: u64| if n >= 64 { u64::MAX } else { (1 << n) - 1 };
    ones(high) & !ones(low)
}

impl Session {
    /// How many granules have rows and bits; the rest of the arena is free and cold.
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

    /// Sets or clears a run of bits; gives how many changed.
    fn set(
        &self,
        word: impl Fn(u64) -> Result<u64>,
        store: impl Fn(u64, u64) -> Result<()>,
        range: (u64, u64),
        on: bool,
    ) -> Result<u64> {
        let mut changed = 0;
        let (from, to) = range;
        for index in from / 64..to.div_ceil(64) {
            let bits = mask(index, from, to);
            let old = word(index)?;
            let new = if on { old | bits } else { old & !bits };
            changed += u64::from((old ^ new).count_ones());
            store(index, new)?;
        }
        Ok(changed)
    }

    /// Marks granules `[from, to)` used or free; gives how many changed.
    pub(crate) fn set_used(&self, from: u64, to: u64, on: bool) -> Result<u64> {
        self.set(
            |i| Ok(self.used_word(i)?.load(Ordering::Relaxed)),
            |i, v| {
                self.used_word(i)?.store(v, Ordering::Relaxed);
                Ok(())
            },
            (from, to),
            on,
        )
    }

    /// Marks granules `[from, to)` warm or cold; gives how many changed.
    pub(crate) fn set_warm(&self, from: u64, to: u64, on: bool) -> Result<u64> {
        self.set(
            |i| Ok(self.warm_word(i)?.load(Ordering::Relaxed)),
            |i, v| {
                self.warm_word(i)?.store(v, Ordering::Release);
                Ok(())
            },
            (from, to),
            on,
        )
    }

    /// How many of the granules `[from, to)` are warm.
    pub(crate) fn count_warm(&self, from: u64, to: u64) -> Result<u64> {
        let to = to.min(self.high());
        let mut count = 0;
        for index in from / 64..to.div_ceil(64) {
            let word = self.warm_word(index)?.load(Ordering::Acquire) & mask(index, from, to);
            count += u64::from(word.count_ones());
        }
        Ok(count)
    }

    /// How many of the granules `[from, to)` are used.
    pub(crate) fn count_used(&self, from: u64, to: u64) -> Result<u64> {
        let to = to.min(self.high());
        let mut count = 0;
        for index in from / 64..to.div_ceil(64) {
            let word = self.used_word(index)?.load(Ordering::Relaxed) & mask(index, from, to);
            count += u64::from(word.count_ones());
        }
        Ok(count)
    }

    /// How many granules are used or warm: what counts against the capacity.
    pub(crate) fn count_committed(&self) -> Result<u64> {
        let high = self.high();
        let mut count = 0;
        for index in 0..high.div_ceil(64) {
            let used = self.used_word(index)?.load(Ordering::Relaxed);
            let warm = self.warm_word(index)?.load(Ordering::Relaxed);
            count += u64::from(((used | warm) & mask(index, 0, high)).count_ones());
        }
        Ok(count)
    }

    /// The lowest run of `n` free granules; of warm ones, if so asked.
    pub(crate) fn find_run(&self, n: u64, warm: bool) -> Result<Option<u64>> {
        let high = self.high();
        let (mut start, mut len) = (0, 0);
        for index in 0..high.div_ceil(64) {
            let mut free = !self.used_word(index)?.load(Ordering::Relaxed);
            if warm {
                free &= self.warm_word(index)?.load(Ordering::Relaxed);
            }
            free &= mask(index, 0, high);
            if free == u64::MAX {
                len += 64;
                if len >= n {
                    return Ok(Some(start));
                }
                continue;
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
        self.runs_of(from, to, |s, i| {
            let word = s.warm_word(i)?.load(Ordering::Acquire);
            Ok(if warm { word } else { !word })
        })
    }

    /// The maximal runs of free warm granules.
    pub(crate) fn idle_runs(&self) -> Result<Vec<(u64, u64)>> {
        self.runs_of(0, self.high(), |s, i| {
            let warm = s.warm_word(i)?.load(Ordering::Relaxed);
            Ok(warm & !s.used_word(i)?.load(Ordering::Relaxed))
        })
    }

    fn runs_of(
        &self,
        from: u64,
        to: u64,
        word: impl Fn(&Self, u64) -> Result<u64>,
    ) -> Result<Vec<(u64, u64)>> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for index in from / 64..to.div_ceil(64) {
            let mut bits = word(self, index)? & mask(index, from, to);
            while bits != 0 {
                let low = u64::from(bits.trailing_zeros());
                let ones = u64::from((bits >> low).trailing_ones());
                let (start, end) = (index * 64 + low, index * 64 + low + ones);
                match runs.last_mut() {
                    Some(last) if last.1 == start => last.1 = end,
                    _ => runs.push((start, end)),
                }
                bits &= !mask(0, low, low + ones);
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn masks_cut_words_at_both_ends() {
        assert_eq!(mask(0, 0, 64), u64::MAX);
        assert_eq!(mask(0, 1, 3), 0b110);
        assert_eq!(mask(1, 0, 65), 1);
        assert_eq!(mask(1, 70, 200), !0 << 6);
        assert_eq!(mask(2, 0, 128), 0);
    }
}
