//! Plans survive the wire; whatever comes over it gives a plan or a typed error.

use insitu_query::{FunctionKind, functions};
use proptest::prelude::*;

use super::*;

fn scalar() -> impl Strategy<Value = Scalar> {
    let unit = || {
        prop_oneof![
            Just(TimeUnit::Second),
            Just(TimeUnit::Millisecond),
            Just(TimeUnit::Microsecond),
            Just(TimeUnit::Nanosecond)
        ]
    };
    prop_oneof![
        Just(Scalar::Null),
        any::<bool>().prop_map(Scalar::Bool),
        any::<i64>().prop_map(Scalar::Int),
        any::<u64>().prop_map(Scalar::UInt),
        any::<u64>().prop_map(|bits| Scalar::Float(f64::from_bits(bits))),
        ".{0,9}".prop_map(Scalar::from),
        any::<i32>().prop_map(Scalar::Date32),
        (any::<i64>(), unit(), proptest::option::of("[A-Z]{0,3}")).prop_map(|(value, unit, tz)| {
            Scalar::Timestamp { value, unit, tz: tz.map(Arc::from) }
        }),
        (any::<i64>(), unit()).prop_map(|(value, unit)| Scalar::Duration { value, unit }),
    ]
}

fn dtype() -> impl Strategy<Value = DataType> {
    prop_oneof![
        Just(DataType::Bool),
        Just(DataType::Int8),
        Just(DataType::UInt64),
        Just(DataType::Float32),
        Just(DataType::Utf8View),
        Just(DataType::Time32(TimeUnit::Second)),
        Just(DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
        Just(DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        ".{0,5}".prop_map(Expr::column),
        "[a-z]{1,3}".prop_map(Expr::param),
        scalar().prop_map(Expr::literal),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        prop_oneof![
            (any::<prop::sample::Index>(), prop::collection::vec(inner.clone(), 3)).prop_map(
                |(which, args)| {
                    let all: Vec<_> = functions().iter().collect();
                    let function = which.get(&all);
                    let args = args.into_iter().take(function.args.len()).collect();
                    Expr::call(function.name, args).unwrap()
                }
            ),
            (inner.clone(), dtype(), any::<bool>()).prop_map(|(e, d, s)| e.cast(d, s)),
            (inner.clone(), ".{0,4}").prop_map(|(e, name)| e.alias(name)),
            (inner.clone(), prop::collection::vec(scalar(), 0..4)).prop_map(|(e, v)| e.is_in(v)),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| Expr::when(a, b, c)),
        ]
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let exprs = || prop::collection::vec(expr(), 0..4);
    let step = prop_oneof![
        exprs().prop_map(|predicates| Plan::Filter { input: Arc::new(Plan::Scan), predicates }),
        exprs().prop_map(|exprs| Plan::Select { input: Arc::new(Plan::Scan), exprs }),
        exprs().prop_map(|exprs| Plan::WithColumns { input: Arc::new(Plan::Scan), exprs }),
        (exprs(), exprs()).prop_map(|(keys, aggs)| Plan::Aggregate {
            input: Arc::new(Plan::Scan),
            keys,
            aggs
        }),
        (exprs(), prop::collection::vec(any::<bool>(), 0..3), any::<bool>()).prop_map(
            |(keys, descending, nulls_last)| Plan::Sort {
                input: Arc::new(Plan::Scan),
                keys,
                descending,
                nulls_last
            }
        ),
        (any::<i64>(), any::<Option<u64>>()).prop_map(|(offset, len)| Plan::Slice {
            input: Arc::new(Plan::Scan),
            offset,
            len
        }),
    ];
    prop::collection::vec(step, 0..5).prop_map(|steps| {
        steps.into_iter().fold(Plan::Scan, |below, mut step| {
            match &mut step {
                Plan::Scan => {}
                Plan::Filter { input, .. }
                | Plan::Select { input, .. }
                | Plan::WithColumns { input, .. }
                | Plan::Aggregate { input, .. }
                | Plan::Sort { input, .. }
                | Plan::Slice { input, .. } => *input = Arc::new(below),
            }
            step
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_plan_comes_back_as_it_went(plan in plan()) {
        let decoded = decode(&encode(&plan).unwrap()).unwrap();
        prop_assert_eq!(format!("{:?}", &decoded), format!("{:?}", &plan));
        // What prints alike may differ in bits; the messages say.
        prop_assert_eq!(encode(&decoded).unwrap(), encode(&plan).unwrap());
    }

    #[test]
    fn damaged_messages_never_panic(plan in plan(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = encode(&plan).unwrap();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode(&bytes);
            let cut = cut.index(bytes.len());
            let _ = decode(&bytes[..cut]);
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
    }
}

fn message(exprs: Vec<v1::expr::Kind>, select: Vec<u32>) -> Vec<u8> {
    let exprs = exprs.into_iter().map(|kind| v1::Expr { kind: Some(kind) }).collect();
    let kind = Some(v1::step::Kind::Select(v1::Select { exprs: select }));
    v1::Plan { exprs, steps: vec![v1::Step { kind }] }.encode_to_vec()
}

#[test]
fn references_forward_to_itself_and_out_of_range_are_refused() {
    use v1::expr::Kind;
    let alias = |input| Kind::Alias(v1::Alias { input, name: "x".into() });
    for (exprs, select) in [
        (vec![alias(0)], vec![0]),
        (vec![alias(1), Kind::Column("a".into())], vec![0]),
        (vec![Kind::Column("a".into())], vec![1]),
        (vec![], vec![u32::MAX]),
    ] {
        assert!(matches!(decode(&message(exprs, select)), Err(Error::InvalidPlan(_))));
    }
}

#[test]
fn a_small_message_of_a_huge_expression_is_refused() {
    use v1::expr::Kind;
    // Each node adds the one before to itself: 2^200 nodes, were they written out.
    let mut exprs = vec![Kind::Column("a".into())];
    for at in 0..200 {
        exprs.push(Kind::Call(v1::Call { name: "add".into(), args: vec![at, at] }));
    }
    assert!(matches!(decode(&message(exprs, vec![200])), Err(Error::LimitExceeded(_))));
}

#[test]
fn a_deep_expression_is_refused_and_the_deepest_allowed_is_not() {
    use v1::expr::Kind;
    let nest = |depth: u32| {
        let mut exprs = vec![Kind::Column("a".into())];
        for at in 0..depth - 1 {
            exprs.push(Kind::Alias(v1::Alias { input: at, name: "x".into() }));
        }
        message(exprs, vec![depth - 1])
    };
    let deepest = decode(&nest(insitu_query::MAX_DEPTH)).unwrap();
    assert!(encode(&deepest).is_ok());
    assert!(matches!(decode(&nest(insitu_query::MAX_DEPTH + 1)), Err(Error::LimitExceeded(_))));
}

#[test]
fn unknown_functions_and_empty_nodes_are_refused() {
    use v1::expr::Kind;
    let call = Kind::Call(v1::Call { name: "launch".into(), args: vec![] });
    assert!(matches!(decode(&message(vec![call], vec![0])), Err(Error::InvalidArgument(_))));
    let empty = v1::Plan { exprs: vec![v1::Expr { kind: None }], steps: vec![] };
    assert!(matches!(decode(&empty.encode_to_vec()), Err(Error::InvalidPlan(_))));
    let empty = v1::Plan { exprs: vec![], steps: vec![v1::Step { kind: None }] };
    assert!(matches!(decode(&empty.encode_to_vec()), Err(Error::InvalidPlan(_))));
}

#[test]
fn every_function_of_the_table_travels_by_its_name() {
    for function in functions() {
        let args = function.args.iter().map(|name| Expr::column(*name)).collect();
        let expr = Expr::call(function.name, args).unwrap();
        assert_eq!(expr.has_aggregate(), function.kind == FunctionKind::Aggregate);
        let plan = Plan::Select { input: Arc::new(Plan::Scan), exprs: vec![expr] };
        let decoded = decode(&encode(&plan).unwrap()).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{plan:?}"));
    }
}
