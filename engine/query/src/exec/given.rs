//! The constants of one run, as broadcast tiles: what an earlier reduction gave, and parameters.

use std::sync::Arc;

use insitu_kernels::level::Level;

use crate::compile::graph::Repr;
use crate::compile::program::{Given, Line, Program, TILE_MIN, broadcast};
use crate::dtype::DataType;
use crate::error::{Error, Result};
use crate::exec::output::{Column, Rows};
use crate::exec::run::lost;
use crate::memory::NewColumn;
use crate::scalar::Scalar;
use crate::typing::scalar_bits;

/// Broadcast tiles, and the lines at which they start.
#[derive(Default)]
pub(crate) struct Tiles {
    lines: Vec<Line>,
    starts: Vec<(Given, usize)>,
}

impl Tiles {
    /// The tiles that the programs of a stage read: of the one row that an earlier stage gave, and
    /// of the parameters of its graph, whose values are given by name.
    pub(crate) fn new<'p>(
        programs: impl Iterator<Item = &'p Program> + Clone,
        from: Option<&Rows<'_>>,
        params: &[(Arc<str>, DataType)],
        values: &[(&str, Scalar)],
    ) -> Result<Tiles> {
        let mut tiles = Tiles::default();
        let level = programs.clone().next().map_or(Level::Baseline, |p| p.level);
        let rows = programs.clone().map(|p| p.tile_rows).max().unwrap_or(TILE_MIN);
        for (given, repr) in programs.flat_map(|p| &p.given) {
            if tiles.of(*given).is_some() {
                continue;
            }
            let value = match *given {
                Given::Value(column) => bits_of(column_of(from, column)?, *repr)?,
                Given::Valid(column) => u64::from(column_of(from, column)?.null_count == 0),
                Given::Param(index) => {
                    let (name, dtype) = params.get(index as usize).ok_or_else(lost)?;
                    param(name, dtype, values)?
                }
            };
            tiles.starts.push((*given, tiles.lines.len()));
            broadcast(&mut tiles.lines, *repr, value, rows, level)?;
        }
        Ok(tiles)
    }

    /// The tile of a constant: as many values or bits as the largest tile of the programs has rows.
    pub(crate) fn of(&self, given: Given) -> Option<*const u8> {
        let (_, start) = self.starts.iter().find(|(g, _)| *g == given)?;
        Some(self.lines.get(*start..)?.as_ptr().cast())
    }
}

fn column_of<'r>(from: Option<&'r Rows<'_>>, column: u32) -> Result<&'r NewColumn> {
    match from.and_then(|rows| rows.columns.get(column as usize)) {
        Some(Column::New(c)) => Ok(c),
        _ => Err(lost()),
    }
}

/// The one value of a column.
fn bits_of(column: &NewColumn, repr: Repr) -> Result<u64> {
    let span = column.values.ok_or_else(lost)?;
    let bytes = match repr {
        Repr::Num(p) => p.width(),
        Repr::Bits => 1,
    };
    let mut value = [0u8; 8];
    for (i, b) in value.iter_mut().enumerate().take(bytes.min(span.len)) {
        // SAFETY: i is below the span's length, and the stage wrote it.
        *b = unsafe { span.ptr.as_ptr().add(i).read() };
    }
    Ok(u64::from_le_bytes(value))
}

/// A parameter's value as a number of the type that it was compiled as.
fn param(name: &str, dtype: &DataType, values: &[(&str, Scalar)]) -> Result<u64> {
    let found = values.iter().find(|(n, _)| *n == name);
    let (_, value) = found.ok_or_else(|| {
        Error::InvalidArgument(format!(
            "the parameter {name:?} has no value; give one when the query runs"
        ))
    })?;
    scalar_bits(value, dtype).ok_or_else(|| {
        Error::TypeMismatch(format!("the parameter {name:?}: {value} cannot be written as {dtype}"))
    })
}
