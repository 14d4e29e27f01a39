//! The operators: running a stage's tile program over morsels of rows, into its sink.

pub(crate) mod assign;
pub(crate) mod done;
pub(crate) mod filter;
pub(crate) mod given;
pub(crate) mod group;
pub(crate) mod keys;
pub(crate) mod map;
pub(crate) mod output;
pub(crate) mod quantile;
pub(crate) mod reduce;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod sort;
pub(crate) mod source;
pub(crate) mod strings;
pub(crate) mod tile;
pub(crate) mod walk;
pub(crate) mod zones;
