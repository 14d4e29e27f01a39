//! Parameters: whatever value a compiled plan is given, it answers as the plan with that value
//! written in would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{Context, DataType, Error, Expr, Heap, Plan, Prepared, Scalar};

fn columns() -> Vec<Col> {
    let numbers = |i: i64| (i % 5 != 3).then_some(i * 7 % 250 - 100);
    let small: Vec<Option<i64>> = (0..300).map(|i| numbers(i).map(|v| v / 2)).collect();
    let wide: Vec<Option<i64>> = (0..300).map(|i| numbers(i).map(|v| v << 33)).collect();
    let unsigned: Vec<Option<i64>> = (0..300).map(|i| numbers(i).map(|v| v + 100)).collect();
    let real: Vec<Option<f64>> = (0..300).map(|i| numbers(i).map(|v| v as f64 / 4.0)).collect();
    let single = real.iter().map(|v| v.map_or(Val::Null, Val::Float)).collect();
    let texts: Vec<Option<&str>> = (0..300).map(|i| ["a", "b", "c"].get(i % 4).copied()).collect();
    vec![
        ints("i8", DataType::Int8, &small),
        ints("i64", DataType::Int64, &wide),
        ints("u8", DataType::UInt8, &unsigned),
        floats("f64", &real),
        col("f32", DataType::Float32, single),
        strs("text", DataType::Utf8, &texts),
        col("bit", DataType::Bool, (0..300).map(|i| Val::Bool(i % 3 == 0)).collect()),
    ]
}

fn values() -> Vec<Scalar> {
    let ints = [0, 1, 2, 5, -1, -7, 100, 127, 128, 200, 255, 256, 70_000, i64::MAX, i64::MIN];
    let floats = [0.0, -0.0, 0.5, 1.0, -3.25, 1e300, f64::NAN, f64::INFINITY];
    let mut values: Vec<Scalar> = ints.into_iter().map(Scalar::Int).collect();
    values.extend(floats.into_iter().map(Scalar::Float));
    values.extend([
        Scalar::UInt(u64::MAX),
        Scalar::Null,
        Scalar::Bool(true),
        Scalar::Bool(false),
        Scalar::Str("b".into()),
        Scalar::Str("nothing".into()),
    ]);
    values
}

/// Where a parameter may stand.
fn plans(x: &Expr) -> Vec<Plan> {
    let mut plans = Vec::new();
    for name in ["i8", "i64", "u8", "f64", "f32", "text", "bit"] {
        let column = || c(name);
        plans.push(filter(Plan::Scan, vec![column().gt(x.clone())]));
        plans.push(filter(Plan::Scan, vec![column().eq(x.clone()) | column().is_null()]));
        plans.push(select(Plan::Scan, vec![(column() + x.clone()).alias("v")]));
        plans.push(select(Plan::Scan, vec![(x.clone() - column() * 2).alias("v")]));
        plans.push(select(Plan::Scan, vec![(column() * x.clone() / 3).alias("v")]));
        plans.push(select(Plan::Scan, vec![column().rem(x.clone()).alias("v")]));
        plans.push(select(Plan::Scan, vec![column().floordiv(x.clone()).alias("v")]));
        plans.push(select(Plan::Scan, vec![x.clone().pow(column()).alias("v")]));
        // Of integers, the type of a power depends on whether the exponent is written in.
        if name.starts_with('f') {
            plans.push(select(Plan::Scan, vec![column().pow(x.clone()).alias("v")]));
        }
        plans.push(select(Plan::Scan, vec![column().fill_null(x.clone()).alias("v")]));
        plans.push(select(Plan::Scan, vec![column().clip(x.clone(), 50).alias("v")]));
        plans.push(select(Plan::Scan, vec![column().is_between(-5, x.clone()).alias("v")]));
        let chosen = Expr::when(c("bit"), column(), x.clone()).alias("v");
        plans.push(select(Plan::Scan, vec![chosen]));
        plans.push(aggregate(Plan::Scan, vec![c("text")], vec![(column() * x.clone()).sum()]));
        // The stage after a reduction reads both what that gave and the parameter.
        plans.push(select(Plan::Scan, vec![(column() - column().mean() * x.clone()).alias("v")]));
        let kept = filter(Plan::Scan, vec![column().lt(x.clone())]);
        plans.push(filter(kept, vec![(column() + column().max()).gt(x.clone())]));
    }
    plans.push(select(Plan::Scan, vec![x.clone().alias("v"), c("i8")]));
    plans.push(select(Plan::Scan, vec![x.clone().is_null().alias("v"), c("i8")]));
    plans.push(select(Plan::Scan, vec![(x.clone() + 1).abs().alias("v"), c("i8")]));
    plans.push(select(Plan::Scan, vec![x.clone().cast(DataType::Int16, true).alias("v"), c("i8")]));
    plans.push(select(Plan::Scan, vec![x.clone().cast(DataType::Bool, true).alias("v"), c("i8")]));
    plans.push(select(Plan::Scan, vec![x.clone().sqrt().alias("v"), c("i8")]));
    plans
        .push(select(Plan::Scan, vec![(c("i8") * x.clone()).sum(), x.clone().is_nan().alias("v")]));
    plans
}

fn shown(answer: Result<Answer, Error>) -> String {
    match answer {
        Ok(answer) => format!("{:?} {:?}", answer.names, answer.columns),
        // Parameters are named where literals are written.
        Err(error) => format!("{:?}", std::mem::discriminant(&error)),
    }
}

#[test]
fn a_parameter_is_as_good_as_its_value_written_in() {
    let columns = columns();
    let table = Table::new(&columns, &[70, 130]);
    let mut answered = 0;
    for (i, plan) in plans(&Expr::param("x")).iter().enumerate() {
        // Compiled once, for values in both orders: what was compiled for one value must not be
        // taken for another that it does not fit.
        let Ok(prepared) = Prepared::compile(plan, &table.schema) else { continue };
        for value in values().into_iter().chain(values().into_iter().rev()) {
            for checked in [false, true] {
                let heap = Heap::new();
                let params = [("x", value.clone())];
                let cx = Context { params: &params, checked, ..Context::new(&heap) };
                let got = prepared.run(&table.view(), &cx).map(|out| answer(&out, &columns));
                let literal = plans(&Expr::literal(value.clone())).swap_remove(i);
                let heap = Heap::new();
                let cx = Context { checked, ..Context::new(&heap) };
                let want = Prepared::compile(&literal, &table.schema)
                    .and_then(|p| p.run(&table.view(), &cx))
                    .map(|out| answer(&out, &columns));
                answered += usize::from(want.is_ok());
                assert_eq!(shown(got), shown(want), "{plan:?} with {value:?}, checked {checked}");
            }
        }
    }
    assert!(answered > 5_000, "{answered}");
}
