//! Queries, prepared and not, their parameters, and updates.

use std::ptr;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{
    BooleanArray, Date32Array, DurationMicrosecondArray, TimestampMillisecondArray, UInt64Array,
};
use insitu::{ErrorCode, Expr};
use insitu_schemas::v1;
use prost::Message;

use super::*;

fn integer(value: i64) -> InsituScalar {
    InsituScalar {
        r#type: INSITU_TYPE_INT64,
        per_second: 0,
        number: InsituNumber { i64: value },
        text: ptr::null(),
    }
}

fn prepare(table: InsituTable, plan: InsituPlan) -> InsituPrepared {
    let mut prepared = InsituPrepared { id: 0 };
    // SAFETY: as described.
    ask(|error| unsafe { insitu_prepare(table, plan, &raw mut prepared, error) }).is_ok();
    prepared
}

/// Runs with parameters.
fn run(
    prepared: InsituPrepared,
    table: InsituTable,
    params: &[InsituParam],
) -> Result<InsituTable, Answer> {
    let options = InsituOptions { params: params.as_ptr(), n_params: params.len(), ..options() };
    let mut result = InsituTable { id: 0 };
    let answer = ask(|error| {
        let (options, out) = (&raw const options, &raw mut result);
        // SAFETY: as described.
        unsafe { insitu_prepared_run(prepared, table, options, out, error) }
    });
    if answer.status == 0 { Ok(result) } else { Err(answer) }
}

fn value(table: InsituTable) -> InsituScalar {
    let mut value = integer(0);
    // SAFETY: as described.
    ask(|error| unsafe { insitu_table_value(table, &raw mut value, error) }).is_ok();
    value
}

#[test]
fn a_prepared_query_is_run_with_parameters_and_on_other_tables() {
    let scene = Scene::new();
    let (table, other) = (scene.put("numbers", 100), scene.put("more", 1_000));
    let plan = plan("sum(a), len()", Some("a >= $least and s == $text"));
    let prepared = prepare(table, plan);
    // SAFETY: as described.
    ask(|error| unsafe { insitu_plan_release(plan, error) }).is_ok();
    let (least, even, odd, name) = (text("least"), text("even"), text("odd"), text("text"));
    let string = |text: &CString| InsituScalar {
        r#type: INSITU_TYPE_STRING,
        text: text.as_ptr(),
        ..integer(0)
    };
    let params = |n, text| {
        [
            InsituParam { name: least.as_ptr(), value: integer(n) },
            InsituParam { name: name.as_ptr(), value: string(text) },
        ]
    };
    let none = InsituTable { id: 0 };
    for (table, given, expected) in [
        (none, params(0, &even), (2_450, 50)),
        (none, params(90, &even), (470, 5)),
        (none, params(0, &odd), (0, 0)),
        (other, params(990, &even), (4_970, 5)),
    ] {
        let result = run(prepared, table, &given).unwrap();
        let rows = export(result);
        let sum = |column: usize| rows[0].column(column).as_primitive::<Int64Type>().value(0);
        assert_eq!((sum(0), sum(1)), expected);
        release(result);
    }
    run(prepared, none, &[]).unwrap_err().is(ErrorCode::InvalidArgument, "has no value");
    let mut given = params(0, &even);
    given[1].value.r#type = 99;
    run(prepared, none, &given).unwrap_err().is(ErrorCode::InvalidArgument, "type 99");
    given[1].name = ptr::null();
    run(prepared, none, &given).unwrap_err().is(ErrorCode::InvalidArgument, "NULL");

    let many = InsituOptions { params: given.as_ptr(), n_params: usize::MAX / 64, ..options() };
    let mut result = none;
    ask(|error| {
        let (many, out) = (&raw const many, &raw mut result);
        // SAFETY: as described, but for the number of parameters, which is refused.
        unsafe { insitu_prepared_run(prepared, none, many, out, error) }
    })
    .is(ErrorCode::LimitExceeded, "params");

    let (mut buffer, mut needed) = ([1_u8; 8], 0);
    ask(|error| {
        let (at, needed) = (buffer.as_mut_ptr().cast(), &raw mut needed);
        // SAFETY: as described.
        unsafe { insitu_prepared_explain(prepared, at, buffer.len(), needed, error) }
    })
    .is_ok();
    assert!(needed > 8 && buffer[7] == 0 && buffer[6] != 0);
    // SAFETY: as described.
    ask(|error| unsafe { insitu_prepared_release(prepared, error) }).is_ok();
    run(prepared, none, &[]).unwrap_err().is(ErrorCode::Stale, "prepared query");
    release(table);
    release(other);
}

