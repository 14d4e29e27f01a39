//! Checks that the values of a column keep Arrow's rules where an address is computed from them:
//! offsets, UTF-8, dictionary keys, views. Fixed-width values have no rules.
//!
//! It looks at what was written, not at what it was copied from, and reads shared memory through
//! raw pointers: no reference to it is made. Large columns are looked at by all threads; of several
//! faults the first row's is told.

use std::ops::Range;

use arrow_schema::DataType;
use insitu_query::parallel;
use insitu_region::ForkMutex;

use crate::error::Result;
use crate::ingest::{View, parse_view};
use crate::layout::{Column, Kind, Place, shape};

/// What is wrong, and in which row of the column if that is known.
#[derive(Debug)]
pub(crate) struct Fault {
    /// A row of the chunk.
    pub row: Option<u64>,
    /// What is wrong there.
    pub what: String,
}

impl Fault {
    fn at(row: usize, what: impl Into<String>) -> Fault {
        Fault { row: Some(row as u64), what: what.into() }
    }

    fn somewhere(what: impl Into<String>) -> Fault {
        Fault { row: None, what: what.into() }
    }
}

/// Rows, or bytes, that a thread looks at at a time.
const TASK: usize = 1 << 18;
/// Estimated nanoseconds that a row takes, or eight bytes.
const NS: f64 = 0.5;

/// Shared memory that several threads look at.
#[derive(Clone, Copy)]
struct Shared(*const u8);

// SAFETY: it is an address, of memory that is only read here.
unsafe impl Sync for Shared {}

impl Shared {
    fn get(&self) -> *const u8 {
        self.0
    }
}

/// Looks at `0..len` in ranges, on several threads if they are many. The first range's fault
/// counts. It cannot be interrupted: memory is read at full speed.
fn in_ranges<F: Send>(
    len: usize,
    ns: f64,
    look: impl Fn(Range<usize>) -> Result<(), F> + Sync,
    lost: impl FnOnce() -> F,
) -> Result<(), F> {
    let found: ForkMutex<Option<(usize, F)>> = ForkMutex::default();
    let ended = parallel(len.div_ceil(TASK), ns, &|| false, &|task| {
        // Later faults are nobody's business.
        if found.lock().as_ref().is_some_and(|(first, _)| *first < task) {
            return;
        }
        if let Err(fault) = look(task * TASK..len.min((task + 1) * TASK)) {
            let mut found = found.lock();
            if found.as_ref().is_none_or(|(first, _)| task < *first) {
                *found = Some((task, fault));
            }
        }
    });
    match (found.into_inner(), ended) {
        (Some((_, fault)), _) => Err(fault),
        (None, insitu_query::Ended::Done) => Ok(()),
        (None, _) => Err(lost()),
    }
}

fn unfinished() -> Fault {
    Fault::somewhere("a thread that checked it panicked")
}

/// Where the bytes of a place are.
pub(crate) type Address<'a> = &'a dyn Fn(Place) -> Result<*const u8>;

/// Whether values of a type have rules to be checked.
pub(crate) fn has_rules(dtype: &DataType) -> bool {
    shape(dtype).is_ok_and(|shape| {
        shape.variadic
            || shape.dictionary.is_some()
            || shape.buffers.iter().any(|b| matches!(b, Kind::Offsets32 | Kind::Offsets64))
            || shape.children.iter().any(|child| has_rules(child.data_type()))
    })
}

