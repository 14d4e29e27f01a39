//! Rows numbered by what they hold in some columns, tile by tile.

use insitu_kernels::group::{GroupError, KeyInput, KeyKind, Keys};
use insitu_kernels::prim::Prim;
use insitu_kernels::tile::TILE_MAX;

use crate::compile::graph::{Op, Repr};
use crate::compile::lower::{Typed, Value};
use crate::error::{Error, Result};
use crate::exec::reduce::Places;
use crate::exec::run::{Job, lost};
use crate::exec::tile::{Failed, Frame, Worker};

/// What rows are numbered by.
pub(crate) struct Numbering<'a> {
    frame: &'a Frame<'a>,
    keys: Vec<&'a Typed>,
    places: Vec<Places>,
    pub(crate) kinds: Vec<KeyKind>,
    /// For errors.
    what: String,
}

/// A tile's numbers.
#[repr(align(64))]
pub(crate) struct Ids(pub(crate) [u32; TILE_MAX]);

impl Default for Ids {
    fn default() -> Ids {
        Ids([0; TILE_MAX])
    }
}

impl<'a> Numbering<'a> {
    /// By these keys, whose values are at these roots.
    pub(crate) fn new(
        job: &Job<'_, '_>,
        frame: &'a Frame<'a>,
        keys: Vec<&'a Typed>,
        places: Vec<Places>,
        what: String,
    ) -> Numbering<'a> {
        let kinds = keys.iter().map(|k| kind(job, k)).collect();
        Numbering { frame, keys, places, kinds, what }
    }

    pub(crate) fn error(&self, e: GroupError) -> Error {
        match e {
            GroupError::TooManyGroups => Error::LimitExceeded(format!("{}: {e}", self.what)),
            GroupError::OutOfMemory { bytes } => Error::OutOfMemory { bytes },
            GroupError::Corrupt(c) => Error::InvalidData(format!("{}: {c}", self.what)),
            _ => Error::Unsupported(format!("{}: {e}", self.what)),
        }
    }

    /// The numbers of a tile's rows that the mask selects.
    pub(crate) fn number(
        &self,
        worker: &Worker<'_>,
        keys: &mut Keys,
        row: usize,
        rows: usize,
        ids: &mut Ids,
    ) -> Result<(), Failed> {
        let source = self.frame.source;
        let mut done = 0;
        // String keys are read chunk by chunk.
        while done < rows {
            let mut n = rows - done;
            let mut views = Vec::new();
            for key in &self.keys {
                if let Value::Column(c) = key.value {
                    let column = source.columns.get(c as usize);
                    let found = column.and_then(|c| {
                        c.locate(row + done + source.offset, &mut 0).map(|(v, at)| (*v, at))
                    });
                    let Some((view, at)) = found else {
                        return Err(Failed::at(row, lost()));
                    };
                    n = n.min(view.len - at);
                    views.push((view, at));
                }
            }
            let mut masks = Vec::with_capacity(self.keys.len() + 1);
            for p in &self.places {
                masks.push(p.valid.map_or(std::ptr::null(), |r| worker.root(r)));
            }
            masks.push(worker.mask());
            // A tile of two chunks: bitmaps are moved to the piece's first bit.
            let mut moved = Vec::new();
            if done > 0 || n < rows {
                for m in &mut masks {
                    if !m.is_null() {
                        let mut bits = Box::new([0u64; TILE_MAX / 64]);
                        // SAFETY: the bitmap holds the tile's rows.
                        unsafe {
                            insitu_kernels::copy::copy_bits(self.frame.program.level)(
                                bits.as_mut_ptr().cast(),
                                *m,
                                done,
                                n,
                            );
                        }
                        *m = bits.as_ptr().cast();
                        moved.push(bits);
                    }
                }
            }
            let mask = masks.last().copied().unwrap_or(std::ptr::null());
            let mut strings = views.iter();
            let mut bools = Vec::new();
            let mut inputs = Vec::with_capacity(self.keys.len());
            for ((k, kind), p) in self.kinds.iter().enumerate().zip(&self.places) {
                let validity = masks.get(k).copied().unwrap_or(std::ptr::null());
                let value = p.value.map_or(std::ptr::null(), |r| worker.root(r));
                inputs.push(match kind {
                    KeyKind::Prim { prim, .. } => KeyInput::Prim {
                        // SAFETY: the root holds the tile's rows.
                        values: unsafe { value.add(done * prim.width()) },
                        validity,
                    },
                    KeyKind::Bool => {
                        let mut bits = Box::new([0u64; TILE_MAX / 64]);
                        // SAFETY: the root holds the tile's bits.
                        unsafe {
                            insitu_kernels::copy::copy_bits(self.frame.program.level)(
                                bits.as_mut_ptr().cast(),
                                value,
                                done,
                                n,
                            );
                        }
                        let bits_at = bits.as_ptr().cast();
                        bools.push(bits);
                        KeyInput::Bool { bits: bits_at, validity }
                    }
                    KeyKind::Str => match strings.next() {
                        Some((view, start)) => {
                            KeyInput::Str { column: view, start: *start, validity }
                        }
                        None => return Err(Failed::at(row, lost())),
                    },
                });
            }
            // SAFETY: the inputs hold `n` rows, the ids have room for the tile's.
            unsafe {
                let to = ids.0.as_mut_ptr().add(done);
                keys.assign(&inputs, mask, n, (row + done) as u64, to)
                    .map_err(|e| Failed::at(row, self.error(e)))?;
            }
            done += n;
        }
        Ok(())
    }
}

/// What the table of a key column is made for.
fn kind(job: &Job<'_, '_>, t: &Typed) -> KeyKind {
    let Value::Node(v) = t.value else { return KeyKind::Str };
    let node = job.compiled.stage.graph.node(v);
    match node.repr {
        Repr::Bits => KeyKind::Bool,
        Repr::Num(prim) => {
            let stats = match node.op {
                Op::Values(c) => job.source.columns.get(c as usize).and_then(|c| c.stats),
                _ => None,
            };
            // 64-bit unsigned statistics may have wrapped.
            let range = stats
                .filter(|_| prim.is_integer() && prim != Prim::U64)
                .and_then(|s| Some((i128::from(s.min?), i128::from(s.max?))));
            KeyKind::Prim { prim, range }
        }
    }
}
