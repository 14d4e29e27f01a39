"""Formulas as numexpr's users know them: the examples of its documentation, its errors beside ours,
signs of zeros and NaN, computing again, Ctrl-C."""

from __future__ import annotations

from typing import Any

import insitu as ins
import numexpr as ne
import numpy as np
import pytest


def alike(mine: np.ndarray, theirs: np.ndarray) -> None:
    assert type(mine) is np.ndarray
    assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
    if mine.dtype.kind == "f":
        np.testing.assert_array_max_ulp(mine, theirs, 4)
    else:
        np.testing.assert_array_equal(mine, theirs)


# Of its documentation


@pytest.mark.parametrize(
    "ex",
    [
        "2*a + 3*b",
        "a + 1",
        "a*b - 4.1*a > 2.5*b",
        "sin(a) + arcsinh(a/b)",
        "a**2 + b**2 + 2*a*b",
        "a**2 + b**2 <= 25",
        ".25*x**3 + .75*x**2 - 1.5*x - 2",
        "sin(x)**2 + cos(x)**2",
        "where(x > 0, x, -x)",
        "sum(a)",
        "sum(a*b)",
        "prod(b)",
        "sum(m, axis=0)",
        "prod(m, axis=1)",
        "sum(m, 1)",
        "abs(x).real",
        "real(x)",
        "f * 2.0",
        "f * k",
        "sin(small)",
        "small * small",
        "u32 + u32",
        "~(b > 4) & (a != 3) | (b <= 4) ^ True",
        "a << 2 >> 1",
        "-a % 3",
    ],
)
def test_the_examples_of_its_documentation(ex: str) -> None:
    operands = {
        "a": np.arange(1, 11),
        "b": np.arange(2, 22, 2),
        "x": np.linspace(-1, 1, 1000),
        "m": np.arange(1.0, 13).reshape(3, 4),
        "f": np.linspace(0, 1, 7, dtype="float32"),
        "k": np.float32(2),
        "small": np.arange(5, dtype="int8"),
        "u32": np.arange(5, dtype="uint32") + 2**31,
    }
    alike(ins.evaluate(ex, operands), ne.evaluate(ex, operands))
    assert ins.validate(ex, operands) is None


def test_the_guide_from_its_first_line_on() -> None:
    a = np.arange(10)
    b = np.arange(0, 20, 2)
    c = ins.evaluate("2*a + 3*b")
    assert c.tolist() == [0, 8, 16, 24, 32, 40, 48, 56, 64, 72]
    assert ins.validate("2*a + 3*b") is None
    b = np.arange(0, 40, 4)
    assert ins.re_evaluate().tolist() == (2 * a + 3 * b).tolist()
    before = ins.set_num_threads(1)
    assert ins.set_num_threads(before) == 1


@pytest.mark.parametrize(
    "ex",
    ["b'abba' == s", "contains(s, b'bb')", "z + 1j", "complex(a, a)", "conj(a)", "abs(z).real"],
)
def test_strings_and_complex_numbers_are_refused(ex: str) -> None:
    s = np.array([b"abba", b"abbb", b"abbcdef"])
    operands = {"s": s, "z": np.arange(3) * 1j, "a": np.arange(3.0)}
    ne.evaluate(ex, operands)
    with pytest.raises(ins.Unsupported, match=r"complex|string"):
        ins.evaluate(ex, operands)
    assert isinstance(ins.validate(ex, operands), NotImplementedError)


# Errors