/// Checks a column and its children.
///
/// # Safety
/// `address` gives addresses readable for the places' lengths padded to 64 bytes, for the length
/// of the call, and the places are as long as type and length of the column need.
pub(crate) unsafe fn column(
    dtype: &DataType,
    column: &Column,
    address: Address<'_>,
) -> Result<(), Fault> {
    let shape = shape(dtype).map_err(|e| Fault::somewhere(e.to_string()))?;
    if !has_rules(dtype) {
        return Ok(());
    }
    let at = |place: Place| address(place).map_err(|e| Fault::somewhere(e.to_string()));
    let len = usize::try_from(column.len).map_err(|_| Fault::somewhere("too many rows"))?;
    // Who is told that there are no nulls looks at no bitmap.
    let validity = match column.null_count {
        Some(0) => std::ptr::null(),
        _ => at(column.validity)?,
    };
    let place = |index: usize| column.buffers.get(index).copied().unwrap_or_default();
    let utf8 = matches!(dtype, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);

    match shape.buffers.as_slice() {
        [kind @ (Kind::Offsets32 | Kind::Offsets64), rest @ ..] => {
            let bound = match rest.is_empty() {
                true => column.children.first().map_or(0, |child| child.len),
                false => place(1).len,
            };
            let offsets = at(place(0))?;
            if !(offsets.is_null() && len == 0) {
                // SAFETY: the places are long enough, as the caller promised.
                unsafe {
                    check_offsets(offsets, *kind, len, bound)?;
                    if utf8 {
                        let (data, bytes) = (at(place(1))?, place(1).len as usize);
                        check_utf8(data, bytes, offsets, *kind, len)?;
                    }
                }
            }
        }
        [Kind::Fixed(_)] if shape.variadic => {
            let mut data = Vec::new();
            for place in column.buffers.iter().skip(1) {
                data.push((at(*place)?, place.len as usize));
            }
            // SAFETY: as above.
            unsafe { check_views(at(place(0))?, &data, validity, len, utf8)? };
        }
        [Kind::Fixed(width)] if shape.dictionary.is_some() => {
            let values = column.children.first().map_or(0, |child| child.len);
            // SAFETY: as above.
            unsafe { check_keys(at(place(0))?, *width as usize, validity, len, values)? };
        }
        _ => {}
    }
    if let (Some(values), Some(child)) = (&shape.dictionary, column.children.first()) {
        // SAFETY: passed on.
        unsafe { self::column(values, child, address) }
            .map_err(|fault| Fault::somewhere(format!("its dictionary: {}", fault.what)))?;
    }
    for (field, child) in shape.children.iter().zip(&column.children) {
        // SAFETY: passed on.
        unsafe { self::column(field.data_type(), child, address) }.map_err(|fault| {
            let row = fault.row.map_or(String::new(), |r| format!(" (its row {r})"));
            Fault::somewhere(format!("nested field {:?}{row}: {}", field.name(), fault.what))
        })?;
    }
    Ok(())
}

/// # Safety
/// `offsets` is readable for `index + 1` offsets.
unsafe fn offset(offsets: *const u8, kind: Kind, index: usize) -> i64 {
    // SAFETY: passed on; buffers are aligned to 64, so offsets are aligned.
    unsafe {
        match kind {
            Kind::Offsets64 => offsets.cast::<i64>().add(index).read(),
            _ => i64::from(offsets.cast::<i32>().add(index).read()),
        }
    }
}

/// # Safety
/// `offsets` is readable for `len + 1` offsets.
unsafe fn check_offsets(
    offsets: *const u8,
    kind: Kind,
    len: usize,
    bound: u64,
) -> Result<(), Fault> {
    if offsets.is_null() {
        return Err(Fault::somewhere("the offsets are missing"));
    }
    let shared = Shared(offsets);
    let look = |rows: Range<usize>| {
        // The offset before the first of these; before all of them nothing is too small.
        let mut before = match rows.start.checked_sub(1) {
            None => 0,
            // SAFETY: passed on.
            Some(index) => unsafe { offset(shared.get(), kind, index) },
        };
        for index in rows {
            // SAFETY: passed on.
            let value = unsafe { offset(shared.get(), kind, index) };
            if value < before {
                let row = index.saturating_sub(1);
                return Err(Fault::at(row, format!("offset {value} comes after offset {before}")));
            }
            before = value;
        }
        Ok(())
    };
    in_ranges(len + 1, len as f64 * NS, look, unfinished)?;
    // SAFETY: passed on.
    let last = unsafe { offset(offsets, kind, len) };
    if last.unsigned_abs() > bound {
        let row = len.saturating_sub(1);
        return Err(Fault::at(row, format!("offset {last} lies past the data's end, {bound}")));
    }
    Ok(())
}

