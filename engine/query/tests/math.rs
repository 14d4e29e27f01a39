//! Transcendental functions and powers in queries: types, nulls, wrapping, checks, folding. How
//! accurate they are is tested where the loops are.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use insitu_query::{DataType, Error, Expr, Plan, Prepared, Scalar};

fn one(e: Expr, t: &[Col]) -> (Vec<Val>, DataType) {
    let got = run(&select(Plan::Scan, vec![e.alias("r")]), t).unwrap();
    (got.column("r").to_vec(), got.dtypes[0].clone())
}

fn near(got: &[Val], want: &[Option<f64>]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        match (got, want) {
            (Val::Null, None) => {}
            (Val::Float(g), Some(w)) => {
                assert!((g - w).abs() <= 1e-15 * w.abs() || g == w, "{g} {w}");
            }
            _ => panic!("{got:?}, not {want:?}"),
        }
    }
}

#[test]
fn functions_of_one_float_take_numbers_and_keep_nulls() {
    let t = [
        floats("f", &[Some(0.5), None, Some(3.0)]),
        ints("i", DataType::Int32, &[Some(2), None, Some(7)]),
        col("b", DataType::Bool, vec![Val::Bool(true), Val::Null, Val::Bool(false)]),
    ];
    type OfStd = fn(f64) -> f64;
    let functions: [(&str, OfStd); 15] = [
        ("exp", f64::exp),
        ("exp2", f64::exp2),
        ("expm1", f64::exp_m1),
        ("log", f64::ln),
        ("log2", f64::log2),
        ("log10", f64::log10),
        ("log1p", f64::ln_1p),
        ("sinh", f64::sinh),
        ("arcsinh", f64::asinh),
        ("sin", f64::sin),
        ("tan", f64::tan),
        ("arctan", f64::atan),
        ("cbrt", f64::cbrt),
        ("degrees", f64::to_degrees),
        ("radians", f64::to_radians),
    ];
    for (name, f) in functions {
        let (got, dtype) = one(Expr::call(name, vec![c("f")]).unwrap(), &t);
        near(&got, &[Some(f(0.5)), None, Some(f(3.0))]);
        assert_eq!(dtype, DataType::Float64);
        let (got, dtype) = one(Expr::call(name, vec![c("i")]).unwrap(), &t);
        near(&got, &[Some(f(2.0)), None, Some(f(7.0))]);
        assert_eq!(dtype, DataType::Float64);
        let refused = select(Plan::Scan, vec![Expr::call(name, vec![c("b")]).unwrap()]);
        assert!(matches!(run(&refused, &t), Err(Error::TypeMismatch(_))), "{name}");
    }
}

#[test]
fn constants_come_to_what_columns_do() {
    let values: Vec<f64> = (1..200).map(|i| f64::from(i) * 0.37).collect();
    for v in values {
        let t = [floats("f", &[Some(v)])];
        let constant = Expr::literal(v).cast(DataType::Float64, true);
        for name in ["exp", "log", "log1p", "sinh", "tanh", "sin", "tan", "arctan", "cbrt"] {
            let of = |e: Expr| one(Expr::call(name, vec![e]).unwrap(), &t).0;
            assert_eq!(of(c("f")), of(constant.clone()), "{name} {v}");
        }
    }
}

#[test]
fn powers_of_integers_stay_integers_for_whole_literals() {
    let t = [ints("i", DataType::Int8, &[Some(3), None, Some(-2), Some(100)])];
    let ints = |values: &[Option<i128>]| -> Vec<Val> {
        values.iter().map(|v| v.map_or(Val::Null, Val::Int)).collect()
    };
    let (got, dtype) = one(c("i").pow(0), &t);
    assert_eq!((got, dtype), (ints(&[Some(1), None, Some(1), Some(1)]), DataType::Int8));
    let (got, dtype) = one(c("i").pow(1), &t);
    assert_eq!((got, dtype), (ints(&[Some(3), None, Some(-2), Some(100)]), DataType::Int8));
    // 100^3 wraps to 64 in 8 bits.
    let (got, dtype) = one(c("i").pow(3), &t);
    assert_eq!((got, dtype), (ints(&[Some(27), None, Some(-8), Some(64)]), DataType::Int8));
    let (got, dtype) = one(Expr::literal(3).pow(4), &t);
    assert_eq!((&got[0], dtype), (&Val::Int(81), DataType::Int64));

    let (got, dtype) = one(c("i").pow(-1), &t);
    near(&got, &[Some(1.0 / 3.0), None, Some(-0.5), Some(0.01)]);
    assert_eq!(dtype, DataType::Float64);
    let (got, dtype) = one(c("i").pow(0.5).fill_null(0.0), &t);
    assert_eq!(dtype, DataType::Float64);
    assert!(matches!(got[2], Val::Float(v) if v.is_nan()), "{got:?}");
    let (got, _) = one(c("i").pow(c("i")), &t);
    near(&got, &[Some(27.0), None, Some(0.25), Some(1e200)]);
    let (got, _) = one(Expr::literal(2).pow(c("i")), &t);
    near(&got, &[Some(8.0), None, Some(0.25), Some(2f64.powi(100))]);
    let (got, _) = one(c("i").pow(Scalar::Null), &t);
    assert_eq!(got, [Val::Null, Val::Null, Val::Null, Val::Null]);
}

