//! The one function table. A function that is not in it does not exist: Rust methods, Python
//! methods and stubs, wire names, reference docs and differential tests are generated from it.
//!
//! Each row: `Id method "wire name" (arguments) Kind TypeRule NullRule Failure "documentation"`.
//! The first argument is the receiver of the method; a row without arguments is a free function.
//! After a semicolon come the options: plain values with defaults, `(value; decimals: i64 = 0)`.
//! Further arguments of aggregates are literals.

use std::fmt;

use crate::scalar::Scalar;

/// How a function is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// An operator; its symbol is [`Function::symbol`].
    Operator,
    /// A method, row by row.
    Method,
    /// A method whose result in a row depends on other rows, too, and so on their order. Its Python
    /// method is written by hand.
    Window,
    /// A method whose result in a row is of all rows up to it, or from it on with `reverse`.
    Cumulative,
    /// A free function of any number of expressions, row by row; the row of the table names one
    /// argument for all of them.
    Horizontal,
    /// An aggregate: many rows to one.
    Aggregate,
}

/// How the result's type follows from the arguments'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeRule {
    /// The arguments' common number type; date and time arithmetic.
    Arithmetic,
    /// Float64, or Float32 if both sides are; durations divide to Float64.
    Division,
    /// Bool, from two arguments of a common type.
    Comparison,
    /// Bool from Bool; of integers their common type, bit by bit.
    Logic,
    /// The common integer type.
    Integer,
    /// UInt32 from integers.
    IntegerToCount,
    /// The argument's own number or duration type.
    SameNumber,
    /// The argument's float type; Float64 from integers.
    Float,
    /// The arguments' common type if that is a float, else Float64.
    Floats,
    /// The arguments' common type if that is a float, or an integer and the exponent a literal of
    /// at least 0; else Float64.
    Power,
    /// Bool from any type.
    AnyToBool,
    /// Bool from a number.
    NumberToBool,
    /// The common type of all arguments.
    Common,
    /// Int64 from integers up to 32 bits and booleans; else the argument's own.
    Sum,
    /// Float64 from numbers and booleans.
    Mean,
    /// The argument's own type, if it has an order.
    Ordered,
    /// Int64 from any type.
    Count,
    /// As `Sum`, but not of durations.
    Product,
    /// Bool from booleans.
    AllBool,
    /// The argument's own type, whatever it is.
    Same,
}

/// What a null argument does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NullRule {
    /// Null in, null out.
    Propagate,
    /// As `Propagate`; dividing an integer by zero gives null too.
    PropagateOrZeroDivisor,
    /// Three-valued logic.
    Kleene,
    /// The result is never null.
    Never,
    /// Null only if all arguments are.
    Fill,
    /// Aggregates skip nulls, and nothing gives zero.
    SkipToZero,
    /// Aggregates skip nulls, and nothing gives null.
    SkipToNull,
    /// Aggregates skip nulls, and nothing gives one (true).
    SkipToOne,
    /// Aggregates take nulls as they are, and nothing gives null.
    Take,
}

/// Whether a function can fail on a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Never.
    Never,
    /// `Overflow` for integers when run `checked`; wraps otherwise.
    OverflowWhenChecked,
    /// `Overflow` always, if the result does not fit.
    Overflow,
}

/// One row of the table.
#[derive(Debug)]
pub struct Function {
    /// Its number.
    pub id: FunctionId,
    /// The method's name in Rust and Python.
    pub method: &'static str,
    /// The name on the wire.
    pub name: &'static str,
    /// The arguments' names, the receiver first, options last.
    pub args: &'static [&'static str],
    /// Of the options the Rust type and the default, as written in the table.
    pub options: &'static [(&'static str, &'static str)],
    /// How it is written.
    pub kind: FunctionKind,
    /// How it is typed.
    pub rule: TypeRule,
    /// What nulls do.
    pub nulls: NullRule,
    /// How it can fail.
    pub failure: Failure,
    /// One line of documentation.
    pub doc: &'static str,
}

