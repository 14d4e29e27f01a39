//! The table a query reads: borrowed column views, chunk by chunk.

use insitu_kernels::view::ColumnView;

use crate::error::{Error, Result};
use crate::schema::Schema;

/// What is known of a whole column without reading it. Hints only: they choose plans, and never
/// license an access or change a result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ColumnStats {
    /// The smallest value of an integer, date or timestamp column.
    pub min: Option<i64>,
    /// The largest value of an integer, date or timestamp column.
    pub max: Option<i64>,
    /// The least and the greatest value of a float column, but NaN.
    pub range: Option<(f64, f64)>,
    /// The number of nulls.
    pub null_count: Option<u64>,
    /// An estimate of the number of distinct values.
    pub distinct: Option<u64>,
}

/// A table as the engine sees it: a schema and, per chunk, one view per column.
#[derive(Clone, Debug)]
pub struct TableView<'a> {
    /// The columns' names and types.
    pub schema: &'a Schema,
    /// Rows over all chunks.
    pub rows: usize,
    /// `chunks[c][column]`; every chunk has all columns, of equal length.
    pub chunks: Vec<Vec<ColumnView<'a>>>,
    /// Per column over the table.
    pub stats: Option<Vec<ColumnStats>>,
}

impl TableView<'_> {
    /// Checks that the chunks fit the schema and add up to the rows.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if not.
    pub fn check(&self) -> Result<()> {
        let mut rows = 0usize;
        for chunk in &self.chunks {
            if chunk.len() != self.schema.len() {
                return Err(Error::ShapeMismatch(format!(
                    "a chunk has {} columns, the schema has {}",
                    chunk.len(),
                    self.schema.len()
                )));
            }
            let len = chunk.first().map_or(0, |c| c.len);
            if chunk.iter().any(|c| c.len != len) {
                return Err(Error::ShapeMismatch(
                    "the columns of a chunk have different lengths".into(),
                ));
            }
            rows = rows.saturating_add(len);
        }
        if rows != self.rows && !self.schema.is_empty() {
            return Err(Error::ShapeMismatch(format!(
                "the chunks have {rows} rows, the table says {}",
                self.rows
            )));
        }
        Ok(())
    }
}