#[test]
fn a_parameter_as_exponent_makes_a_float() {
    let t = [ints("i", DataType::Int8, &[Some(3), None, Some(-2)])];
    let plan = select(Plan::Scan, vec![c("i").pow(Expr::param("n")).alias("r")]);
    let prepared = Prepared::compile(&plan, &Table::new(&t, &[]).schema).unwrap();
    assert_eq!(prepared.schema().fields()[0].dtype, DataType::Float64);
}

#[test]
fn checked_powers_of_integers_do_not_wrap() {
    let fine = [ints("i", DataType::Int8, &[Some(-5), None, Some(5)])];
    let over = [ints("i", DataType::Int8, &[Some(2), None, Some(6)])];
    let plan = select(Plan::Scan, vec![c("i").pow(3).alias("r")]);
    let got = run_with(&plan, &Table::new(&fine, &[]), &fine, true).unwrap();
    assert_eq!(got.column("r"), [Val::Int(-125), Val::Null, Val::Int(125)]);
    match run_with(&plan, &Table::new(&over, &[]), &over, true) {
        Err(Error::Overflow(m)) => assert!(m.to_string().contains("** 3"), "{m}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn powers_of_times_and_strings_are_refused() {
    let t = [
        ints("d", DataType::Date32, &[Some(1)]),
        col("s", DataType::Utf8, vec![Val::Str("a".into())]),
    ];
    for e in [c("d").pow(2), c("s").pow(2), Expr::literal(2).pow(c("d"))] {
        let got = run(&select(Plan::Scan, vec![e]), &t);
        assert!(matches!(got, Err(Error::TypeMismatch(_))), "{got:?}");
    }
}

#[test]
fn functions_of_two_floats_take_numbers_and_keep_nulls() {
    let t = [
        floats("f", &[Some(0.5), None, Some(-3.0)]),
        ints("i", DataType::Int32, &[Some(2), Some(1), None]),
        ints("d", DataType::Date32, &[Some(1), Some(2), Some(3)]),
        col("s", DataType::Utf8, vec![Val::Str("a".into()), Val::Null, Val::Null]),
    ];
    let (got, dtype) = one(c("f").arctan2(c("i")), &t);
    near(&got, &[Some(0.5f64.atan2(2.0)), None, None]);
    assert_eq!(dtype, DataType::Float64);
    let (got, dtype) = one(c("i").arctan2(c("i")), &t);
    near(&got, &[Some(std::f64::consts::FRAC_PI_4), Some(std::f64::consts::FRAC_PI_4), None]);
    assert_eq!(dtype, DataType::Float64);
    let (got, _) = one(c("f").hypot(4), &t);
    near(&got, &[Some(16.25f64.sqrt()), None, Some(5.0)]);
    let (got, _) = one(Expr::literal(1).arctan2(c("f")), &t);
    near(&got, &[Some(1f64.atan2(0.5)), None, Some(1f64.atan2(-3.0))]);
    let (got, _) = one(c("f").hypot(Scalar::Null), &t);
    assert_eq!(got, [Val::Null, Val::Null, Val::Null]);
    for e in [c("d").hypot(2), c("s").arctan2(2), Expr::literal(2).hypot(c("d"))] {
        let got = run(&select(Plan::Scan, vec![e]), &t);
        assert!(matches!(got, Err(Error::TypeMismatch(_))), "{got:?}");
    }
}
