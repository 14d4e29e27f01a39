//! Where in the caller's program a hold comes from, for people who ask who holds what.
//!
//! A program may say how to find that out; it is asked when this process takes its first hold of a
//! kind on a table, on the thread that takes it. The answer must be at hand: it is waited for by
//! whoever waits for that thread.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// Gives the place in the caller's program, such as `jobs/build.py:12`, if it is known.
pub type CallSite = fn() -> Option<Arc<str>>;

/// No lock, which a fork could leave locked.
static CALL_SITE: ArcSwapOption<CallSite> = ArcSwapOption::const_empty();

/// Says how to find the line of the caller's program that takes a hold. The first word counts.
pub fn set_call_site(ask: CallSite) {
    CALL_SITE.compare_and_swap(&None::<Arc<CallSite>>, Some(Arc::new(ask)));
}

/// What a hold is for, behind the place that it comes from: as much of both as there is room for,
/// in whole characters, and zeros.
pub(crate) fn described<const ROOM: usize>(what: &str) -> [u8; ROOM] {
    let mut text = [0; ROOM];
    let mut end = 0;
    if let Some(site) = CALL_SITE.load().as_deref().and_then(|ask| ask()) {
        end = append(&mut text, end, &site);
        if !what.is_empty() {
            end = append(&mut text, end, " ");
        }
    }
    append(&mut text, end, what);
    text
}

fn append(text: &mut [u8], at: usize, more: &str) -> usize {
    let room = text.len().saturating_sub(at);
    let fits = more.floor_char_boundary(room);
    if let (Some(to), Some(from)) = (text.get_mut(at..at + fits), more.as_bytes().get(..fits)) {
        to.copy_from_slice(from);
    }
    at + fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_between_characters() {
        assert_eq!(&described::<6>("abc"), b"abc\0\0\0");
        assert_eq!(&described::<4>("abcdef"), b"abcd");
        assert_eq!(&described::<4>("ab\u{20ac}"), b"ab\0\0");
        let mut text = *b"ab\0\0\0";
        assert_eq!(append(&mut text, 2, "\u{e9}\u{e9}"), 4);
        assert_eq!(append(&mut text, 5, "x"), 5);
        assert_eq!(append(&mut text, 9, "x"), 9);
    }
}
