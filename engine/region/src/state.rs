//! The state word of a table slot: what it is, and whose, in one 64-bit number.
//!
//! The low byte is the state and its flags, the upper 56 bits the sequence of the occupant. One
//! load thus says whether a slot is still what a handle knew; a recycled slot never repeats one.

/// What a table slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing; may be taken.
    Free,
    /// Being filled, within one critical section.
    Building,
    /// A table that can be looked up.
    Published,
    /// A table under an exclusive lease, not written yet.
    Leased,
    /// A table that is being written in place.
    Writing,
    /// A table whose writer died while writing.
    Poisoned,
    /// Replaced or deleted; kept while handles hold it.
    Retired,
    /// Retired, and about to be freed; nobody can pin it any more.
    Reclaiming,
}

const MASK: u64 = 0x0f;
const BITS: u32 = 8;

/// The state in a word; `None` for a number that no writer stores.
pub(crate) fn state(word: u64) -> Option<State> {
    Some(match word & MASK {
        0 => State::Free,
        1 => State::Building,
        2 => State::Published,
        3 => State::Leased,
        4 => State::Writing,
        5 => State::Poisoned,
        6 => State::Retired,
        7 => State::Reclaiming,
        _ => return None,
    })
}

/// Flag of a retired table: an update swapped another in its place, to be followed.
pub(crate) const SUPERSEDED: u64 = 1 << 4;
/// Flag of a retired table that never had a name: a result on its way to another process.
pub(crate) const TICKET: u64 = 1 << 5;
/// Flag of a retired table that never had a name: what the last flush made durable.
pub(crate) const CHECKPOINT: u64 = 1 << 6;

/// Flag of a retired table whose content is not to be believed: it was being written in place when
/// it lost its name, or its writer had died over it before.
pub(crate) const TORN: u64 = 1 << 7;

/// The largest sequence a word has room for.
pub(crate) const LAST_SEQUENCE: u64 = u64::MAX >> BITS;

/// The sequence in a word.
pub(crate) fn sequence(word: u64) -> u64 {
    word >> BITS
}

/// A word without flags.
pub(crate) fn word(state: State, sequence: u64) -> u64 {
    let state = match state {
        State::Free => 0,
        State::Building => 1,
        State::Published => 2,
        State::Leased => 3,
        State::Writing => 4,
        State::Poisoned => 5,
        State::Retired => 6,
        State::Reclaiming => 7,
    };
    sequence << BITS | state
}

/// What becomes of a table's word when it loses its name. What is being written in place, or was
/// when its writer died, keeps that mark: handles must not take it for whole.
pub(crate) fn retired(seen: u64, flags: u64) -> u64 {
    let torn = match state(seen) {
        Some(State::Writing | State::Poisoned) => TORN,
        _ => seen & TORN,
    };
    word(State::Retired, sequence(seen)) | torn | flags
}

/// What a retired slot's word is while it is being freed; its flags stay.
pub(crate) fn reclaiming(seen: u64) -> u64 {
    seen & !MASK | word(State::Reclaiming, 0)
}

/// What a slot's word was before it was to be freed.
pub(crate) fn not_reclaimed(seen: u64) -> u64 {
    seen & !MASK | word(State::Retired, 0)
}

/// What becomes of a table's word when its updater ends without having finished: a table that was
/// not written yet is as it was, another is marked. `None`: no exclusive lease, no change.
pub(crate) fn orphaned(seen: u64) -> Option<u64> {
    let after = match state(seen) {
        Some(State::Leased) => State::Published,
        Some(State::Writing) => State::Poisoned,
        _ => return None,
    };
    Some(word(after, sequence(seen)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for (i, s) in [State::Free, State::Building, State::Published, State::Leased]
            .into_iter()
            .chain([State::Writing, State::Poisoned, State::Retired, State::Reclaiming])
            .enumerate()
        {
            let w = word(s, 1 << 40 | i as u64);
            assert_eq!((state(w), sequence(w)), (Some(s), 1 << 40 | i as u64));
        }
        assert_eq!(state(0x0f), None);
    }

    #[test]
    fn a_table_that_was_being_written_is_torn_when_it_is_retired() {
        for (before, flags) in [
            (State::Published, 0),
            (State::Leased, 0),
            (State::Writing, TORN),
            (State::Poisoned, TORN),
        ] {
            let after = retired(word(before, 7), SUPERSEDED);
            assert_eq!(after, word(State::Retired, 7) | SUPERSEDED | flags, "{before:?}");
            assert_eq!(retired(after, 0) & TORN, flags);
            assert_eq!(state(reclaiming(after)), Some(State::Reclaiming));
            assert_eq!(not_reclaimed(reclaiming(after)), after);
        }
    }
}
