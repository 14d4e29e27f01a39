//! The steps of the protocols between processes that the order of loads and stores decides.
//!
//! Each is a few accesses to [`Word`]s and no more, so that the same code runs on regions and in
//! the models of `models/`, where loom tries every interleaving, with a death after each step.

use std::sync::atomic::Ordering;

use crate::state::{self, State};
use crate::word::Word;

// --- Pins and leases against retiring and excluding -----------------------------------------

/// Sets a holder's bit (unless it is set: `again`), then looks whether the slot's state word still
/// is `seen`. If not, the hold does not count: a bit that was set for it is to be cleared.
#[inline]
pub(crate) fn hold<W: Word>(line: &W, bit: u64, again: bool, state: &W, seen: u64) -> bool {
    if !again {
        line.fetch_or(bit, Ordering::AcqRel);
    }
    W::fence(Ordering::SeqCst);
    state.load(Ordering::Acquire) == seen
}

/// Clears a holder's bit. Afterwards [`is_left_over`] is to be asked.
#[inline]
pub(crate) fn let_go<W: Word>(line: &W, bit: u64) {
    line.fetch_and(!bit, Ordering::AcqRel);
}

/// Whether the slot whose bit we have just cleared is retired, so that we may have been the last
/// to hold it, and it is upon us to reclaim it: who was about to may have seen our bit.
#[inline]
pub(crate) fn is_left_over<W: Word>(state: &W) -> bool {
    W::fence(Ordering::SeqCst);
    let state = state::state(state.load(Ordering::Acquire));
    matches!(state, Some(State::Retired | State::Reclaiming))
}

