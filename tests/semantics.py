"""Writes docs/semantics.md: what the types of numbers promote to, and where insitu, NumPy, Polars
and pyarrow give different answers. All of it is computed, by the libraries themselves.

python tests/semantics.py   writes it; tests/test_semantics.py fails where it is not current
"""

from __future__ import annotations

import datetime as dt
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import insitu as ins
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

DOCUMENT = Path(__file__).parent.parent / "docs" / "semantics.md"
NUMBERS = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
NUMBERS += ["float32", "float64"]


@dataclass(frozen=True)
class Case:
    """One question. The four answers are expressions over `x` and `y`, the columns; none where a
    library has no such thing."""

    about: str
    x: Any
    insitu: str
    numpy: str | None = None
    polars: str | None = None
    pyarrow: str | None = None
    y: Any = None


NAN = math.nan
I8 = pa.int8()

SECTIONS: dict[str, list[Case]] = {
    "Arithmetic": [
        Case("integers that leave their type", pa.array([127, -128], I8), "x + 1",
             "x + np.int8(1)", "x + 1", "pc.add(x, pa.scalar(1, pa.int8()))"),
        Case("unsigned, below zero", pa.array([0, 1], pa.uint8()), "-x", "-x", "-x",
             "pc.negate(x)"),
        Case("the least integer's size", pa.array([-128], I8), "x.abs()", "np.abs(x)", "x.abs()",
             "pc.abs(x)"),
        Case("integers divided", [7, -7], "x / 2", "x / 2", "x / 2", "pc.divide(x, 2)"),
        Case("floor division", [7, -7], "x // 2", "x // 2", "x // 2", None),
        Case("remainder", [7, -7], "x % 3", "x % 3", "x % 3", None),
        Case("an integer by zero", [1, 0], "x / 0", "x / 0", "x / 0", "pc.divide(x, 0)"),
        Case("floor division by zero", [1, 0], "x // 0", "x // 0", "x // 0", None),
        Case("floats' floor division", [1.0, -1.0], "x // 0.1", "x // 0.1", "x // 0.1", None),
        Case("a literal that does not fit", pa.array([1], I8), "x + 300", "x + np.int16(300)",
             "x + 300", "pc.add(x, pa.scalar(300))"),
        Case("booleans added", [True, False], "x + x", "x + x", "x + x", None),
        Case("int64 with uint64", [1], "x + y", "x + y", "x + y", "pc.add(x, y)",
             pa.array([1], pa.uint64())),
    ],
    "Comparison and logic": [
        Case("NaN equals NaN", [NAN], "x == x", "x == x", "x == x", "pc.equal(x, x)"),
        Case("NaN is larger than a number", [NAN], "x > 1", "x > 1", "x > 1", "pc.greater(x, 1)"),
        Case("null equals null", pa.array([None, 1]), "x == None", None, "x == None",
             "pc.equal(x, pa.scalar(None, pa.int64()))"),
        Case("false and null", [False, True], "x & None", None, "x & None",
             "pc.and_kleene(x, pa.scalar(None, pa.bool_()))"),
        Case("null in a set with null", pa.array([None, 1]), "x.is_in([1, None])", None,
             "x.is_in([1, None])", "pc.is_in(x, value_set=pa.array([1, None]))"),
        Case("NaN in a set with NaN", [NAN, 1.0], "x.is_in([float('nan')])",
             "np.isin(x, [float('nan')])", "x.is_in([float('nan')])",
             "pc.is_in(x, value_set=pa.array([float('nan')]))"),
        Case("null between", pa.array([5, None]), "x.is_between(None, 3)", None,
             "x.is_between(None, 3)", None),
    ],
    "Rounding and casts": [
        Case("halves", [0.5, 1.5, 2.5, -0.5], "x.round()", "np.round(x)", "x.round()",
             "pc.round(x, round_mode='half_to_even')"),
        Case("to hundreds", [149, 150, 250], "x.round(-2)", "np.round(x, -2)", "x.round(-2)",
             "pc.round(x, -2, round_mode='half_to_even')"),
        Case("decimals of a huge number", [1e308], "x.round(2)", "np.round(x, 2)", "x.round(2)",
             "pc.round(x, 2, round_mode='half_to_even')"),
        Case("sign of zero and NaN", [-0.0, NAN], "x.sign()", "np.sign(x)", "x.sign()",
             "pc.sign(x)"),
        Case("float to integer", [2.9, -2.9], "x.cast('int8')", "x.astype('i1')", "x.cast(pl.Int8)",
             "pc.cast(x, pa.int8())"),
        Case("a float out of range", [300.0], "x.cast('int8')", None, "x.cast(pl.Int8)",
             "pc.cast(x, pa.int8())"),
        Case("the same, not strict", [300.0, NAN], "x.cast('int8', strict=False)", None,
             "x.cast(pl.Int8, strict=False)", "pc.cast(x, pa.int8(), safe=False)"),
        Case("NaN to boolean", [NAN, 0.0], "x.cast('bool')", "x.astype(bool)",
             "x.cast(pl.Boolean)", "pc.cast(x, pa.bool_())"),
    ],
    "Bits": [
        Case("shifted by the width", pa.array([1, -1], I8), "x << 8", "x << np.int8(8)", None,
             "pc.shift_left(x, pa.scalar(8, pa.int8()))"),
        Case("down by the width", pa.array([1, -1], I8), "x >> 8", "x >> np.int8(8)", None,
             "pc.shift_right(x, pa.scalar(8, pa.int8()))"),
        Case("by a negative count", pa.array([1, -1], I8), "x >> -1", "x >> np.int8(-1)", None,
             "pc.shift_right(x, pa.scalar(-1, pa.int8()))"),
        Case("bits set", pa.array([-1], I8), "x.bitwise_count_ones()", "np.bitwise_count(x)",
             "x.bitwise_count_ones()", None),
    ],
    "Among values": [
        Case("the smaller of NaN and a number", [NAN, 1.0], "ins.min_horizontal(x, y)",
             "np.minimum(x, y)", "pl.min_horizontal(x, y)", "pc.min_element_wise(x, y)",
             [1.0, NAN]),
        Case("the smaller of null and a value", pa.array([None, 1]), "ins.min_horizontal(x, y)",
             None, "pl.min_horizontal(x, y)", "pc.min_element_wise(x, y)", pa.array([2, None])),
        Case("numpy.minimum of the two", [NAN, 1.0], "np.minimum(x, y)", "np.minimum(x, y)",
             "np.minimum(x, y)", None, [1.0, NAN]),
        Case("the sum of nulls", pa.array([None], pa.int64()), "ins.sum_horizontal(x, y)", None,
             "pl.sum_horizontal(x, y)", None, pa.array([None], pa.int64())),
        Case("null, neither true nor false", pa.array([None], pa.bool_()),
             "ins.any_horizontal(x, y)", None, "pl.any_horizontal(x, y)", "pc.or_kleene(x, y)",
             [False]),
        Case("clipping NaN", [NAN, 5.0], "x.clip(0, 1)", "np.clip(x, 0, 1)", "x.clip(0, 1)", None),
    ],
    "Running values": [
        Case("the running sum of int32", pa.array([1, None, 2], pa.int32()), "x.cum_sum()", None,
             "x.cum_sum()", "pc.cumulative_sum(x, skip_nulls=True)"),
        Case("of booleans", [True, False, True], "x.cum_sum()", "x.cumsum()", "x.cum_sum()", None),
        Case("int64 that leaves its type", [2**63 - 1, 1], "x.cum_sum()", "x.cumsum()",
             "x.cum_sum()", "pc.cumulative_sum(x)"),
        Case("the running product of int8", pa.array([100, 2], I8), "x.cum_prod()", "x.cumprod()",
             "x.cum_prod()", "pc.cumulative_prod(x)"),
        Case("NaN in a running sum", [1.0, NAN, 2.0], "x.cum_sum()", "x.cumsum()", "x.cum_sum()",
             "pc.cumulative_sum(x)"),
        Case("the least so far, and NaN", [NAN, 2.0, NAN, 1.0], "x.cum_min()",
             "np.minimum.accumulate(x)", "x.cum_min()", "pc.cumulative_min(x)"),
        Case("the least so far of zeros", [0.0, -0.0], "x.cum_min()", "np.minimum.accumulate(x)",
             "x.cum_min()", "pc.cumulative_min(x)"),
        Case("the number so far", pa.array([1, None, 2]), "x.cum_count()", None, "x.cum_count()",
             None),
        Case("the share of change", pa.array([1, None, 2, 3]), "x.pct_change()", None,
             "x.pct_change()", None),
        Case("the change of unsigned integers", pa.array([2, 1], pa.uint8()), "x.diff()",
             "np.diff(x)", "x.diff()", "pc.pairwise_diff(x)"),
    ],
    "Aggregates": [
        Case("the least of NaN and 1", [NAN, 1.0], "x.min()", "x.min()", "x.min()", "pc.min(x)"),
        Case("the sum of nothing", pa.array([None], pa.int64()), "x.sum()", None, "x.sum()",
             "pc.sum(x)"),
        Case("the sum of int8", pa.array([127, 1], I8), "x.sum()", "x.sum()", "x.sum()",
             "pc.sum(x)"),
        Case("the sum of float32", pa.array([1.0], pa.float32()), "x.sum()", "x.sum()", "x.sum()",
             "pc.sum(x)"),
        Case("int64 that leaves its type", [2**63 - 1, 1], "x.sum()", "x.sum()", "x.sum()",
             "pc.sum(x)"),
    ],
}  # fmt: skip