/// Hands the whole table to a macro: `function_table!(callback)` expands to
/// `callback! { rows }`.
#[macro_export]
macro_rules! function_table {
    ($($callback:tt)+) => {
        $($callback)+! {
            Add add "add" (left, right) Operator Arithmetic Propagate OverflowWhenChecked "The sum; integers wrap.";
            Sub sub "sub" (left, right) Operator Arithmetic Propagate OverflowWhenChecked "The difference; integers wrap; two points in time give a duration.";
            Mul mul "mul" (left, right) Operator Arithmetic Propagate OverflowWhenChecked "The product; integers wrap.";
            Div truediv "div" (left, right) Operator Division Propagate Never "The quotient as a float, also of integers.";
            FloorDiv floordiv "floor_div" (left, right) Operator Arithmetic PropagateOrZeroDivisor OverflowWhenChecked "The quotient rounded down; null where an integer is divided by zero.";
            Mod rem "mod" (left, right) Operator Arithmetic PropagateOrZeroDivisor Never "The remainder, with the divisor's sign; null where an integer is divided by zero.";
            Pow pow "pow" (left, right) Operator Power Propagate OverflowWhenChecked "The power; of an integer and a whole literal >= 0 an integer, which wraps.";
            Neg neg "neg" (value) Operator SameNumber Propagate OverflowWhenChecked "The negated value.";
            Eq eq "eq" (left, right) Operator Comparison Propagate Never "Whether both sides are equal.";
            Ne ne "ne" (left, right) Operator Comparison Propagate Never "Whether the sides differ.";
            Lt lt "lt" (left, right) Operator Comparison Propagate Never "Whether left is less than right.";
            Le le "le" (left, right) Operator Comparison Propagate Never "Whether left is at most right.";
            Gt gt "gt" (left, right) Operator Comparison Propagate Never "Whether left is greater than right.";
            Ge ge "ge" (left, right) Operator Comparison Propagate Never "Whether left is at least right.";
            And and_ "and" (left, right) Operator Logic Kleene Never "Both; false and null is false; of integers bit by bit.";
            Or or_ "or" (left, right) Operator Logic Kleene Never "Either; true or null is true; of integers bit by bit.";
            Xor xor "xor" (left, right) Operator Logic Propagate Never "Exactly one; of integers bit by bit.";
            Not not_ "not" (value) Operator Logic Propagate Never "The opposite; of integers bit by bit.";
            Abs abs "abs" (value) Method SameNumber Propagate OverflowWhenChecked "The absolute value.";
            Sqrt sqrt "sqrt" (value) Method Float Propagate Never "The square root; NaN of negative values.";
            Cbrt cbrt "cbrt" (value) Method Float Propagate Never "The cube root.";
            Hypot hypot "hypot" (left, right) Method Floats Propagate Never "The hypotenuse, sqrt(left**2 + right**2), without overflow on the way.";
            CopySign copysign "copysign" (value, sign) Method Floats Propagate Never "The value with the sign of the other, also that of a zero or a NaN.";
            NextAfter nextafter "nextafter" (value, towards) Method Floats Propagate Never "The nearest other float of its type on the way to the second value; that itself where they are equal.";
            Exp exp "exp" (value) Method Float Propagate Never "The exponential, e to the power of the value.";
            Exp2 exp2 "exp2" (value) Method Float Propagate Never "2 to the power of the value.";
            Expm1 expm1 "expm1" (value) Method Float Propagate Never "The exponential less 1, accurate also near 0.";
            Log log "log" (value) Method Float Propagate Never "The natural logarithm; -inf of 0, NaN of negative values.";
            Log2 log2 "log2" (value) Method Float Propagate Never "The logarithm to base 2; -inf of 0, NaN of negative values.";
            Log10 log10 "log10" (value) Method Float Propagate Never "The logarithm to base 10; -inf of 0, NaN of negative values.";
            Log1p log1p "log1p" (value) Method Float Propagate Never "The natural logarithm of 1 plus the value, accurate also near 0.";
            Sinh sinh "sinh" (value) Method Float Propagate Never "The hyperbolic sine.";
            Cosh cosh "cosh" (value) Method Float Propagate Never "The hyperbolic cosine.";
            Tanh tanh "tanh" (value) Method Float Propagate Never "The hyperbolic tangent.";
            Asinh arcsinh "arcsinh" (value) Method Float Propagate Never "The inverse hyperbolic sine.";
            Acosh arccosh "arccosh" (value) Method Float Propagate Never "The inverse hyperbolic cosine; NaN below 1.";
            Atanh arctanh "arctanh" (value) Method Float Propagate Never "The inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond.";
            Sin sin "sin" (value) Method Float Propagate Never "The sine of an angle in radians; NaN of infinities.";
            Cos cos "cos" (value) Method Float Propagate Never "The cosine of an angle in radians; NaN of infinities.";
            Tan tan "tan" (value) Method Float Propagate Never "The tangent of an angle in radians; NaN of infinities.";
            Asin arcsin "arcsin" (value) Method Float Propagate Never "The inverse sine, in radians from -pi/2 to pi/2; NaN outside -1 to 1.";
            Acos arccos "arccos" (value) Method Float Propagate Never "The inverse cosine, in radians from 0 to pi; NaN outside -1 to 1.";
            Atan arctan "arctan" (value) Method Float Propagate Never "The inverse tangent, in radians from -pi/2 to pi/2.";
            Atan2 arctan2 "arctan2" (y, x) Method Floats Propagate Never "The angle of the point (x, y), in radians from -pi to pi.";
            Degrees degrees "degrees" (value) Method Float Propagate Never "An angle in radians, in degrees.";
            Radians radians "radians" (value) Method Float Propagate Never "An angle in degrees, in radians.";
            Floor floor "floor" (value) Method SameNumber Propagate Never "Rounded down to a whole number.";
            Ceil ceil "ceil" (value) Method SameNumber Propagate Never "Rounded up to a whole number.";
            Trunc trunc "trunc" (value) Method SameNumber Propagate Never "Rounded towards zero to a whole number.";
            Round round "round" (value; decimals: i64 = 0) Method SameNumber Propagate OverflowWhenChecked "As numpy.round: halves to even, negative decimals round to tens (Polars: an error).";
            Sign sign "sign" (value) Method SameNumber Propagate Never "-1, 0 or 1 in the value's type; zeros keep their sign, NaN stays NaN.";
            IsNull is_null "is_null" (value) Method AnyToBool Never Never "Whether the value is null.";
            IsNotNull is_not_null "is_not_null" (value) Method AnyToBool Never Never "Whether the value is not null.";
            IsNan is_nan "is_nan" (value) Method NumberToBool Propagate Never "Whether the value is NaN.";
            IsNotNan is_not_nan "is_not_nan" (value) Method NumberToBool Propagate Never "Whether the value is not NaN.";
            IsFinite is_finite "is_finite" (value) Method NumberToBool Propagate Never "Whether the value is neither NaN nor infinite.";
            IsInfinite is_infinite "is_infinite" (value) Method NumberToBool Propagate Never "Whether the value is infinite.";
            EqMissing eq_missing "eq_missing" (left, right) Method Comparison Never Never "Whether both sides are equal, or both null.";
            NeMissing ne_missing "ne_missing" (left, right) Method Comparison Never Never "Whether the sides differ, null only from what is not null.";
            FillNull fill_null "fill_null" (value, replacement) Method Common Fill Never "The value, or the replacement where it is null.";
            FillNan fill_nan "fill_nan" (value, replacement) Method Common Propagate Never "The value, or the replacement where it is NaN; integers stay as they are.";
            IsBetween is_between "is_between" (value, lower, upper) Method Comparison Kleene Never "Whether lower <= value <= upper.";
            Clip clip "clip" (value, lower, upper) Method Common Propagate Never "The value, but at least lower and at most upper; NaN stays NaN.";
            ShiftLeft lshift "shift_left" (left, right) Operator Integer Propagate Never "The bits moved up; 0 for counts that are negative or not below the width.";
            ShiftRight rshift "shift_right" (left, right) Operator Integer Propagate Never "The bits moved down, the sign kept also by counts negative or not below the width.";
            CountOnes bitwise_count_ones "bitwise_count_ones" (value) Method IntegerToCount Propagate Never "How many bits are set.";
            CountZeros bitwise_count_zeros "bitwise_count_zeros" (value) Method IntegerToCount Propagate Never "How many bits are not set.";
            LeadingOnes bitwise_leading_ones "bitwise_leading_ones" (value) Method IntegerToCount Propagate Never "How many bits are set above the highest that is not.";
            LeadingZeros bitwise_leading_zeros "bitwise_leading_zeros" (value) Method IntegerToCount Propagate Never "How many bits are not set above the highest that is.";
            TrailingOnes bitwise_trailing_ones "bitwise_trailing_ones" (value) Method IntegerToCount Propagate Never "How many bits are set below the lowest that is not.";
            TrailingZeros bitwise_trailing_zeros "bitwise_trailing_zeros" (value) Method IntegerToCount Propagate Never "How many bits are not set below the lowest that is.";
            Shift shift "shift" (value, fill_value; n: i64 = 1) Window Common Propagate Never "The value so many rows before, or after if n is negative; else fill_value.";
            Diff diff "diff" (value; n: i64 = 1) Window Arithmetic Propagate OverflowWhenChecked "The value minus that so many rows before, by the rules of -; null where there is no such row.";
            PctChange pct_change "pct_change" (value; n: i64 = 1) Window Division Propagate Never "The value divided by that so many rows before, less 1, as a float; null where there is no such row.";
            CumSum cum_sum "cum_sum" (value; reverse: bool = false) Cumulative Sum Propagate Overflow "The sum of the values up to each row, or from it on if reverse; nulls stay null and are left out.";
            CumProd cum_prod "cum_prod" (value; reverse: bool = false) Cumulative Product Propagate Overflow "The product of the values up to each row, or from it on if reverse; nulls stay null and are left out.";
            CumMin cum_min "cum_min" (value; reverse: bool = false) Cumulative Ordered Propagate Never "The smallest value up to each row, or from it on if reverse, NaN and null left out; nulls stay null, and NaN where there is no number yet.";
            CumMax cum_max "cum_max" (value; reverse: bool = false) Cumulative Ordered Propagate Never "The largest value up to each row, or from it on if reverse, NaN and null left out; nulls stay null, and NaN where there is no number yet.";
            CumCount cum_count "cum_count" (value; reverse: bool = false) Cumulative Count Never Never "The number of values up to each row, or from it on if reverse, that are not null.";
            Coalesce coalesce "coalesce" (exprs) Horizontal Common Fill Never "The first value in each row that is not null; a string names a column.";
            MinHorizontal min_horizontal "min_horizontal" (exprs) Horizontal Ordered SkipToNull Never "The smallest value in each row, NaN and null left out; a string names a column.";
            MaxHorizontal max_horizontal "max_horizontal" (exprs) Horizontal Ordered SkipToNull Never "The largest value in each row, NaN and null left out; a string names a column.";
            SumHorizontal sum_horizontal "sum_horizontal" (exprs) Horizontal Arithmetic SkipToZero OverflowWhenChecked "The sum of each row's values that are not null, in the type that + gives; 0 of none.";
            MeanHorizontal mean_horizontal "mean_horizontal" (exprs) Horizontal Float SkipToNull Never "The mean of each row's values that are not null; null of none.";
            AllHorizontal all_horizontal "all_horizontal" (exprs) Horizontal Logic Kleene Never "Whether all values in a row are true; null if one is null and none is false.";
            AnyHorizontal any_horizontal "any_horizontal" (exprs) Horizontal Logic Kleene Never "Whether any value in a row is true; null if one is null and none is true.";
            Sum sum "sum" (value) Aggregate Sum SkipToZero Overflow "The sum of the values that are not null; 0 of nothing.";
            Mean mean "mean" (value) Aggregate Mean SkipToNull Never "The arithmetic mean of the values that are not null; null of nothing.";
            Min min "min" (value) Aggregate Ordered SkipToNull Never "The smallest value, NaN and null left out; null of nothing.";
            Max max "max" (value) Aggregate Ordered SkipToNull Never "The largest value, NaN and null left out; null of nothing.";
            Count count "count" (value) Aggregate Count SkipToZero Never "The number of values that are not null.";
            Product product "product" (value) Aggregate Product SkipToOne Overflow "The product of the values that are not null; 1 of nothing.";
            Var var "var" (value; ddof: i64 = 1) Aggregate Mean SkipToNull Never "The variance of the values that are not null: their squared deviations from the mean by their number less ddof; null of ddof values or fewer.";
            Std std "std" (value; ddof: i64 = 1) Aggregate Mean SkipToNull Never "The standard deviation, the square root of the variance; null of ddof values or fewer.";
            Any any "any" (value) Aggregate AllBool SkipToZero Never "Whether any value is true, null left out; false of nothing.";
            All all "all" (value) Aggregate AllBool SkipToOne Never "Whether all values are true, null left out; true of nothing.";
            First first "first" (value) Aggregate Same Take Never "The value in the first row, null if that is null; null of nothing.";
            Last last "last" (value) Aggregate Same Take Never "The value in the last row, null if that is null; null of nothing.";
            ArgMin arg_min "arg_min" (value) Aggregate Count SkipToNull Never "The row of the smallest value, from 0, the first of equal ones; NaN and null are rows too, but never it; null of nothing.";
            ArgMax arg_max "arg_max" (value) Aggregate Count SkipToNull Never "The row of the largest value, from 0, the first of equal ones; NaN and null are rows too, but never it; null of nothing.";
            NUnique n_unique "n_unique" (value) Aggregate Count Take Never "The number of different values; null is one, and NaN is one.";
            Median median "median" (value) Aggregate Mean SkipToNull Never "The middle value, or the mean of the two in the middle, null left out, NaN the largest; null of nothing.";
            Quantile quantile "quantile" (value, q; interpolation: Text = "linear") Aggregate Mean SkipToNull Never "The value at the share q (0 to 1) of the sorted ones, null left out, NaN the largest; between two values by interpolation: linear, nearest, lower, higher or midpoint; null of nothing.";
            Len len "len" () Aggregate Count SkipToZero Never "The number of rows.";
        }
    };
}

