//! Random chains of steps, against a model that carries out each step on rows at once: what the
//! planner moves, merges, shares and leaves out must not show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::cmp::Ordering;

use common::*;
use insitu_query::{DataType, Expr, Plan};
use proptest::prelude::*;

/// One step over the columns a, b (int64, nulls in both), t and v (strings), whatever their order.
#[derive(Clone, Debug)]
enum Step {
    AboveA(i64),
    TextIs(&'static str),
    BIsNull,
    AddToA(i64),
    AFromItsLeast,
    SwapNames,
    Slice(i64, Option<u64>),
    SortByA(bool),
    SortBySum,
    SumPerText,
}

type Row = [Val; 4];

fn number(v: &Val) -> Option<i128> {
    match v {
        Val::Int(i) => Some(*i),
        _ => None,
    }
}

fn ordered(x: Option<i128>, y: Option<i128>, descending: bool) -> Ordering {
    match (x, y) {
        (Some(x), Some(y)) if descending => y.cmp(&x),
        (Some(x), Some(y)) => x.cmp(&y),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn names(e: [(&str, &str); 4]) -> Vec<Expr> {
    e.iter().map(|(from, to)| c(from).alias(*to)).collect()
}

impl Step {
    fn plan(&self, input: Plan) -> Plan {
        match self {
            Step::AboveA(k) => filter(input, vec![c("a").gt(*k)]),
            Step::TextIs(s) => filter(input, vec![c("t").eq(*s), c("v").ne("no such text")]),
            Step::BIsNull => filter(input, vec![c("b").is_null()]),
            Step::AddToA(k) => with_columns(input, vec![(c("a") + *k).alias("a")]),
            Step::AFromItsLeast => with_columns(input, vec![(c("a") - c("a").min()).alias("a")]),
            Step::SwapNames => {
                select(input, names([("b", "a"), ("a", "b"), ("v", "v"), ("t", "t")]))
            }
            Step::Slice(offset, len) => slice(input, *offset, *len),
            Step::SortByA(d) => sort(input, vec![c("a")], vec![*d]),
            Step::SortBySum => sort(input, vec![c("a") + c("b"), c("b")], vec![true, false]),
            Step::SumPerText => {
                let grouped = aggregate(
                    input,
                    vec![c("t"), c("v")],
                    vec![c("a").sum().alias("a"), (c("b").max() - c("b").min()).alias("b")],
                );
                select(grouped, names([("a", "a"), ("b", "b"), ("t", "t"), ("v", "v")]))
            }
        }
    }

    /// Columns in the order a, b, t, v.
    fn model(&self, mut rows: Vec<Row>) -> Vec<Row> {
        match self {
            Step::AboveA(k) => rows.retain(|r| number(&r[0]).is_some_and(|a| a > i128::from(*k))),
            Step::TextIs(s) => rows.retain(|r| r[2] == Val::Str((*s).into()) && r[3] != Val::Null),
            Step::BIsNull => rows.retain(|r| r[1] == Val::Null),
            Step::AddToA(k) => rows.iter_mut().for_each(|r| {
                r[0] = number(&r[0]).map_or(Val::Null, |a| Val::Int(a + i128::from(*k)));
            }),
            Step::AFromItsLeast => {
                let least = rows.iter().filter_map(|r| number(&r[0])).min();
                rows.iter_mut().for_each(|r| {
                    r[0] = number(&r[0]).map_or(Val::Null, |a| Val::Int(a - least.unwrap()));
                });
            }
            Step::SwapNames => rows.iter_mut().for_each(|r| r.swap(0, 1)),
            Step::Slice(offset, len) => {
                let n = rows.len() as i128;
                let start = if *offset < 0 { n + i128::from(*offset) } else { i128::from(*offset) };
                let end = len.map_or(n, |l| start + i128::from(l));
                let clamp = |i: i128| i.clamp(0, n) as usize;
                let (start, end) = (clamp(start), clamp(end));
                rows = rows[start..end.max(start)].to_vec();
            }
            Step::SortByA(d) => rows.sort_by(|x, y| ordered(number(&x[0]), number(&y[0]), *d)),
            Step::SortBySum => rows.sort_by(|x, y| {
                let sum = |r: &Row| Some(number(&r[0])? + number(&r[1])?);
                let second = ordered(number(&x[1]), number(&y[1]), false);
                ordered(sum(x), sum(y), true).then(second)
            }),
            Step::SumPerText => {
                let mut groups: Vec<(Row, Vec<Row>)> = Vec::new();
                for r in rows {
                    match groups.iter_mut().find(|(k, _)| k[2..] == r[2..]) {
                        Some((_, all)) => all.push(r),
                        None => groups.push((r.clone(), vec![r])),
                    }
                }
                let made = |(k, all): (Row, Vec<Row>)| {
                    let [_, _, t, v] = k;
                    let sum = all.iter().filter_map(|r| number(&r[0])).sum();
                    let b = || all.iter().filter_map(|r| number(&r[1]));
                    let span = b().max().map_or(Val::Null, |m| Val::Int(m - b().min().unwrap()));
                    [Val::Int(sum), span, t, v]
                };
                rows = groups.into_iter().map(made).collect();
            }
        }
        rows
    }
}

const TEXTS: [&str; 3] = ["", "x", "a text that is longer than a view"];

fn row() -> impl Strategy<Value = Row> {
    let int = || prop_oneof![1 => Just(Val::Null), 5 => (-9i128..10).prop_map(Val::Int)];
    let text = || {
        let some = proptest::sample::select(&TEXTS[..]).prop_map(|s| Val::Str(s.into()));
        prop_oneof![1 => Just(Val::Null), 5 => some]
    };
    (int(), int(), text(), text()).prop_map(|(a, b, t, v)| [a, b, t, v])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (-9i64..5).prop_map(Step::AboveA),
        proptest::sample::select(&TEXTS[..]).prop_map(Step::TextIs),
        Just(Step::BIsNull),
        (-3i64..4).prop_map(Step::AddToA),
        Just(Step::AFromItsLeast),
        Just(Step::SwapNames),
        (-300i64..300, proptest::option::of(0u64..400)).prop_map(|(o, l)| Step::Slice(o, l)),
        any::<bool>().prop_map(Step::SortByA),
        Just(Step::SortBySum),
        Just(Step::SumPerText),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 120 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chains_of_steps_do_what_the_steps_do(
        rows in proptest::collection::vec(row(), 0..400), steps in proptest::collection::vec(step(), 1..6),
    ) {
        let values = |i: usize| rows.iter().map(|r| r[i].clone()).collect::<Vec<_>>();
        let t = [
            col("a", DataType::Int64, values(0)),
            col("b", DataType::Int64, values(1)),
            col("t", DataType::Utf8, values(2)),
            col("v", DataType::Utf8View, values(3)),
        ];
        let (mut plan, mut want) = (Plan::Scan, rows.clone());
        for s in &steps {
            plan = s.plan(plan);
            want = s.model(want);
        }
        let got = run(&plan, &t).unwrap();
        for (i, name) in ["a", "b", "t", "v"].into_iter().enumerate() {
            let want: Vec<Val> = want.iter().map(|r| r[i].clone()).collect();
            prop_assert_eq!(got.column(name), &want[..], "{}", name);
        }
    }
}
