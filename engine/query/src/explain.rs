//! What a plan will do, for people: its stages, and the tile program of each.

use std::fmt::Write as _;

use crate::compile::stage::{Input, Kind, What};
use crate::plan::Plan;
use crate::prepared::static_compiled;
use crate::schema::Schema;

/// Describes a plan over a source whose columns have nulls where the schema allows them. Types are
/// those of parameters without values.
pub(crate) fn explain(plan: &Plan, source: &Schema) -> String {
    let compiled = match static_compiled(plan, source) {
        Ok(c) => c,
        Err(e) => return format!("cannot be compiled: {e}\n"),
    };
    let mut out = String::new();
    for (i, c) in compiled.iter().enumerate() {
        let s = &c.stage;
        let from = match s.input {
            Input::Source => "table".to_owned(),
            Input::Stage(i) => format!("stage {i}"),
        };
        let sink = match &s.kind {
            Kind::Map if s.has_filter() => "count, then write the kept rows".to_owned(),
            Kind::Map => "write columns".to_owned(),
            Kind::Reduce { aggs } => {
                let texts: Vec<&str> = aggs.iter().map(|a| a.text.as_str()).collect();
                format!("reduce to one row: {}", texts.join(", "))
            }
            Kind::Group { keys, aggs } => {
                let keys: Vec<&str> = keys.iter().map(|k| &*k.name).collect();
                let texts: Vec<&str> = aggs.iter().map(|a| a.text.as_str()).collect();
                format!("group by {}: {}", keys.join(", "), texts.join(", "))
            }
            Kind::Sort { keys, descending, .. } => {
                let keys: Vec<String> = keys
                    .iter()
                    .zip(descending)
                    .map(|(k, d)| format!("column {k}{}", if *d { " descending" } else { "" }))
                    .collect();
                format!("sort by {}, gather", keys.join(", "))
            }
        };
        let _ = writeln!(out, "stage {i}: {from} -> {sink}");
        if let Some(g) = s.given {
            let _ = writeln!(out, "  with the values of stage {g}");
        }
        for (offset, len) in &s.slices {
            let _ = writeln!(out, "  slice from {offset}, {len:?} rows");
        }
        for (o, needed) in s.outputs.iter().zip(&s.needed) {
            let how = match &o.what {
                _ if !needed => "not needed",
                What::Input(_) if matches!(s.kind, Kind::Map) && !s.has_filter() => "shared",
                What::Input(_) => "moved",
                What::Computed | What::Set(_) => "computed",
                What::Key(_) => "key",
                What::Agg(_) => "aggregate",
                What::Null => "null",
            };
            if !o.name.starts_with('\u{0}') {
                let _ = writeln!(out, "  column {:?}: {} ({how})", &*o.name, o.dtype);
            }
        }
        if !c.main.instrs.is_empty() {
            out.push_str(&c.main.describe());
        }
        if let Some(w) = &c.write
            && !w.instrs.is_empty()
        {
            out.push_str(&w.describe());
        }
    }
    out
}
