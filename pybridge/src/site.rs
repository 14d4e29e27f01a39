//! Which line of the user's program calls, for `leases()` and `LeaseHeld`.
//!
//! It is found before a call lets go of the GIL, since whoever takes the lease later must not wait
//! for the GIL, and kept in a variable of the thread until the call is over. A call site is
//! described once and then known by its code object and instruction, so that this costs a call
//! some tens of nanoseconds.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use pyo3::marker::Ungil;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::{ffi, intern};

/// Call sites that a thread knows: so many sets, each of so many.
const SETS: usize = 16;
const WAYS: usize = 4;
/// Callers looked at until one is the user's.
const DEPTH: usize = 64;
/// The longest description, in bytes: what it is for must fit behind it.
const LONGEST: usize = 34;

thread_local! {
    static HERE: Cell<Option<Arc<str>>> = const { Cell::new(None) };
    static SITES: RefCell<[[Option<Known>; WAYS]; SETS]> =
        const { RefCell::new([const { [const { None }; WAYS] }; SETS]) };
}

/// A call site: what a code object calls at an instruction of it.
struct Known {
    /// Kept, so that no other code object gets its address.
    code: Py<PyAny>,
    instruction: i32,
    site: Arc<str>,
}

/// Lets go of the GIL for `work`, whose holds are this call's of the user's program.
pub fn detach<T: Ungil>(py: Python<'_>, work: impl Ungil + FnOnce() -> T) -> T {
    let _here = Here::enter(py);
    py.detach(work)
}

/// Has the engine ask here.
pub fn register() {
    // A thread that ends has no variables left.
    insitu::set_call_site(|| {
        HERE.try_with(|here| {
            let site = here.take();
            here.set(site.clone());
            site
        })
        .unwrap_or(None)
    });
}

/// While it lives, this thread's holds are those of the line that was called from.
struct Here(Option<Arc<str>>);

impl Here {
    fn enter(py: Python<'_>) -> Self {
        let site = find(py);
        Self(HERE.try_with(|here| here.replace(site)).unwrap_or(None))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let _ = HERE.try_with(|here| here.set(self.0.take()));
    }
}

fn find(py: Python<'_>) -> Option<Arc<str>> {
    // SAFETY: attached; the reference is borrowed from the running frame, and null (with no
    // exception set) where no Python code runs.
    let frame = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyEval_GetFrame().cast()) }?;
    let code = code_of(&frame)?;
    let instruction = frame.getattr(intern!(py, "f_lasti")).ok()?.extract().ok()?;
    let set = set_of(code.as_ptr() as usize, instruction);
    let known = SITES.try_with(|sites| {
        let sites = sites.try_borrow().ok()?;
        let mut known = sites.get(set)?.iter().flatten();
        let is_here = |known: &&Known| {
            known.instruction == instruction && known.code.as_ptr() == code.as_ptr()
        };
        known.find(is_here).map(|known| known.site.clone())
    });
    if let Ok(Some(site)) = known {
        return Some(site);
    }
    let (site, direct) = describe(&frame)?;
    if direct {
        let known = Known { code: code.unbind(), instruction, site: site.clone() };
        let _ = SITES.try_with(|sites| {
            let mut sites = sites.try_borrow_mut().ok()?;
            let ways = sites.get_mut(set)?;
            // The one that has been known for longest goes.
            ways.rotate_right(1);
            // Dropped when nobody looks: a code object's end may run Python code.
            ways.first_mut()?.replace(known)
        });
    }
    Some(site)
}

/// The set of a call site. The calls of one loop, a few instructions apart, must not crowd one.
fn set_of(code: usize, instruction: i32) -> usize {
    let place = ((code >> 4) as u64).wrapping_add(u64::from(instruction.unsigned_abs()) >> 1);
    // The upper bits of a product with 2^64 over the golden ratio (Knuth, TAOCP 6.4).
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % SETS
}

fn code_of<'py>(frame: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let py = frame.py();
    // SAFETY: attached, and `frame` is a frame; the result is a new reference to its code.
    unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyFrame_GetCode(frame.as_ptr().cast()).cast()) }
}

/// The innermost line that is neither ours nor a library's, or else the innermost not ours; and
/// whether it is the very one that called.
fn describe(frame: &Bound<'_, PyAny>) -> Option<(Arc<str>, bool)> {
    let py = frame.py();
    let mut library = None;
    let mut at = frame.clone();
    for depth in 0..DEPTH {
        let file: String =
            code_of(&at)?.getattr(intern!(py, "co_filename")).ok()?.extract().ok()?;
        if !is_ours(py, &file) {
            // SAFETY: attached, and `at` is a frame.
            let line = unsafe { ffi::PyFrame_GetLineNumber(at.as_ptr().cast()) };
            if !is_library(&file) {
                return Some((short(&file, line).into(), depth == 0));
            }
            library.get_or_insert((file, line));
        }
        match at.getattr(intern!(py, "f_back")) {
            Ok(back) if !back.is_none() => at = back,
            _ => break,
        }
    }
    // Not remembered: the same line may be called by others at another time.
    library.map(|(file, line)| (short(&file, line).into(), false))
}

/// Whether a file belongs to this package.
fn is_ours(py: Python<'_>, file: &str) -> bool {
    static PACKAGE: PyOnceLock<Option<String>> = PyOnceLock::new();
    let package = PACKAGE.get_or_init(py, || {
        let file = py.import("insitu").ok()?.getattr("__file__").ok()?;
        let file: String = file.extract().ok()?;
        Some(file.strip_suffix("__init__.py")?.to_owned())
    });
    package.as_ref().is_some_and(|package| file.starts_with(package))
}

fn is_library(file: &str) -> bool {
    ["/site-packages/", "/dist-packages/", "/lib/python3", "<frozen "]
        .iter()
        .any(|mark| file.contains(mark))
}

/// `jobs/build.py:12`: the last two parts of the path, and of these what fits.
fn short(file: &str, line: i32) -> String {
    let line = format!(":{line}");
    let room = LONGEST.saturating_sub(line.len());
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    let mut shown = file.get(start..).unwrap_or(file);
    if shown.len() > room {
        shown = shown.rsplit('/').next().unwrap_or(shown);
    }
    if shown.len() <= room {
        return format!("{shown}{line}");
    }
    let cut = (shown.len() - room.saturating_sub('…'.len_utf8())..=shown.len())
        .find(|&at| shown.is_char_boundary(at))
        .unwrap_or(shown.len());
    format!("…{}{line}", shown.get(cut..).unwrap_or_default())
}
