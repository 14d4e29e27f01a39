//! Memory that is handed out to be filled: a window, and what keeps the bytes in it meaningful.

use std::sync::{Arc, OnceLock};

use insitu_region::{Pin, Window};

use crate::error::Result;

/// A writable window, shared with whoever was given its bytes. Read-only once it is sealed; what it
/// shows is then the published table's memory, and is kept for as long as anyone looks at it.
#[derive(Debug)]
pub(crate) struct Sheet {
    window: Window,
    /// The table that the bytes belong to, once there is one.
    pin: OnceLock<Pin>,
}

impl Sheet {
    /// Shows a window.
    pub fn new(window: Window) -> Arc<Sheet> {
        Arc::new(Sheet { window, pin: OnceLock::new() })
    }

    /// Private memory, zeroed.
    ///
    /// # Errors
    /// `Io` if the system has no address space left.
    pub fn private(bytes: u64) -> Result<Arc<Sheet>> {
        Ok(Sheet::new(Window::zeroed(bytes)?))
    }

    /// Its bytes.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.window.as_mut_ptr()
    }

    /// Nobody writes from now on.
    ///
    /// # Errors
    /// `Io` if the system refuses.
    pub fn seal(&self) -> Result<()> {
        Ok(self.window.seal()?)
    }

    /// The bytes belong to this table, and stay while the sheet is looked at.
    pub fn keep(&self, pin: &Pin) {
        // A sheet is sealed once.
        let _ = self.pin.set(pin.clone());
    }

    /// The bytes are given back: whoever looks sees zeros. If the system refuses that, nobody
    /// writes at least; if it refuses even that, nothing else can be done.
    pub fn revoke(&self) {
        if self.window.revoke().is_err() {
            let _ = self.window.seal();
        }
    }
}

/// Some bytes of a sheet, as a face of the engine hands them out: writable until the builder or
/// the writer that gave them is done, then read-only. They stay mapped for as long as this lives.
#[derive(Clone, Debug)]
pub struct Canvas {
    sheet: Arc<Sheet>,
    start: usize,
    len: usize,
}

impl Canvas {
    pub(crate) fn new(sheet: Arc<Sheet>, start: usize, len: usize) -> Canvas {
        Canvas { sheet, start, len }
    }

    /// Where they begin.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.sheet.as_mut_ptr().wrapping_add(self.start)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
