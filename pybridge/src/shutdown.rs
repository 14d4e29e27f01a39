//! The interpreter's end, for threads that it does not wait for.
//!
//! Before Python 3.14 a thread that wants the GIL while the interpreter ends is ended on the spot,
//! by `pthread_exit`, which unwinds its stack. Neither our frames can be unwound so, nor those of
//! C++ destructors that take the GIL, as pyarrow's do when a buffer is given back: the process
//! aborts. From 3.14 on such a thread sleeps for ever instead, and the process ends around it.
//!
//! This makes threads within calls of ours sleep, too, in every version: the C library lets a
//! thread's clean-up handlers run before it unwinds what called them, and ours sleeps if it is the
//! interpreter that ends. Which frames a handler belongs to is told by the address of its record in
//! the stack. One that is not in the stack at all has its turn first, before any frame is left.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::prelude::*;

/// What the C library notes of a handler: four words in glibc, three in musl.
type Record = UnsafeCell<[usize; 8]>;
type Handler = extern "C" fn(*mut c_void);
type Push = unsafe extern "C" fn(*mut Record, Handler, *mut c_void);
type Pop = unsafe extern "C" fn(*mut Record, c_int);
type Ask = unsafe extern "C" fn() -> c_int;

/// Functions of the C library and of Python, which not every version has, by address.
static PUSH: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static POP: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static ASK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    static HERE: Calls = const { Calls { depth: Cell::new(0), record: Cell::new(None) } };
}

/// The calls of a thread that are under way.
struct Calls {
    /// How many are within each other.
    depth: Cell<usize>,
    /// Made once; lies on the heap, as a thread's variables may lie in the memory of its stack.
    record: Cell<Option<Box<Record>>>,
}

/// A call into Python, or into what may take the GIL or give back what Python owns, until it is
/// dropped. Calls that only let go of the GIL need none.
pub struct Inside(PhantomData<*const ()>);

/// Begins such a call; with the GIL or without.
pub fn enter() -> Inside {
    let _ = HERE.try_with(|here| {
        let depth = here.depth.get();
        here.depth.set(depth + 1);
        if depth == 0 {
            push(here);
        }
    });
    Inside(PhantomData)
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = HERE.try_with(|here| {
            let depth = here.depth.get().saturating_sub(1);
            here.depth.set(depth);
            if depth == 0 {
                pop(here);
            }
        });
    }
}

fn push(here: &Calls) {
    let push = PUSH.load(Ordering::Relaxed);
    if push.is_null() {
        return;
    }
    let record = here.record.take().unwrap_or_else(|| Box::new(UnsafeCell::new([0; 8])));
    // SAFETY: `register` stored the address of a function of this type. The record is large enough
    // for either C library, and stays where it is until `pop`: in a box that is dropped with the
    // thread's variables, which outlive its calls.
    unsafe {
        let push = std::mem::transmute::<*mut c_void, Push>(push);
        push(std::ptr::from_ref(&*record).cast_mut(), sleep_if_ending, std::ptr::null_mut());
    }
    here.record.set(Some(record));
}

fn pop(here: &Calls) {
    let pop = POP.load(Ordering::Relaxed);
    let Some(record) = here.record.take() else { return };
    if !pop.is_null() {
        // SAFETY: the address is of a function of this type, as above; the record was pushed by
        // this thread, and what was pushed after it is popped, since calls end in reverse order.
        unsafe {
            let pop = std::mem::transmute::<*mut c_void, Pop>(pop);
            pop(std::ptr::from_ref(&*record).cast_mut(), 0);
        }
    }
    here.record.set(Some(record));
}

/// Runs in a thread that is being ended, before any of its frames is left.
extern "C" fn sleep_if_ending(_: *mut c_void) {
    let ask = ASK.load(Ordering::Relaxed);
    // SAFETY: `register` stored the address of a function of this type before it let records be
    // pushed. It may be called without the GIL.
    while unsafe { std::mem::transmute::<*mut c_void, Ask>(ask)() } != 0 {
        std::thread::park();
    }
}

/// Finds what the above needs.
pub fn register(py: Python<'_>) {
    let find = |name: &CStr| {
        // SAFETY: the name ends with a zero; the result is null or the symbol's address.
        unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
    };
    let ask = [c"Py_IsFinalizing", c"_Py_IsFinalizing"].map(find);
    let ask = ask.into_iter().find(|ask| !ask.is_null()).unwrap_or_default();
    ASK.store(ask, Ordering::Relaxed);
    let (push, pop) = (find(c"_pthread_cleanup_push"), find(c"_pthread_cleanup_pop"));
    if py.version_info() < (3, 14) && !ask.is_null() && !pop.is_null() {
        POP.store(pop, Ordering::Relaxed);
        PUSH.store(push, Ordering::Relaxed);
    }
}
