"""The same bits at every instruction level that the machine has and at any number of threads: many
exact operations, in processes that are told which level and how many threads to use."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

LEVELS = ["baseline", "v3", "v4"]
THREADS = ["1", "2", "7"]

SCRIPT = """
    import hashlib, json, re
    import insitu as ins
    import numpy as np
    import pyarrow as pa
    from insitu import col, when

    ROWS = 200_003
    rng = np.random.default_rng(11)
    INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    FLOATS = ["float32", "float64"]
    region = ins.create(capacity="1GiB")
    digests = {}

    def values(kind):
        if kind in FLOATS:
            array = rng.normal(size=ROWS) * 10.0 ** rng.integers(-3, 6, ROWS)
            some = rng.random(ROWS) < 0.02
            array[some] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], some.sum())
            return array.astype(kind)
        info = np.iinfo(kind)
        shift = rng.integers(0, info.bits, ROWS).astype(kind)
        return rng.integers(info.min, info.max, ROWS, kind, endpoint=True) >> shift

    def note(name, table):
        sha = hashlib.sha256()
        for field, column in zip(table.schema, table.columns, strict=True):
            sha.update(f"{field.name} {field.type} {len(column)}".encode())
            column = column.combine_chunks()
            sha.update(column.is_null().to_numpy(zero_copy_only=False).tobytes())
            if pa.types.is_string(field.type):
                sha.update(json.dumps(column.to_pylist()).encode())
                continue
            # What lies under a null is nobody's, and which NaN it is.
            array = column.drop_null().to_numpy(zero_copy_only=False)
            if array.dtype.kind == "f":
                array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
            sha.update(np.ascontiguousarray(array).tobytes())
        digests[name] = sha.hexdigest()

    def some_null(array):
        return pa.array(array, mask=rng.random(ROWS) < 0.1)

    tables = {}
    for kind in INTEGERS + FLOATS:
        data = {"a": some_null(values(kind)), "b": pa.array(values(kind)),
                "k": pa.array(rng.integers(0, 300, ROWS).astype("i4"))}
        tables[kind] = region.put(kind, pa.table(data))

    a, b, k = col("a"), col("b"), col("k")
    for kind, t in tables.items():
        floating = kind in FLOATS
        named = {
            "add": a + b, "sub": a - b, "mul": a * b, "div": a / b, "floordiv": a // b,
            "mod": a % b, "poly": a * b + a - b * 3, "deep": (a + b) * (a - b) + (a * 2 - b),
            "neg": -a, "abs": abs(a), "sign": a.sign(), "sqrt": a.sqrt(), "square": a**2,
            "lt": a < b, "le": a <= b, "eq": a == b, "ne": a != b, "gt": a > b, "ge": a >= b,
            "between": a.is_between(b, 100), "in": a.is_in([1, 2, 3, 50]),
            "logic": (a > b) & (b > 0) | a.is_null(), "xor": (a > b) ^ (b > 1),
            "when": when(a > b).then(a).otherwise(b), "fill": a.fill_null(7),
            "clip": a.clip(1, 100), "shift": a.shift(3), "diff": a.diff(),
            "most": ins.max_horizontal(a, b), "sum": ins.sum_horizontal(a, b),
        }
        if floating:
            named |= {"floor": a.floor(), "ceil": a.ceil(), "trunc": a.trunc(),
                      "round": a.round(2), "nan": a.is_nan(), "finite": a.is_finite()}
        else:
            named |= {"and": a & b, "or": a | b, "inv": ~a, "left": a << 3, "right": a >> 2,
                      "ones": a.bitwise_count_ones(), "zeros": a.bitwise_leading_zeros()}
        note(f"{kind} rows", t.select(**named).to_arrow())
        casts = {to: a.cast(to, strict=False) for to in [*INTEGERS, *FLOATS, "bool"]}
        note(f"{kind} casts", t.select(**casts).to_arrow())
        reductions = {
            "sum": (a if floating or kind.endswith(("8", "16", "32")) else a // 1_000_000).sum(),
            "mean": a.mean(), "min": a.min(), "max": a.max(), "var": a.var(), "std": a.std(),
            "median": a.median(), "count": a.count(), "n_unique": k.n_unique(),
            "first": a.first(), "last": a.last(), "arg_min": a.arg_min(), "arg_max": a.arg_max(),
            "any": (a > b).any(), "all": (a > b).all(), "product": (a.sign() * 1.0).product(),
        }
        note(f"{kind} reductions", t.select(**reductions).to_arrow())
        chosen = t.filter(b > 3, k < 200)
        note(f"{kind} filter", chosen.to_arrow())
        note(f"{kind} filtered reductions", chosen.select(**reductions).to_arrow())
        grouped = {n: e for n, e in reductions.items() if n not in ("arg_min", "arg_max")}
        note(f"{kind} groups", t.group_by("k").agg(**grouped).to_arrow())
        note(f"{kind} groups by value", t.group_by("b").agg(n=ins.len(), m=a.max()).to_arrow())
        note(f"{kind} sort", t.sort("a", "k", descending=[True, False]).to_arrow())
        u = region.put("updated", t.to_arrow(), replace=True)
        u.update(a=a * b - b, where=k > 100, in_place=True)
        u.update(b=b + a.fill_null(1), in_place=True)
        note(f"{kind} update", u.to_arrow())

    texts = np.array(["", "a", "b", "ab", "a text of over twelve bytes"])
    numbers = tables["int8"].to_arrow()["k"]
    s = region.put("s", pa.table({"s": some_null(rng.choice(texts, ROWS)), "k": numbers}))
    note("texts", s.filter(col("s") > "a", col("s").is_in(["b", "ab"]) | (k < 5)).to_arrow())
    note("text groups", s.group_by("s").agg(n=ins.len(), k=k.sum()).to_arrow())

    x = col("b").abs()
    math = {f: getattr(x, f)() for f in ("exp", "log", "log10", "log2", "log1p", "expm1", "cbrt")}
    math |= {f: getattr(col("b"), f)() for f in ("sin", "cos", "tan", "arctan", "tanh", "sinh")}
    for kind in FLOATS:
        note(f"math {kind}", tables[kind].select(**math, pow=x ** 1.7).to_arrow())
    level = re.search(r"level (\\w+)", tables["int8"].select(a + b).explain())[1]
    print(json.dumps({"level": level.lower(), "digests": digests}))
"""


@functools.cache
def said(level: str, threads: str) -> Any:
    """What the script says in a process of that level and so many threads."""
    environment = {**os.environ, "INSITU_LEVEL": level, "INSITU_THREADS": threads}
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    if answer["level"] != level:
        pytest.skip(f"this CPU has {answer['level']} at most")
    return answer["digests"]


def differing(one: dict[str, str], other: dict[str, str], math: bool) -> list[str]:
    assert one.keys() == other.keys()
    return [
        name for name in one if one[name] != other[name] and (math or not name.startswith("math"))
    ]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_same_bits_at_every_level_and_any_number_of_threads(level: str, threads: str) -> None:
    got = said(level, threads)
    assert len(got) > 90
    assert differing(got, said("baseline", "1"), math=False) == []
    # Transcendental functions use fused multiply-add where it is, from v3 on.
    exact = "v3" if level == "v4" else level
    assert differing(got, said(exact, "1"), math=True) == []
