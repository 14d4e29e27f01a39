use super::*;
use proptest::prelude::*;

fn operand(dtype: DataType) -> Operand {
    Operand { dtype, boolean: false, scalar: false }
}

/// The kind of a formula over a double x, a float f, an int i, a long l and a bool b.
fn kind(text: &str) -> Result<Kind> {
    let formula = Formula::parse(text, false)?;
    let operands: Vec<Operand> = formula
        .names()
        .iter()
        .map(|name| match &**name {
            "f" => operand(DataType::Float32),
            "i" => operand(DataType::UInt8),
            "l" => operand(DataType::Int64),
            "b" => Operand { boolean: true, ..operand(DataType::UInt8) },
            _ => operand(DataType::Float64),
        })
        .collect();
    Ok(match formula.lower(&operands)? {
        Lowered::Constant(_, kind) | Lowered::Rows(_, kind) => kind,
    })
}

#[test]
fn kinds_are_those_of_numexpr() {
    use Kind::*;
    for (text, expected) in [
        ("i+i", Int),
        ("i+l", Long),
        ("f+i", Float),
        ("f+l", Float),
        ("f*2", Float),
        ("f*2.0", Double),
        ("i/2", Double),
        ("f/2", Float),
        ("i//2", Int),
        ("i**2.0", Int),
        ("i**0.5", Double),
        ("b+b", Bool),
        ("b*i", Int),
        ("i + 3000000000", Long),
        ("2**40", Long),
        ("abs(-3)*i", Long),
        ("abs(i)", Double),
        ("sin(b)", Float),
        ("sign(i)", Int),
        ("round(f)", Double),
        ("floor(f)", Float),
        ("hypot(f, f)", Double),
        ("isnan(i)", Bool),
        ("where(b, i, f)", Float),
        ("where(b, 1, 2)", Int),
        ("i > 1", Bool),
        ("x.real", Double),
        ("1 < 2", Bool),
        ("-True", Int),
        ("sum(i)", Int),
    ] {
        assert_eq!(kind(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn operands_of_branches_never_taken_are_not_asked_for() {
    for (text, names) in [
        ("where(1 < 2, a, c) + b", vec!["a", "b"]),
        ("where(False, where(a > 1, b, c), d)", vec!["d"]),
        ("where(a > 1, b, a)", vec!["a", "b"]),
        ("where(True, 1, a)", vec![]),
        ("a**0 + b", vec!["a", "b"]),
    ] {
        let formula = Formula::parse(text, false).unwrap();
        let found: Vec<&str> = formula.names().iter().map(|name| &**name).collect();
        assert_eq!(found, names, "{text}");
        assert!(kind(text).is_ok(), "{text}");
    }
}

#[test]
fn what_does_not_apply_is_a_type_mismatch() {
    for text in
        ["-b", "b-b", "~f", "f & 1", "i << b << f", "where(i, i, i)", "sum(b)", "ones_like(b)"]
    {
        assert!(matches!(kind(text), Err(Error::TypeMismatch(_))), "{text}");
    }
}

#[test]
fn errors_say_where_and_what() {
    for (text, position, word) in [
        ("a +", 3, "ends too early"),
        ("a + * b", 4, "\"*\""),
        ("(a + b", 0, "never closed"),
        ("a b", 2, "\"b\""),
        ("sqrtt(a)", 0, "\"sqrt\""),
        ("a and b", 2, "\"&\""),
        ("1 < a < 2", 6, "in a row"),
        ("sum(a) + 1", 0, "whole formula"),
        ("a[0]", 1, "select elements"),
        ("ä.T", 2, ".real"),
        ("a = 3", 2, "\"==\""),
        ("sqrt(a, a)", 0, "1 arguments"),
        ("sum(a, axis=-1)", 12, "axis"),
        ("sum", 0, "function"),
        ("012", 0, "number"),
        ("", 0, "empty"),
    ] {
        let Err(Error::InvalidPlan(message)) = kind(text) else { panic!("{text}") };
        assert!(message.contains(&format!("position {position} ")), "{text}: {message}");
        assert!(message.contains(word), "{text}: {message}");
    }
    for text in ["2j*a", "'a' == a", "contains(a, b)", "conj(a)"] {
        assert!(matches!(kind(text), Err(Error::Unsupported(_))), "{text}");
    }
}

#[test]
fn what_is_too_deep_or_too_large_is_refused() {
    let deep = "(".repeat(100_000) + "a" + &")".repeat(100_000);
    let signs = "-".repeat(100_000) + "a";
    let long = vec!["a"; 100_000].join("+");
    let wide = vec!["a"; 600].join("+");
    let power = "a**50".to_owned() + &"**50".repeat(150);
    let towers = "(".repeat(10) + "a" + &"**50)".repeat(10);
    for text in [deep, signs, long, wide, power, towers] {
        let result = kind(&text);
        assert!(matches!(result, Err(Error::LimitExceeded(_))), "{:.40}: {result:?}", text);
    }
    assert!(kind(&"9".repeat(50)).is_err());
    assert!(kind("1 << 99999999999").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_it_panic(text in ".{0,60}") {
        let _ = kind(&text);
    }

    #[test]
    fn no_sequence_of_pieces_makes_it_panic(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "f", "i", "l", "x", "1", "2.5", "0", "-", "+", "*", "/", "//", "%", "**", "<<",
            ">>", "&", "|", "^", "~", "<", "<=", "==", "(", ")", ",", "sin(", "where(", "sum(",
            "axis=", "fmod(", "1e400", "2147483648", "True", ".real", " ", "maximum(",
        ]), 0..14)
    ) {
        let _ = kind(&pieces.concat());
    }
}

#[test]
fn constants_beyond_128_bits_are_refused() {
    for text in ["-(abs(1) * (-(2**126) * 2))", "-(-(2**126) * 2)", "2**127", "abs(-(2**126) * 2)"]
    {
        assert!(matches!(kind(text), Err(Error::LimitExceeded(_))), "{text}");
    }
}
