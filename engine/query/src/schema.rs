//! Schemas: the names and types of a table's columns.

use std::sync::Arc;

use crate::dtype::DataType;
use crate::error::{Error, Result};

/// One column: its name, type, and whether it may hold nulls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The column's name.
    pub name: Arc<str>,
    /// The column's type.
    pub dtype: DataType,
    /// Whether nulls may occur.
    pub nullable: bool,
}

impl Field {
    /// A field from its parts.
    pub fn new(name: impl Into<Arc<str>>, dtype: DataType, nullable: bool) -> Field {
        Field { name: name.into(), dtype, nullable }
    }
}

/// The columns of a table, in order. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    fields: Arc<[Field]>,
}

impl Schema {
    /// A schema of these fields. Names may repeat (Arrow allows it); a repeated name cannot be
    /// asked for.
    pub fn new(fields: impl Into<Arc<[Field]>>) -> Schema {
        Schema { fields: fields.into() }
    }

    /// All fields, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are no columns.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The position of the column of that name.
    ///
    /// # Errors
    /// [`Error::UnknownColumn`] with the nearest name, or [`Error::InvalidPlan`] if several
    /// columns have the name.
    pub fn index_of(&self, name: &str) -> Result<usize> {
        let mut found = self.fields.iter().enumerate().filter(|(_, f)| &*f.name == name);
        match (found.next(), found.next()) {
            (Some((i, _)), None) => Ok(i),
            (Some(_), Some(_)) => Err(Error::InvalidPlan(format!(
                "several columns are named {name:?}; rename them before computing on them"
            ))),
            (None, _) => Err(unknown_column(name, self.fields.iter().map(|f| &*f.name))),
        }
    }
}

/// The error for a name that is no column, suggesting the closest of `names`.
pub(crate) fn unknown_column<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    // A third of the letters may differ, or case alone.
    let limit = name.chars().count().div_ceil(3);
    let nearest = names
        .map(|n| {
            let d = if n.eq_ignore_ascii_case(name) { 0 } else { edit_distance(name, n) };
            (d, n)
        })
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, n)| n.to_owned());
    Error::UnknownColumn { name: name.to_owned(), nearest }
}

/// Levenshtein's distance, in characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(256).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(256).enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let next = (corner + usize::from(x != *y)).min(left + 1).min(*cell + 1);
            corner = *cell;
            *cell = next;
            left = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
    }

    #[test]
    fn unknown_column_names_the_nearest() {
        let s = Schema::new(vec![
            Field::new("dep_delay", DataType::Int64, true),
            Field::new("arr_delay", DataType::Int64, true),
        ]);
        match s.index_of("dep_dely") {
            Err(Error::UnknownColumn { nearest, .. }) => {
                assert_eq!(nearest.as_deref(), Some("dep_delay"));
            }
            other => panic!("{other:?}"),
        }
        match s.index_of("zzz") {
            Err(Error::UnknownColumn { nearest, .. }) => assert_eq!(nearest, None),
            other => panic!("{other:?}"),
        }
    }
}
