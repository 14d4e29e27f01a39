//! Formulas over arrays of the test's own.

use std::ffi::c_void;
use std::ptr;

use insitu::ErrorCode;

use super::*;

fn parse(formula: &str) -> InsituFormula {
    let (formula, mut handle) = (text(formula), InsituFormula { id: 0 });
    // SAFETY: as described.
    ask(|error| unsafe { insitu_formula_parse(formula.as_ptr(), &raw mut handle, error) }).is_ok();
    handle
}

fn array<T>(name: &CString, r#type: InsituType, data: &[T]) -> InsituArray {
    let data = data.as_ptr().cast_mut().cast::<c_void>();
    InsituArray { name: name.as_ptr(), r#type, scalar: 0, data }
}

fn evaluate(
    formula: InsituFormula,
    operands: &[InsituArray],
    rows: usize,
    out: InsituArray,
) -> Answer {
    let (at, n) = (operands.as_ptr(), operands.len());
    ask(|error| {
        // SAFETY: as described.
        unsafe { insitu_formula_evaluate(formula, at, n, rows, &raw const out, ptr::null(), error) }
    })
}

/// Where results go.
fn to<T>(r#type: InsituType, data: &mut [T]) -> InsituArray {
    InsituArray { name: ptr::null(), r#type, scalar: 0, data: data.as_mut_ptr().cast() }
}

fn free(formula: InsituFormula) {
    // SAFETY: as described.
    ask(|error| unsafe { insitu_formula_release(formula, error) }).is_ok();
}

#[test]
fn reductions_have_rows_and_no_operand_is_unsigned_of_64_bits() {
    let (x, value) = (text("x"), [1.0_f64]);
    let single = InsituArray { scalar: 1, ..array(&x, INSITU_TYPE_FLOAT64, &value) };
    let formula = parse("sum(x)");
    let mut out = [7.0_f64];
    for rows in [0, 1, 10] {
        let answer = evaluate(formula, &[single], rows, to(INSITU_TYPE_FLOAT64, &mut out));
        answer.is(ErrorCode::InvalidArgument, "single values");
        assert_eq!(out, [7.0]);
    }
    free(formula);
    let (large, mut flags) = ([u64::MAX], [7_u8]);
    let formula = parse("x > 0");
    let operands = [array(&x, INSITU_TYPE_UINT64, &large)];
    let answer = evaluate(formula, &operands, 1, to(INSITU_TYPE_BOOL, &mut flags));
    answer.is(ErrorCode::InvalidArgument, "unsigned ones of 64 bits");
    assert_eq!(flags, [7]);
    free(formula);
}

#[test]
fn a_formula_is_computed_over_arrays_of_many_types() {
    let (a, b, c, d) = (text("a"), text("b"), text("c"), text("d"));
    let (xs, ys, flags) = ([1.0_f64, 2.0, 3.0], [10_i32, 20, 30], [1_u8, 0, 1]);
    let scale = [2.5_f32];
    let operands = [
        array(&a, INSITU_TYPE_FLOAT64, &xs),
        array(&b, INSITU_TYPE_INT32, &ys),
        array(&c, INSITU_TYPE_BOOL, &flags),
        InsituArray { scalar: 1, ..array(&d, INSITU_TYPE_FLOAT32, &scale) },
    ];
    let formula = parse("where(c, a * d + b, -1)");
    let mut kind = 0;
    ask(|error| {
        let (at, n) = (operands.as_ptr(), operands.len());
        // SAFETY: as described.
        unsafe { insitu_formula_type(formula, at, n, &raw mut kind, error) }
    })
    .is_ok();
    assert_eq!(kind, INSITU_TYPE_FLOAT64);
    let mut out = [0.0_f64; 3];
    evaluate(formula, &operands, 3, to(kind, &mut out)).is_ok();
    assert_eq!(out, [12.5, -1.0, 37.5]);
    // Over one of its operands; none of no rows.
    let mut over = xs;
    let there = [array(&a, INSITU_TYPE_FLOAT64, &over), operands[1], operands[2], operands[3]];
    evaluate(formula, &there, 3, to(kind, &mut over)).is_ok();
    assert_eq!(over, out);
    evaluate(formula, &operands, 0, to(kind, &mut out)).is_ok();
    free(formula);

    let formula = parse("(b > 15) & c");
    let mut flags = [7_u8; 3];
    evaluate(formula, &operands, 3, to(INSITU_TYPE_BOOL, &mut flags)).is_ok();
    assert_eq!(flags, [0, 0, 1]);
    free(formula);
}

#[test]
fn reductions_constants_and_values_give_what_they_are() {
    let a = text("a");
    let (xs, two) = ([1_i64, 2, 3, 4], [2_i64]);
    let operands = [array(&a, INSITU_TYPE_INT64, &xs)];
    for (formula, expected) in [("sum(a)", 10), ("prod(a)", 24), ("max(a * a)", 16)] {
        let (formula, mut out) = (parse(formula), [0_i64; 2]);
        evaluate(formula, &operands, 4, to(INSITU_TYPE_INT64, &mut out)).is_ok();
        assert_eq!(out, [expected, 0]);
        free(formula);
    }
    let formula = parse("min(a)");
    let mut out = [0_i64; 3];
    evaluate(formula, &operands, 0, to(INSITU_TYPE_INT64, &mut out))
        .is(ErrorCode::InvalidArgument, "min of no values");
    free(formula);
    let formula = parse("a * 21");
    let value = [InsituArray { scalar: 1, ..array(&a, INSITU_TYPE_INT64, &two) }];
    evaluate(formula, &value, 3, to(INSITU_TYPE_INT64, &mut out)).is_ok();
    assert_eq!(out, [42; 3]);
    free(formula);
    let (formula, mut out) = (parse("6.5 * 2"), [0.0_f64; 2]);
    evaluate(formula, &[], 2, to(INSITU_TYPE_FLOAT64, &mut out)).is_ok();
    assert_eq!(out, [13.0; 2]);
    free(formula);
}

#[test]
fn bad_formulas_and_arrays_are_told() {
    let mut formula = InsituFormula { id: 0 };
    for (wrong, code, part) in [
        ("a +", ErrorCode::InvalidPlan, "ends too early"),
        ("a == 'x'", ErrorCode::Unsupported, "string"),
        ("sum(a, axis=1)", ErrorCode::InvalidArgument, "axis 1"),
    ] {
        let wrong = text(wrong);
        // SAFETY: as described.
        ask(|error| unsafe { insitu_formula_parse(wrong.as_ptr(), &raw mut formula, error) })
            .is(code, part);
    }
    let (a, b, formula) = (text("a"), text("b"), parse("a + b"));
    let (xs, mut out) = ([1.0_f64; 4], [0.0_f64; 4]);
    let good = array(&a, INSITU_TYPE_FLOAT64, &xs);
    let b = array(&b, INSITU_TYPE_FLOAT64, &xs);
    let result = to(INSITU_TYPE_FLOAT64, &mut out);
    let crooked = good.data.wrapping_byte_add(1);
    for (operands, rows, out, code, part) in [
        (vec![good], 4, result, ErrorCode::InvalidArgument, "\"b\" of the formula is missing"),
        (
            vec![InsituArray { name: ptr::null(), ..good }, b],
            4,
            result,
            ErrorCode::InvalidArgument,
            "the name of an operand is NULL",
        ),
        (
            vec![InsituArray { r#type: INSITU_TYPE_STRING, ..good }, b],
            4,
            result,
            ErrorCode::InvalidArgument,
            "type 12",
        ),
        (
            vec![InsituArray { data: crooked, ..good }, b],
            4,
            result,
            ErrorCode::InvalidArgument,
            "not a multiple of 8",
        ),
        (
            vec![InsituArray { data: ptr::null_mut(), ..good }, b],
            4,
            result,
            ErrorCode::InvalidArgument,
            "\"a\" is NULL",
        ),
        (
            vec![good, b],
            4,
            InsituArray { data: ptr::null_mut(), ..result },
            ErrorCode::InvalidArgument,
            "\"out\" is NULL",
        ),
        (
            vec![good, b],
            4,
            InsituArray { r#type: INSITU_TYPE_INT64, ..result },
            ErrorCode::TypeMismatch,
            "of type 11, out is of type 5",
        ),
        (vec![good, b], usize::MAX / 4, result, ErrorCode::LimitExceeded, "values"),
    ] {
        evaluate(formula, &operands, rows, out).is(code, part);
    }
    let (at, none) = ([good, b], ptr::null());
    ask(|error| {
        // SAFETY: as described, but for the result, which is refused.
        unsafe { insitu_formula_evaluate(formula, at.as_ptr(), 2, 4, none, ptr::null(), error) }
    })
    .is(ErrorCode::InvalidArgument, "out is NULL");
    ask(|error| {
        let (at, out) = (at.as_ptr(), &raw const result);
        // SAFETY: as described, but for the number of operands, which is refused.
        unsafe { insitu_formula_evaluate(formula, at, 1 << 40, 4, out, ptr::null(), error) }
    })
    .is(ErrorCode::LimitExceeded, "operands");
    assert_eq!(out, [0.0; 4]);
    free(formula);
    evaluate(formula, &at, 4, to(INSITU_TYPE_FLOAT64, &mut out)).is(ErrorCode::Stale, "formula");
}
