//! numexpr's functions: how many arguments they take, and the kind of their results.

/// The kind of a result by that of the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// That of the argument.
    Same,
    /// Float of booleans and floats, else double.
    Float,
    /// Double.
    Double,
    /// Integers stay what they are; else double.
    IntegerOrDouble,
    /// Bool.
    Test,
    /// The common kind of the second and third argument; the first chooses.
    Where,
    /// A reduction.
    Reduction,
    /// Known, but about complex numbers or strings.
    Refused,
}

/// One function.
#[derive(Debug)]
pub(crate) struct Function {
    pub(super) name: &'static str,
    pub(super) arity: usize,
    pub(super) rule: Rule,
}

const fn f(name: &'static str, arity: usize, rule: Rule) -> Function {
    Function { name, arity, rule }
}

/// All of them.
pub(super) const FUNCTIONS: &[Function] = &[
    f("abs", 1, Rule::Float),
    f("arccos", 1, Rule::Float),
    f("arccosh", 1, Rule::Float),
    f("arcsin", 1, Rule::Float),
    f("arcsinh", 1, Rule::Float),
    f("arctan", 1, Rule::Float),
    f("arctan2", 2, Rule::Float),
    f("arctanh", 1, Rule::Float),
    f("ceil", 1, Rule::Float),
    f("complex", 2, Rule::Refused),
    f("conj", 1, Rule::Refused),
    f("contains", 2, Rule::Refused),
    f("copy", 1, Rule::Same),
    f("copysign", 2, Rule::Double),
    f("cos", 1, Rule::Float),
    f("cosh", 1, Rule::Float),
    f("exp", 1, Rule::Float),
    f("expm1", 1, Rule::Float),
    f("floor", 1, Rule::Float),
    f("fmod", 2, Rule::Float),
    f("hypot", 2, Rule::Double),
    f("imag", 1, Rule::Double),
    f("isfinite", 1, Rule::Test),
    f("isinf", 1, Rule::Test),
    f("isnan", 1, Rule::Test),
    f("log", 1, Rule::Float),
    f("log10", 1, Rule::Float),
    f("log1p", 1, Rule::Float),
    f("log2", 1, Rule::Float),
    f("max", 1, Rule::Reduction),
    f("maximum", 2, Rule::Double),
    f("min", 1, Rule::Reduction),
    f("minimum", 2, Rule::Double),
    f("nextafter", 2, Rule::Double),
    f("ones_like", 1, Rule::Same),
    f("prod", 1, Rule::Reduction),
    f("real", 1, Rule::Double),
    f("round", 1, Rule::IntegerOrDouble),
    f("sign", 1, Rule::IntegerOrDouble),
    f("signbit", 1, Rule::Test),
    f("sin", 1, Rule::Float),
    f("sinh", 1, Rule::Float),
    f("sqrt", 1, Rule::Float),
    f("sum", 1, Rule::Reduction),
    f("tan", 1, Rule::Float),
    f("tanh", 1, Rule::Float),
    f("trunc", 1, Rule::Double),
    f("where", 3, Rule::Where),
];

/// The function of that name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}