/// The names of a row's arguments, and its options.
macro_rules! arguments {
    (($($arg:ident),* $(; $($option:ident : $t:ident = $default:tt),+)?)) => {
        &[$(stringify!($arg),)* $($(stringify!($option),)+)?]
    };
}

macro_rules! options {
    (($($arg:ident),* $(; $($option:ident : $t:ident = $default:tt),+)?)) => {
        &[$($((stringify!($t), stringify!($default)),)+)?]
    };
}

macro_rules! table {
    ($($id:ident $method:ident $name:literal $args:tt $kind:ident $rule:ident $nulls:ident $failure:ident $doc:literal;)*) => {
        /// The functions, by number. The order is that of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FunctionId {
            $(#[doc = $doc] $id,)*
        }

        impl FunctionId {
            /// The function's row in the table.
            pub fn function(self) -> &'static Function {
                match self {
                    $(FunctionId::$id => {
                        const ROW: &Function = &FUNCTIONS[FunctionId::$id as usize];
                        ROW
                    })*
                }
            }
        }

        const FUNCTIONS: &[Function] = &[
            $(Function {
                id: FunctionId::$id,
                method: stringify!($method),
                name: $name,
                args: arguments!($args),
                options: options!($args),
                kind: FunctionKind::$kind,
                rule: TypeRule::$rule,
                nulls: NullRule::$nulls,
                failure: Failure::$failure,
                doc: $doc,
            },)*
        ];
    };
}