@pytest.mark.parametrize(
    ("ex", "theirs", "mine"),
    [
        ("a +", SyntaxError, ins.InvalidPlan),
        ("(a", SyntaxError, ins.InvalidPlan),
        ("a b", SyntaxError, ins.InvalidPlan),
        ("", SyntaxError, ins.InvalidPlan),
        ("a and a", TypeError, ins.InvalidPlan),
        ("a < a < a", TypeError, ins.InvalidPlan),
        ("a if a else a", TypeError, ins.InvalidPlan),
        ("sqr(a)", TypeError, ins.InvalidPlan),
        ("sqrt()", TypeError, ins.InvalidPlan),
        ("a[0]", ValueError, ins.InvalidPlan),
        ("a; a", ValueError, ins.InvalidPlan),
        ("a.__class__", ValueError, ins.InvalidPlan),
        ("lambda: 1", ValueError, ins.InvalidPlan),
        ("sum(a) + 1", RuntimeError, ins.InvalidPlan),
        ("sum(sum(a))", RuntimeError, ins.InvalidPlan),
        ("~a", NotImplementedError, ins.TypeMismatch),
        ("a & 1", NotImplementedError, ins.TypeMismatch),
        ("t - t", NotImplementedError, ins.TypeMismatch),
        ("sum(t)", NotImplementedError, ins.TypeMismatch),
        ("where(a, a, a)", NotImplementedError, ins.TypeMismatch),
        ("1 / 0", ZeroDivisionError, ins.InvalidArgument),
        ("1.5 % 0 + a", ZeroDivisionError, ins.InvalidArgument),
        ("2**63", OverflowError, ins.LimitExceeded),
        ("nobody", KeyError, ins.UnknownColumn),
        ("i ** -1", ValueError, ins.InvalidArgument),
        ("o + 1", ValueError, ins.Unsupported),
        ("u == u", ValueError, ins.Unsupported),
        ("d + 1", ValueError, ins.Unsupported),
        ("a + two", ValueError, ValueError),
    ],
)
def test_errors_are_those_that_the_docstring_names(
    ex: str, theirs: type[Exception], mine: type[Exception]
) -> None:
    operands = {
        "a": np.arange(3.0),
        "i": np.arange(1, 4),
        "t": np.array([True, False, True]),
        "o": np.array([None, 1, 2]),
        "u": np.array(["x", "y", "z"]),
        "d": np.arange(3).astype("datetime64[s]"),
        "two": np.arange(2.0),
    }
    with pytest.raises(theirs):
        ne.evaluate(ex, operands, {})
    with pytest.raises(mine):
        ins.evaluate(ex, operands, {})
    if ex != "a + two":
        assert isinstance(ne.validate(ex, operands, {}), theirs)
        assert isinstance(ins.validate(ex, operands, {}), mine)


@pytest.mark.parametrize("ex", [None, 1, b"a", ["a"]])
def test_a_formula_is_text(ex: Any) -> None:
    with pytest.raises(ins.TypeMismatch, match="a formula is a str"):
        ins.evaluate(ex)
    assert isinstance(ins.validate(ex), ins.TypeMismatch)


def test_shapes_without_elements_are_those_of_numpy() -> None:
    operands = {"e": np.empty((0, 3)), "t": np.empty((3, 0)), "a": np.arange(3.0)}
    for ex in ("e + 1", "e * a", "sum(e)", "sum(e, axis=0)", "sum(e, axis=1)", "prod(t, axis=1)"):
        names = {k: v for k, v in operands.items() if k in ex}
        numpy = ex.replace("sum(", "np.sum(").replace("prod(", "np.prod(")
        alike(ins.evaluate(ex, operands), np.asarray(eval(numpy, {"np": np}, names)))
    for ex in ("t + a", "e + t"):
        with pytest.raises(ValueError, match="broadcast"):
            ins.evaluate(ex, operands)
        assert ne.evaluate(ex, operands).size == 0


def test_an_order_of_none_is_as_they_lie() -> None:
    a = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    operands = {"a": a}
    mine = ins.evaluate("a + 1", operands, order=None)
    theirs = ne.evaluate("a + 1", operands, order=None)
    alike(mine, theirs)
    assert mine.strides == theirs.strides


# Signs, and the next number


ODD = [0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-310, np.inf, -np.inf, 1.7976931348623157e308]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ex", ["sign(a)", "signbit(a)", "copysign(a, b)", "copysign(b, a)"])
def test_signs_also_of_zeros_and_nan(ex: str, dtype: str) -> None:
    nan = np.array([np.nan, np.copysign(np.nan, -1)])
    with np.errstate(over="ignore"):
        values = np.concatenate([np.array(ODD), nan]).astype(dtype)
    operands = dict(zip("ab", map(np.ravel, np.meshgrid(values, values)), strict=True))
    mine, theirs = ins.evaluate(ex, operands), ne.evaluate(ex, operands)
    np.testing.assert_array_equal(mine, theirs, strict=True)
    if ex != "sign(a)":
        np.testing.assert_array_equal(np.signbit(mine), np.signbit(theirs))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_next_float(region: ins.Region, dtype: str) -> None:
    tiny = float(np.finfo(dtype).smallest_subnormal)
    more = [-1.7976931348623157e308, np.nan, 3e38, 1.1754943508222875e-38, tiny, -tiny]
    with np.errstate(over="ignore"):
        values = np.array([*ODD, *more]).astype(dtype)
    a, b = (m.ravel() for m in np.meshgrid(values, values))
    mine, theirs = ins.evaluate("nextafter(a, b)"), ne.evaluate("nextafter(a, b)")
    np.testing.assert_array_equal(mine, theirs, strict=True)
    np.testing.assert_array_equal(np.signbit(mine[mine == 0]), np.signbit(theirs[theirs == 0]))
    t = region.put("t", {"a": a, "b": b})
    x, y = ins.col("a"), ins.col("b")
    got = t.select(n=np.nextafter(x, y), s=np.copysign(x, y)).to_numpy()
    with np.errstate(all="ignore"):
        expected = np.nextafter(a, b)
    np.testing.assert_array_equal(got["n"], expected, strict=True)
    zeros = expected == 0
    np.testing.assert_array_equal(np.signbit(got["n"])[zeros], np.signbit(expected)[zeros])
    np.testing.assert_array_equal(got["s"], np.copysign(a, b), strict=True)
    np.testing.assert_array_equal(np.signbit(got["s"]), np.signbit(b))


