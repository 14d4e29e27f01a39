//! String offsets, checked and rebased to begin at zero.

/// Offsets that are not those of strings in the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetError {
    /// The first offset that is negative, smaller than the one before it, or past the data.
    pub index: usize,
    /// What it is.
    pub offset: i64,
}

/// An offset type: `i32` (Utf8) or `i64` (LargeUtf8).
pub trait Offset: sealed::Sealed + Copy + Ord + Into<i64> {
    #[doc(hidden)]
    fn minus(self, other: Self) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for i32 {}
    impl Sealed for i64 {}
}

impl Offset for i32 {
    #[inline(always)]
    fn minus(self, other: i32) -> i32 {
        self.wrapping_sub(other)
    }
}

impl Offset for i64 {
    #[inline(always)]
    fn minus(self, other: i64) -> i64 {
        self.wrapping_sub(other)
    }
}

/// Copies `rows + 1` offsets, less the first of them, and checks the copy: none negative, none
/// smaller than the one before, none past `data_len`. Each source offset is read once, so what was
/// checked is what was written. Returns the first and the last source offset: the bytes of the
/// data that the rows use.
///
/// # Errors
/// The first offset at fault; the destination then means nothing.
///
/// # Safety
/// `src` is readable, `dst` writable for `rows + 1` offsets (of any alignment); they do not overlap.
pub unsafe fn rebase_offsets<O: Offset>(
    dst: *mut u8,
    src: *const u8,
    rows: usize,
    data_len: usize,
) -> Result<(usize, usize), OffsetError> {
    let (dst, src) = (dst.cast::<O>(), src.cast::<O>());
    // SAFETY: there is at least one offset.
    let first = unsafe { src.read_unaligned() };
    let error = |index: usize, o: O| OffsetError { index, offset: o.into() };
    let within = |o: O| usize::try_from(o.into()).is_ok_and(|o| o <= data_len);
    if !within(first) {
        return Err(error(0, first));
    }
    // SAFETY: as above.
    unsafe { dst.write_unaligned(first.minus(first)) };
    let mut last = first;
    let mut done = 1;
    while done <= rows {
        let n = (rows + 1 - done).min(PIECE);
        let mut piece = [first; PIECE];
        // SAFETY: offsets done to done + n are within the source; the piece has PIECE of them.
        unsafe {
            let bytes = n * size_of::<O>();
            piece.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(src.add(done).cast(), bytes);
        }
        // One flat pass without early exit; the place of a fault is looked for afterwards.
        let mut bad = piece[0] < last;
        for i in 1..n {
            bad |= piece[i] < piece[i - 1];
        }
        if bad || !within(piece[n - 1]) {
            let mut before = last;
            for (i, o) in piece[..n].iter().enumerate() {
                if *o < before || !within(*o) {
                    return Err(error(done + i, *o));
                }
                before = *o;
            }
        }
        for (i, o) in piece[..n].iter().enumerate() {
            // SAFETY: done + i <= rows.
            unsafe { dst.add(done + i).write_unaligned(o.minus(first)) };
        }
        last = piece[n - 1];
        done += n;
    }
    // Both are within data_len, so the casts lose nothing.
    Ok((first.into() as usize, last.into() as usize))
}

/// Offsets copied at a time.
const PIECE: usize = 512;