/// Whether no bit is set in `count` words of lines: sound after the state was changed and a fence.
#[inline]
pub(crate) fn is_unheld<'a, W: Word + 'a, E>(
    count: u64,
    word: impl Fn(u64) -> Result<&'a W, E>,
) -> Result<bool, E> {
    for i in 0..count {
        if word(i)?.load(Ordering::Acquire) != 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a slot retired, with `flags`, under the writer lock. That store decides that the table is
/// gone, whatever becomes of the one who made it.
#[inline]
pub(crate) fn retire<W: Word>(state: &W, flags: u64) {
    let seen = state.load(Ordering::Acquire);
    state.store(state::retired(seen, flags), Ordering::Release);
}

/// The state word of a retired slot that nobody holds, if it is one: then its memory may be
/// recycled, unless somebody comes to it all the same ([`shut_out`]). Under the writer lock, `count`
/// words of pins and leases.
#[inline]
pub(crate) fn reclaimable<'a, W: Word + 'a, E>(
    state: &W,
    count: u64,
    word: impl Fn(u64) -> Result<&'a W, E>,
) -> Result<Option<u64>, E> {
    let seen = state.load(Ordering::Acquire);
    W::fence(Ordering::SeqCst);
    let free = state::state(seen) == Some(State::Retired) && is_unheld(count, word)?;
    Ok(free.then_some(seen))
}

/// Shuts out who comes to a retired slot by a link or with a pass, and would pin it although it is
/// retired. Whether nobody has come before: then its memory may be recycled; else the slot is as it
/// was. Under the writer lock, after [`reclaimable`] gave `seen`.
#[inline]
pub(crate) fn shut_out<'a, W: Word + 'a, E>(
    state: &W,
    seen: u64,
    count: u64,
    word: impl Fn(u64) -> Result<&'a W, E>,
) -> Result<bool, E> {
    shut(state, state::reclaiming(seen));
    let alone = is_unheld(count, word)?;
    if !alone {
        state.store(seen, Ordering::Release);
    }
    Ok(alone)
}

/// Shuts new leases out, by making the state another, under the writer lock. Afterwards the words of
/// leases say truly whether there are older ones ([`is_unheld`]).
#[inline]
pub(crate) fn shut<W: Word>(state: &W, shut: u64) {
    state.store(shut, Ordering::Release);
    W::fence(Ordering::SeqCst);
}

/// Makes a table visible: all that was stored before can be read by who sees this.
#[inline]
pub(crate) fn publish<W: Word>(state: &W, word: u64) {
    state.store(word, Ordering::Release);
}

/// Commits a table whose slot is filled, under the writer lock. The order is the protocol: the
/// slot's state (this decides what survives a crash), then the index (this is what readers see),
/// and only then what had the name before. `hold` pins the new slot for `who` commits it.
#[inline]
pub(crate) fn commit<W: Word, T, E>(
    who: &mut T,
    state: &W,
    published: u64,
    hold: impl FnOnce(&mut T) -> Result<(), E>,
    point: impl FnOnce(&mut T) -> Result<(), E>,
    retire: impl FnOnce(&mut T) -> Result<(), E>,
) -> Result<(), E> {
    publish(state, published);
    hold(who)?;
    point(who)?;
    retire(who)
}

// --- Passes ----------------------------------------------------------------------------------

/// Uses up a pass, which is a bit, for a slot that is pinned; whether it was outstanding. Of several
/// who come with the same one, one wins.
#[inline]
pub(crate) fn use_pass<W: Word>(passes: &W, bit: u64) -> bool {
    passes.fetch_and(!bit, Ordering::AcqRel) & bit != 0
}

/// Whether passes are outstanding. To be asked between [`reclaimable`] and [`shut_out`]: who has
/// used up the last one had pinned the slot before, and is then seen.
#[inline]
pub(crate) fn has_passes<W: Word>(passes: &W) -> bool {
    passes.load(Ordering::Acquire) != 0
}

// --- The writer lock -------------------------------------------------------------------------

/// Takes the lock's word if nobody has it.
#[inline]
pub(crate) fn try_take<W: Word>(lock: &W, mine: u64) -> bool {
    lock.exchange(0, mine, Ordering::Acquire)
}

/// Notes that what is derived is being changed; whether a former holder died before it was done.
#[inline]
pub(crate) fn enter<W: Word>(dirty: &W) -> bool {
    dirty.swap(1, Ordering::AcqRel) != 0
}

/// Notes that what is derived can be believed.
#[inline]
pub(crate) fn leave<W: Word>(dirty: &W) {
    dirty.store(0, Ordering::Release);
}

/// Gives the lock's word back; what it was, bits of waiters included.
#[inline]
pub(crate) fn release<W: Word>(lock: &W) -> u64 {
    lock.swap(0, Ordering::Release)
}

/// Takes the lock's word from its holder if that is dead: if we get the lock byte of its session
/// from the kernel, *and* then find the word unchanged, since its holder may have left orderly in
/// between, and another come. When it was taken, the lock byte stays ours.
#[inline]
pub(crate) fn steal<W: Word, E>(
    lock: &W,
    seen: u64,
    mine: u64,
    lock_byte: impl FnOnce() -> Result<bool, E>,
    unlock_byte: impl FnOnce() -> Result<(), E>,
) -> Result<bool, E> {
    if !lock_byte()? {
        return Ok(false);
    }
    if lock.exchange(seen, mine, Ordering::Acquire) {
        return Ok(true);
    }
    unlock_byte()?;
    Ok(false)
}

// --- Taking over from dead sessions ----------------------------------------------------------

/// Sweeps a session if its process is gone: if there is one, if we get its lock byte from the
/// kernel, *and* then there still is one, since it may have left orderly in between.
#[inline]
pub(crate) fn take_over<W: Word, E>(
    incarnation: &W,
    lock_byte: impl FnOnce() -> bool,
    unlock_byte: impl FnOnce(),
    sweep: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    if incarnation.load(Ordering::Acquire) == 0 || !lock_byte() {
        return Ok(());
    }
    let swept = if incarnation.load(Ordering::Acquire) != 0 { sweep() } else { Ok(()) };
    unlock_byte();
    swept
}

/// Clears a dead (or leaving) session's bit in one word of a line; whether it was set.
#[inline]
pub(crate) fn clear_bit<W: Word>(line: &W, bit: u64) -> bool {
    let set = line.load(Ordering::Relaxed) & bit != 0;
    if set {
        line.fetch_and(!bit, Ordering::AcqRel);
    }
    set
}