def test_the_next_float_of_constants() -> None:
    for ex in ("nextafter(1, 2)", "nextafter(1.5, -2)", "nextafter(0, -1)", "nextafter(2.0, 2)"):
        alike(ins.evaluate(ex), ne.evaluate(ex))


# Again


def test_operands_by_keyword_are_computed_again() -> None:
    x, y = np.arange(3.0), np.arange(3.0) * 10
    z = y + 1
    assert ins.evaluate("x + y + k", y=z, k=2).tolist() == (x + z + 2).tolist()
    x = x * 100
    z += 1
    assert ins.re_evaluate().tolist() == (x + z + 2).tolist()
    assert ins.re_evaluate({"x": x, "y": y}).tolist() == (x + y + 2).tolist()
    assert ins.re_evaluate({"x": x, "k": 5}).tolist() == (x + z + 5).tolist()
    assert ins.validate("x - y", y=z) is None
    assert ins.re_evaluate().tolist() == (x - z).tolist()
    ins.evaluate("x * 2")
    assert ins.re_evaluate().tolist() == (x * 2).tolist()


def test_a_column_by_keyword_keeps_no_memory_of_its_region(region: ins.Region) -> None:
    region.put("t", {"x": np.arange(100_000.0)})
    ins.evaluate("a + 1", a=region["t"]["x"])
    del region["t"]
    assert region.stats()["retired"] == 0
    with pytest.raises(ins.UnknownColumn, match="'a'"):
        ins.re_evaluate()


def test_an_operand_by_keyword_is_not_kept_alive() -> None:
    y = np.arange(3.0)
    ins.evaluate("y + other", other=np.ones(3))
    with pytest.raises(ins.UnknownColumn, match=r"'other'.*local_dict") as caught:
        ins.re_evaluate()
    assert caught.value.name == "other"
    assert ins.re_evaluate({"y": y, "other": y}).tolist() == (y + y).tolist()


# Ctrl-C


FOREVER = """
    import os, signal, sys, threading, time
    import insitu as ins
    import numpy as np
    way, formula = sys.argv[1], "a"
    # Pages that nobody writes take no memory; all of it would take minutes.
    a = np.zeros(1 << 31, "int8")
    if way == "strided":
        a = a[::2]
    for _ in range(60):
        formula = f"sin({formula})"
    formula, out = f"{formula} > 0.5", None
    if way == "sum":
        formula = f"sum(where({formula}, 1, 0))"
    else:
        out = np.zeros(a.size, "bool")
    # Compiled beforehand.
    ins.evaluate(formula, a=np.zeros(5, "int8"))
    def interrupt():
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        ins.evaluate(formula, a=a, out=out)
        print("no interrupt")
    except KeyboardInterrupt:
        print("interrupted")
    if out is not None:
        assert not out[:100_000].any()
        part = ins.evaluate("a < 1", a=a[:100_000], out=out[:100_000])
        assert part.all() and out[:100_000].all() and not out[-1]
    assert ins.evaluate("sum(b)", b=np.arange(1_000_000)) == 499_999_500_000
    print("goes on")
"""


@pytest.mark.parametrize("way", ["direct", "strided", "sum"])
def test_ctrl_c(run: Any, way: str) -> None:
    said = run(FOREVER, way)
    assert said.output == "interrupted\ngoes on\n", said.errors