def shown(value: Any) -> str:
    """Values and their type, short."""
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
    if isinstance(value, pa.Scalar):
        value = pa.array([value.as_py()], value.type)
    if isinstance(value, np.generic):
        value = np.array([value])
    if isinstance(value, np.ndarray):
        value = pa.array(value)
    text = ", ".join("null" if v is None else str(v) for v in value.to_pylist())
    kind = {"double": "float64", "float": "float32"}.get(str(value.type), str(value.type))
    return f"{text} ({kind})"


def answer(library: str, code: str | None, columns: dict[str, pa.Array], region: ins.Region) -> str:
    if code is None:
        return ""
    names = {"ins": ins, "np": np, "pl": pl, "pa": pa, "pc": pc, "dt": dt}
    try:
        if library == "insitu":
            table = region.put("case", pa.table(columns), replace=True)
            expr = eval(code, names | {n: ins.col(n) for n in columns})
            result = table.select(r=expr).to_arrow()["r"]
        elif library == "polars":
            frame = pl.from_arrow(pa.table(columns))
            assert isinstance(frame, pl.DataFrame)
            expr = eval(code, names | {n: pl.col(n) for n in columns})
            result = frame.select(r=expr)["r"].to_arrow()
        elif library == "numpy":
            arrays = {n: c.to_numpy(zero_copy_only=False) for n, c in columns.items()}
            with np.errstate(all="ignore"):
                result = eval(code, names | arrays)
        else:
            result = eval(code, names | columns)
        return shown(result)
    except Exception as error:
        return type(error).__name__