#[test]
fn a_single_value_is_read_without_arrow() {
    let scene = Scene::new();
    let table = scene.put("numbers", 5);
    let ask_for = |select: &str| {
        let (plan, mut result) = (plan(select, None), InsituTable { id: 0 });
        // SAFETY: as described.
        ask(|error| unsafe { insitu_query(table, plan, ptr::null(), &raw mut result, error) })
            .is_ok();
        // SAFETY: as described.
        ask(|error| unsafe { insitu_plan_release(plan, error) }).is_ok();
        result
    };
    for (select, kind, bits) in [
        ("sum(a)", INSITU_TYPE_INT64, 10),
        ("mean(b)", INSITU_TYPE_FLOAT64, 1_f64.to_bits()),
        ("any(a > 3)", INSITU_TYPE_BOOL, 1),
        ("max(where(a > 9, a, null))", INSITU_TYPE_NULL, 0),
    ] {
        let result = ask_for(select);
        let found = value(result);
        // SAFETY: all fields are 64 bits.
        assert_eq!((found.r#type, unsafe { found.number.u64 }), (kind, bits), "{select}");
        release(result);
    }
    let mut out = integer(0);
    for (result, code, part) in [
        (ask_for("a"), ErrorCode::ShapeMismatch, "5 rows and 1 columns"),
        (ask_for("first(s)"), ErrorCode::Unsupported, "export"),
    ] {
        // SAFETY: as described.
        ask(|error| unsafe { insitu_table_value(result, &raw mut out, error) }).is(code, part);
        release(result);
    }
    release(table);
}

#[test]
fn a_result_gets_a_name_for_all() {
    let scene = Scene::new();
    let table = scene.put("numbers", 5);
    let (plan, mut result) = (plan("*, a * 10 AS tens", Some("a > 2")), InsituTable { id: 0 });
    // SAFETY: as described.
    ask(|error| unsafe { insitu_query(table, plan, ptr::null(), &raw mut result, error) }).is_ok();
    let (name, mut named) = (text("result"), InsituTable { id: 0 });
    ask(|error| {
        let (name, none, out) = (name.as_ptr(), ptr::null(), &raw mut named);
        // SAFETY: as described.
        unsafe { insitu_table_publish(scene.region, name, result, none, out, error) }
    })
    .is_ok();
    let rows = export(named);
    assert_eq!(rows[0].column(3).as_primitive::<Int64Type>().values().as_ref(), [30, 40]);
    assert_eq!(rows, export(result));
    for table in [table, result, named] {
        release(table);
    }
}

#[test]
fn a_message_is_a_plan_and_other_bytes_are_none() {
    let scene = Scene::new();
    let table = scene.put("numbers", 5);
    let query = insitu::Plan::Select {
        input: Arc::new(insitu::Plan::Scan),
        exprs: vec![Expr::column("a").sum()],
    };
    let message = insitu::wire::encode(&query).unwrap();
    let decode = |bytes: &[u8]| {
        let mut plan = InsituPlan { id: 0 };
        let answer = ask(|error| {
            // SAFETY: as described.
            unsafe { insitu_plan_decode(bytes.as_ptr(), bytes.len(), &raw mut plan, error) }
        });
        (answer, plan)
    };
    let (answer, plan) = decode(&message);
    answer.is_ok();
    let prepared = prepare(table, plan);
    let result = run(prepared, InsituTable { id: 0 }, &[]).unwrap();
    // SAFETY: all fields are 64 bits.
    assert_eq!(unsafe { value(result).number.i64 }, 10);
    release(result);
    // Truncated, changed, and of all kinds: a plan, or a status and a message.
    let mut state = 7_u64;
    for round in 0..2_000_usize {
        let mut bytes = message[..round % (message.len() + 1)].to_vec();
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            if state >> 60 == 0 {
                *byte = (state >> 32) as u8;
            }
        }
        let (answer, plan) = decode(&bytes);
        if answer.status == 0 {
            let mut prepared = InsituPrepared { id: 0 };
            // SAFETY: as described.
            ask(|error| unsafe { insitu_prepare(table, plan, &raw mut prepared, error) });
            // SAFETY: as described.
            ask(|error| unsafe { insitu_prepared_release(prepared, error) }).is_ok();
        }
        // SAFETY: as described.
        ask(|error| unsafe { insitu_plan_release(plan, error) }).is_ok();
    }
    decode(&[0xFF; 64]).0.is(ErrorCode::InvalidPlan, "no plan message");
    // A size that no memory has is refused before a byte is read.
    let mut plan = InsituPlan { id: 0 };
    ask(|error| {
        // SAFETY: refused before it is read.
        unsafe { insitu_plan_decode(message.as_ptr(), usize::MAX, &raw mut plan, error) }
    })
    .is(ErrorCode::LimitExceeded, "message");
    // SAFETY: as described.
    ask(|error| unsafe { insitu_prepared_release(prepared, error) }).is_ok();
    release(table);
}

#[test]
fn deep_long_and_circular_messages_are_refused() {
    let expr = |kind| v1::Expr { kind: Some(kind) };
    let column = || expr(v1::expr::Kind::Column("a".to_owned()));
    let negated =
        |at: u32| expr(v1::expr::Kind::Call(v1::Call { name: "neg".to_owned(), args: vec![at] }));
    let select =
        |exprs: Vec<u32>| v1::Step { kind: Some(v1::step::Kind::Select(v1::Select { exprs })) };
    let slice = || v1::Step {
        kind: Some(v1::step::Kind::Slice(v1::Slice { offset: i64::MIN, length: Some(u64::MAX) })),
    };
    let deep = (0..10_000).map(negated);
    let sums = (0..40).map(|at: u32| {
        expr(v1::expr::Kind::Call(v1::Call { name: "add".to_owned(), args: vec![at, at] }))
    });
    for (exprs, steps, code) in [
        (std::iter::once(column()).chain(deep).collect(), vec![], ErrorCode::LimitExceeded),
        (std::iter::once(column()).chain(sums).collect(), vec![], ErrorCode::LimitExceeded),
        (vec![column(); 1 << 17], vec![], ErrorCode::LimitExceeded),
        (vec![], (0..10_000).map(|_| slice()).collect(), ErrorCode::LimitExceeded),
        (vec![negated(0)], vec![select(vec![0])], ErrorCode::InvalidPlan),
        (vec![negated(1), negated(0)], vec![select(vec![1])], ErrorCode::InvalidPlan),
        (vec![column()], vec![select(vec![u32::MAX])], ErrorCode::InvalidPlan),
        (vec![v1::Expr { kind: None }], vec![], ErrorCode::InvalidPlan),
        (vec![], vec![v1::Step { kind: None }], ErrorCode::InvalidPlan),
    ] {
        let message = v1::Plan { exprs, steps }.encode_to_vec();
        let mut plan = InsituPlan { id: 0 };
        ask(|error| {
            // SAFETY: as described.
            unsafe { insitu_plan_decode(message.as_ptr(), message.len(), &raw mut plan, error) }
        })
        .is(code, "");
    }
    // The largest numbers are a plan, which gives what there is.
    let message = v1::Plan { exprs: vec![], steps: vec![slice()] }.encode_to_vec();
    let (scene, mut plan) = (Scene::new(), InsituPlan { id: 0 });
    ask(|error| {
        // SAFETY: as described.
        unsafe { insitu_plan_decode(message.as_ptr(), message.len(), &raw mut plan, error) }
    })
    .is_ok();
    let (table, mut result) = (scene.put("numbers", 5), InsituTable { id: 0 });
    // SAFETY: as described.
    ask(|error| unsafe { insitu_query(table, plan, ptr::null(), &raw mut result, error) }).is_ok();
    assert_eq!(export(result), [numbers(0, 5)]);
    release(result);
    release(table);
}

#[test]
fn an_update_writes_over_what_its_filter_chooses() {
    let scene = Scene::new();
    let table = scene.put("numbers", 6);
    let update = |select: &str, filter: Option<&str>, flags: u32| {
        let (plan, options) = (plan(select, filter), InsituOptions { flags, ..options() });
        // SAFETY: as described.
        let answer =
            ask(|error| unsafe { insitu_table_update(table, plan, &raw const options, error) });
        // SAFETY: as described.
        ask(|error| unsafe { insitu_plan_release(plan, error) }).is_ok();
        answer
    };
    update("a * 10 AS a, b / max(b) AS b", Some("a > 2 and is_not_null(s)"), INSITU_FLAG_IN_PLACE)
        .is_ok();
    let a = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
    let shown = export(table);
    assert_eq!(a(&shown[0]), [0, 1, 2, 3, 40, 5]);
    assert_eq!(shown[0].column(1).as_primitive::<Float64Type>().value(4), 2.0 / 2.5);
    // Somebody looks, so the new values lie elsewhere, and who looks sees what was there.
    update("-a AS a", None, INSITU_FLAG_ATOMIC).is_ok();
    update("a - 1 AS a", None, 0).is_ok();
    assert_eq!(a(&shown[0]), [0, 1, 2, 3, 40, 5]);
    assert_eq!(a(&export(table)[0]), [-1, -2, -3, -4, -41, -6]);

    update("a * 1.5 AS a", None, 0).is(ErrorCode::TypeMismatch, "a");
    update("a AS nobody", None, 0).is(ErrorCode::UnknownColumn, "nobody");
    update("a * 4611686018427387904 AS a", None, INSITU_FLAG_CHECKED).is(ErrorCode::Overflow, "");
    update("a", None, INSITU_FLAG_IN_PLACE | INSITU_FLAG_ATOMIC)
        .is(ErrorCode::InvalidArgument, "atomic");
    update("*", None, 0).is(ErrorCode::InvalidArgument, "one list of columns");
    update("a", None, INSITU_FLAG_READ_ONLY).is(ErrorCode::InvalidArgument, "16");
    release(table);
}

#[test]
fn a_plan_that_does_not_fit_the_table_is_told() {
    let scene = Scene::new();
    let table = scene.put("numbers", 6);
    let mut prepared = InsituPrepared { id: 0 };
    for (select, code, part) in [
        ("aa", ErrorCode::UnknownColumn, "did you mean"),
        ("s * 2", ErrorCode::TypeMismatch, ""),
        ("a, b AS a", ErrorCode::InvalidPlan, ""),
    ] {
        let plan = plan(select, None);
        // SAFETY: as described.
        ask(|error| unsafe { insitu_prepare(table, plan, &raw mut prepared, error) })
            .is(code, part);
        // SAFETY: as described.
        ask(|error| unsafe { insitu_plan_release(plan, error) }).is_ok();
    }
    assert_eq!(prepared.id, 0);
    let mut plan = InsituPlan { id: 0 };
    for (select, part) in [("a +", "ends too early"), ("\u{e4} $", "at position 2")] {
        let select = text(select);
        // SAFETY: as described.
        ask(|error| unsafe {
            insitu_plan_parse(select.as_ptr(), ptr::null(), &raw mut plan, error)
        })
        .is(ErrorCode::InvalidPlan, part);
    }
    release(table);
}

#[test]
fn parameters_are_of_all_kinds() {
    let scene = Scene::new();
    let days = Date32Array::from_iter_values(0..10);
    let times = TimestampMillisecondArray::from_iter_values((0..10).map(|i| i * 1_000));
    let spans = DurationMicrosecondArray::from_iter_values((0..10).map(|i| i * 1_000_000));
    let (bits, whole) = (BooleanArray::from(vec![true; 10]), UInt64Array::from(vec![u64::MAX; 10]));
    let columns: [(&str, ArrayRef); 5] = [
        ("day", Arc::new(days)),
        ("time", Arc::new(times.with_timezone("UTC"))),
        ("span", Arc::new(spans)),
        ("bit", Arc::new(bits)),
        ("whole", Arc::new(whole)),
    ];
    let mut source = stream(vec![RecordBatch::try_from_iter(columns).unwrap()]);
    let (mut table, name, x) = (InsituTable { id: 0 }, text("times"), text("$x"));
    ask(|error| {
        let (name, at, none, out) = (name.as_ptr(), &raw mut source, ptr::null(), &raw mut table);
        // SAFETY: as described.
        unsafe { insitu_table_put(scene.region, name, at, none, out, error) }
    })
    .is_ok();
    let utc = text("UTC");
    let scalar = |r#type, number| InsituScalar { r#type, number, ..integer(0) };
    let whole = |r#type, value| scalar(r#type, InsituNumber { i64: value });
    let time =
        InsituScalar { per_second: 1, text: utc.as_ptr(), ..whole(INSITU_TYPE_TIMESTAMP, 4) };
    let span = InsituScalar { per_second: 1_000, ..whole(INSITU_TYPE_DURATION, 3_000) };
    let count = |filter: &str, value: InsituScalar| {
        let plan = plan("len()", Some(filter));
        let prepared = prepare(table, plan);
        let given = [InsituParam { name: x.as_ptr(), value }];
        let result = run(prepared, InsituTable { id: 0 }, &given);
        // SAFETY: as described.
        ask(|error| unsafe { insitu_prepared_release(prepared, error) }).is_ok();
        // SAFETY: as described.
        ask(|error| unsafe { insitu_plan_release(plan, error) }).is_ok();
        let result = result?;
        // SAFETY: a number.
        let rows = unsafe { self::value(result).number.i64 };
        release(result);
        Ok::<_, Answer>(rows)
    };
    for (filter, value, expected) in [
        ("day >= $x", whole(INSITU_TYPE_DATE, 7), 3),
        ("time < $x", time, 4),
        ("span == $x", span, 1),
        ("bit == $x", whole(INSITU_TYPE_BOOL, 1), 10),
        ("bit == $x", whole(INSITU_TYPE_BOOL, 0), 0),
        ("whole == $x", scalar(INSITU_TYPE_UINT64, InsituNumber { u64: u64::MAX }), 10),
        ("whole * 0.0 < $x", scalar(INSITU_TYPE_FLOAT64, InsituNumber { f64: 5.5 }), 10),
        ("whole == $x", whole(INSITU_TYPE_NULL, 0), 0),
    ] {
        assert_eq!(count(filter, value).unwrap(), expected, "{filter}");
    }
    let odd = InsituScalar { per_second: 60, ..time };
    count("time < $x", odd).unwrap_err().is(ErrorCode::InvalidArgument, "60 units to a second");
    let late = whole(INSITU_TYPE_DATE, i64::MAX);
    count("day >= $x", late).unwrap_err().is(ErrorCode::InvalidArgument, "is no date");
    let nameless = whole(INSITU_TYPE_STRING, 0);
    count("day >= $x", nameless).unwrap_err().is(ErrorCode::InvalidArgument, "is NULL");
    release(table);
}