/// Checks that the data is UTF-8, and that values begin and end between characters.
///
/// # Safety
/// `data` is readable for `bytes`; the offsets were checked against it.
unsafe fn check_utf8(
    data: *const u8,
    bytes: usize,
    offsets: *const u8,
    kind: Kind,
    len: usize,
) -> Result<(), Fault> {
    // SAFETY: passed on.
    let outcome = unsafe { scan_all(data, bytes) };
    let row_of = |byte: usize| {
        let (mut low, mut high) = (0, len);
        while low < high {
            let middle = low + (high - low) / 2;
            // SAFETY: the middle is below `len`.
            if unsafe { offset(offsets, kind, middle + 1) } as u64 > byte as u64 {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    };
    match outcome {
        Err(Some(byte)) => Err(Fault::at(row_of(byte), "a string is not valid UTF-8")),
        Err(None) => Err(unfinished()),
        Ok(true) => Ok(()),
        Ok(false) => {
            let (offsets, data) = (Shared(offsets), Shared(data));
            let look = |rows: Range<usize>| {
                for index in rows {
                    // SAFETY: as above.
                    let at = unsafe { offset(offsets.get(), kind, index) } as u64 as usize;
                    // SAFETY: `at` is read only below the end of the data.
                    if at < bytes && unsafe { data.get().add(at).read() } & 0xC0 == 0x80 {
                        let row = index.saturating_sub(1);
                        return Err(Fault::at(row, "a string ends inside a character"));
                    }
                }
                Ok(())
            };
            in_ranges(len + 1, len as f64 * NS, look, unfinished)
        }
    }
}

/// As [`scan_utf8`], by all threads: each looks at characters that begin in its range. An error
/// without a place is a thread that panicked.
///
/// # Safety
/// `data` is readable for `bytes`.
unsafe fn scan_all(data: *const u8, bytes: usize) -> Result<bool, Option<usize>> {
    let shared = Shared(data);
    // The first character's beginning from a byte on. Where there are more than three bytes that
    // begin none the data is no UTF-8, which whoever comes to them from before will see.
    let beginning = |from: usize| {
        let end = bytes.min(from + 3);
        // SAFETY: below the data's end.
        (from..end).find(|at| unsafe { shared.get().add(*at).read() } & 0xC0 != 0x80).unwrap_or(end)
    };
    let ascii = std::sync::atomic::AtomicBool::new(true);
    let look = |range: Range<usize>| {
        let start = if range.start == 0 { 0 } else { beginning(range.start) };
        let end = if range.end == bytes { bytes } else { beginning(range.end) };
        // SAFETY: within the data, as start and end are.
        match unsafe { scan_utf8(shared.get().add(start), end.saturating_sub(start)) } {
            Ok(true) => Ok(()),
            Ok(false) => {
                ascii.store(false, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            }
            Err(at) => Err(Some(start + at)),
        }
    };
    in_ranges(bytes, (bytes / 8) as f64 * NS, look, || None)?;
    Ok(ascii.into_inner())
}

/// Whether the bytes are ASCII throughout, if they are UTF-8; else where they are not.
///
/// # Safety
/// `data` is readable for `bytes`.
unsafe fn scan_utf8(data: *const u8, bytes: usize) -> Result<bool, usize> {
    let mut ascii = true;
    // A piece of private memory at a time, so that what is checked does not change meanwhile.
    let mut piece = [0u8; 4096];
    let mut done = 0;
    while done < bytes {
        let count = (bytes - done).min(piece.len());
        // SAFETY: within data and piece.
        unsafe { piece.as_mut_ptr().copy_from_nonoverlapping(data.add(done), count) };
        let piece = piece.get(..count).unwrap_or_default();
        if piece.is_ascii() {
            done += count;
            continue;
        }
        ascii = false;
        match std::str::from_utf8(piece) {
            Ok(_) => done += count,
            // The last character goes on in the next piece.
            Err(e) if e.error_len().is_none() && done + count < bytes => {
                done += e.valid_up_to();
            }
            Err(e) => return Err(done + e.valid_up_to()),
        }
    }
    Ok(ascii)
}

/// # Safety
/// `validity` is null or readable for `row + 1` bits.
unsafe fn is_valid(validity: *const u8, row: usize) -> bool {
    // SAFETY: passed on.
    validity.is_null() || unsafe { validity.add(row / 8).read() } >> (row % 8) & 1 == 1
}

/// # Safety
/// `keys` is readable for `len` keys of that width, `validity` is null or has `len` bits.
unsafe fn check_keys(
    keys: *const u8,
    width: usize,
    validity: *const u8,
    len: usize,
    values: u64,
) -> Result<(), Fault> {
    let (keys, validity) = (Shared(keys), Shared(validity));
    let look = |rows: Range<usize>| {
        for row in rows {
            let mut wide = [0u8; 8];
            let to = wide.as_mut_ptr();
            // SAFETY: passed on; keys have at most eight bytes.
            unsafe { to.copy_from_nonoverlapping(keys.get().add(row * width), width.min(8)) };
            let key = u64::from_le_bytes(wide);
            // A negative key is a very large one here.
            // SAFETY: passed on.
            if key >= values && unsafe { is_valid(validity.get(), row) } {
                let what = format!("key {key} is not in the dictionary ({values})");
                return Err(Fault::at(row, what));
            }
        }
        Ok(())
    };
    in_ranges(len, len as f64 * NS, look, unfinished)
}

/// # Safety
/// `views` is readable for `len` views, `validity` is null or has `len` bits, and the data buffers
/// are readable for their lengths.
unsafe fn check_views(
    views: *const u8,
    data: &[(*const u8, usize)],
    validity: *const u8,
    len: usize,
    utf8: bool,
) -> Result<(), Fault> {
    for row in 0..len {
        // SAFETY: passed on.
        let raw = unsafe { views.cast::<u128>().add(row).read() };
        // SAFETY: passed on.
        if !unsafe { is_valid(validity, row) } {
            continue;
        }
        match parse_view(u128::from_le(raw)) {
            View::Inline(view) => {
                let bytes = view.to_le_bytes();
                let used = bytes.first().map_or(0, |n| usize::from(*n));
                let value = bytes.get(4..4 + used).unwrap_or_default();
                if view != u128::from_le(raw) {
                    return Err(Fault::at(row, "a short view has bytes after its value"));
                }
                if utf8 && std::str::from_utf8(value).is_err() {
                    return Err(Fault::at(row, "a string is not valid UTF-8"));
                }
            }
            View::Long { len, prefix, buffer, offset } => {
                let Some((start, size)) = data.get(buffer).copied() else {
                    return Err(Fault::at(row, format!("a view names buffer {buffer}")));
                };
                if offset.checked_add(len).is_none_or(|end| end > size) {
                    return Err(Fault::at(row, "a view lies outside its buffer"));
                }
                // SAFETY: the range was checked; a long value has more than four bytes.
                let first = unsafe { start.add(offset).cast::<u32>().read_unaligned() };
                if u32::from_le(first) != prefix {
                    return Err(Fault::at(row, "a view's prefix differs from its value"));
                }
                // SAFETY: the range was checked.
                if utf8 && unsafe { scan_utf8(start.add(offset), len) }.is_err() {
                    return Err(Fault::at(row, "a string is not valid UTF-8"));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_checked_alike_wherever_threads_meet() {
        let base = vec![b'a'; 2 * TASK + 9];
        let parts: [&[u8]; 8] = [
            "é".as_bytes(),
            "€".as_bytes(),
            "🦀".as_bytes(),
            b"\x80",
            b"\x80\x80\x80\x80\x80\x80",
            b"\xe2\x82",
            b"\xf0\x9f\xa6",
            b"\xc3",
        ];
        for part in parts {
            for border in [TASK, 2 * TASK, base.len()] {
                for at in border - 7..=(border + 2).min(base.len() - part.len()) {
                    let mut text = base.clone();
                    text[at..at + part.len()].copy_from_slice(part);
                    let expected = match std::str::from_utf8(&text) {
                        Ok(text) => Ok(text.is_ascii()),
                        Err(e) => Err(Some(e.valid_up_to())),
                    };
                    // SAFETY: all of the vector.
                    let found = unsafe { scan_all(text.as_ptr(), text.len()) };
                    assert_eq!(found, expected, "{part:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn of_several_faults_the_first_is_told() {
        let look = |range: Range<usize>| match range.start / TASK {
            0 | 3 => Ok(()),
            n => Err(n),
        };
        for _ in 0..100 {
            assert_eq!(in_ranges(9 * TASK, 1e9, look, || 99), Err(1));
        }
        assert_eq!(in_ranges(TASK, 1e9, look, || 99), Ok(()));
    }
}