function_table!(table);

/// All functions, in the table's order.
pub fn functions() -> &'static [Function] {
    FUNCTIONS
}

impl Function {
    /// The function of that wire name.
    pub fn by_name(name: &str) -> Option<&'static Function> {
        FUNCTIONS.iter().find(|f| f.name == name)
    }

    /// The number of arguments; of a horizontal function the least.
    pub fn arity(&self) -> usize {
        self.args.len()
    }

    /// The defaults of its options.
    pub fn defaults(&self) -> Vec<Scalar> {
        let value = |(kind, text): &(&str, &str)| match *kind {
            "i64" => text.parse().map_or(Scalar::Null, Scalar::Int),
            "f64" => text.parse().map_or(Scalar::Null, Scalar::Float),
            "Text" => Scalar::Str(text.trim_matches('"').into()),
            _ => text.parse().map_or(Scalar::Null, Scalar::Bool),
        };
        self.options.iter().map(value).collect()
    }

    /// Whether it takes so many arguments.
    pub fn takes(&self, arguments: usize) -> bool {
        match self.kind {
            FunctionKind::Horizontal => arguments >= self.arity(),
            _ => arguments == self.arity(),
        }
    }

    /// The operator's symbol in Python and Rust expressions, for operators.
    pub fn symbol(&self) -> Option<&'static str> {
        use FunctionId::*;
        Some(match self.id {
            Add => "+",
            Sub | Neg => "-",
            Mul => "*",
            Div => "/",
            FloorDiv => "//",
            Mod => "%",
            Pow => "**",
            Eq => "==",
            Ne => "!=",
            Lt => "<",
            Le => "<=",
            Gt => ">",
            Ge => ">=",
            And => "&",
            Or => "|",
            Xor => "^",
            ShiftLeft => "<<",
            ShiftRight => ">>",
            Not => "~",
            _ => return None,
        })
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.args.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_find_their_own_rows() {
        for f in functions() {
            assert_eq!(f.id.function().name, f.name);
            assert_eq!(Function::by_name(f.name).unwrap().id, f.id);
        }
    }

    #[test]
    fn names_are_unique() {
        for (i, f) in functions().iter().enumerate() {
            for g in functions().iter().skip(i + 1) {
                assert_ne!(f.name, g.name);
                assert_ne!(f.method, g.method);
            }
        }
    }

    #[test]
    fn options_have_defaults() {
        for f in functions() {
            assert!(f.options.len() < f.args.len().max(1), "{f}");
            assert!(!f.defaults().contains(&Scalar::Null), "{f}");
        }
        assert_eq!(Function::by_name("round").unwrap().defaults(), [Scalar::Int(0)]);
        assert_eq!(Function::by_name("cum_sum").unwrap().defaults(), [Scalar::Bool(false)]);
    }

    #[test]
    fn operators_and_only_operators_have_symbols() {
        for f in functions() {
            assert_eq!(f.symbol().is_some(), f.kind == FunctionKind::Operator, "{f}");
        }
    }
}