def promotions(region: ins.Region) -> list[str]:
    table = region.put("types", pa.table({n: pa.array([1]).cast(n) for n in NUMBERS}), replace=True)
    lines = ["| + | " + " | ".join(NUMBERS) + " |", "|---" * (len(NUMBERS) + 1) + "|"]
    for left in NUMBERS:
        schema = table.select(**{n: ins.col(left) + ins.col(n) for n in NUMBERS}).schema
        kinds = [str(field.type) for field in schema]
        kinds = [{"double": "float64", "float": "float32"}.get(kind, kind) for kind in kinds]
        lines.append(f"| **{left}** | " + " | ".join(kinds) + " |")
    return lines


def generate() -> str:
    lines = [
        "# Types and semantics",
        "",
        "Written by `tests/semantics.py`, which asks the libraries; a test compares.",
        "",
        "## What types promote to",
        "",
        "Numbers promote as in NumPy; only two booleans count as int64 where NumPy adds them by "
        "*or*. `/` gives float64 of integers. A literal is weak: an integer takes the column's "
        "type if it fits there, else the narrowest type that holds it promotes with the column's; "
        "a float keeps float32 and makes float64 of integers. The bits of integers (`& | ^ << >>`) "
        "need a common integer type. float16 is stored, moved and cast, not computed on.",
        "",
    ]
    with (
        warnings.catch_warnings(action="ignore"),
        ins.create(ephemeral=True, capacity="64MiB") as region,
    ):
        lines += [*promotions(region), ""]
        lines += [
            "## Where libraries differ",
            "",
            "`x` and `y` are columns; an empty field: the library has no such thing. With "
            "`checked=True` integers that leave their type are an error in insitu, too.",
            "",
        ]
        for title, cases in SECTIONS.items():
            lines += [f"### {title}", ""]
            lines += [
                "| | x, y | expression | insitu | NumPy | Polars | pyarrow |",
                "|---" * 7 + "|",
            ]
            for case in cases:
                columns = {"x": pa.array(case.x)}
                if case.y is not None:
                    columns["y"] = pa.array(case.y)
                given = "; ".join(shown(c) for c in columns.values())
                cells = [
                    answer(library, getattr(case, library), columns, region)
                    for library in ("insitu", "numpy", "polars", "pyarrow")
                ]
                code = "`" + case.insitu.replace("|", "\\|") + "`"
                lines.append(f"| {case.about} | {given} | {code} | " + " | ".join(cells) + " |")
            lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    DOCUMENT.write_text(generate())
