"""What explain() says of a query, and of a run of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest
from insitu import col, param

ROWS = 200_000


@dataclass
class Run:
    """What one stage did."""

    rows_in: int
    rows_out: int
    milliseconds: float
    rate: float
    read: int
    written: int


RAN = re.compile(
    r"^  ran: (\d+) rows in, (\d+) out, ([\d.]+) ms, ([\d.]+) GB/s "
    r"\((\d+) bytes read, (\d+) written\)$",
    re.MULTILINE,
)


def runs(text: str) -> list[Run]:
    made = [
        Run(int(a), int(b), float(c), float(d), int(e), int(f))
        for a, b, c, d, e, f in RAN.findall(text)
    ]
    assert len(made) == text.count("stage ") - text.count(": stage ") == text.count(" GB/s ")
    for run in made:
        # Rounded, both.
        rate = (run.read + run.written) / max(run.milliseconds, 0.0005) / 1e6
        assert run.rate == pytest.approx(rate, rel=0.1, abs=0.2) or run.milliseconds < 0.1
    return made


@pytest.fixture
def t(region: ins.Region) -> ins.Table:
    rows = np.arange(ROWS)
    null = rows % 10 == 3
    data = pa.table(
        {
            "a": pa.array(rows),
            "f": pa.array(rows / 7, mask=null),
            "i": pa.array((rows % 100).astype("i4")),
            "s": pa.array(np.array(["x", "yy"])[rows % 2]),
        }
    )
    return region.put("t", data)


def test_explain_says_bytes_kernels_and_level(t: ins.Table) -> None:
    text = t.select(r=col("a") * 3 + col("i")).explain()
    assert "reads 12 bytes a row, writes 8 bytes a row of the result" in text
    assert re.search(r"level (Baseline|V3|V4)", text)
    assert "mul" in text
    assert "ran:" not in text
    assert "and texts" in t.filter(col("s") == "x").explain()


def test_a_filter_is_analyzed(t: ins.Table) -> None:
    text = t.filter(col("i") < 25).select("a", "f").explain(analyze=True)
    (run,) = runs(text)
    kept = ROWS // 4
    assert (run.rows_in, run.rows_out) == (ROWS, kept)
    assert run.read == ROWS * (4 + 8 + 8) + ROWS // 8
    assert run.written == kept * 16 + -(-kept // 8)
    assert "predicates pass about 25 % of the rows" in text


def test_every_stage_is_analyzed(t: ins.Table) -> None:
    query = (
        t.filter(col("a") >= ROWS // 2)
        .group_by("i")
        .agg(col("f").mean())
        .sort("i", descending=True)
        .limit(3)
    )
    first, *_, last = runs(query.explain(analyze=True))
    assert (first.rows_in, first.rows_out) == (ROWS, 100)
    assert (last.rows_in, last.rows_out) == (3, 3) or last.rows_out == 3
    assert query.collect().num_rows == 3


def test_what_is_shared_is_not_read(t: ins.Table) -> None:
    (run,) = runs(t.with_columns(b=col("a") + 1).explain(analyze=True))
    assert (run.read, run.written) == (ROWS * 8, ROWS * 8)
    (run,) = runs(t.select("a", "s").explain(analyze=True))
    assert (run.rows_in, run.rows_out, run.read, run.written) == (ROWS, ROWS, 0, 0)


def test_an_analysis_leaves_nothing_behind(tidy: ins.Region) -> None:
    t = tidy["t"]
    for _ in range(3):
        assert runs(t.select(col("a") * 2 + col("b")).explain(analyze=True))


def test_an_empty_table_is_analyzed(region: ins.Region) -> None:
    t = region.put("empty", {"a": np.zeros(0)})
    (run,) = runs(t.filter(col("a") > 0).explain(analyze=True))
    assert (run.rows_in, run.rows_out, run.read, run.written) == (0, 0, 0, 0)


def test_a_prepared_query_is_analyzed_with_its_parameters(t: ins.Table) -> None:
    prepared = t.filter(col("a") < param("most")).select(n=ins.len()).prepare()
    assert "ran:" not in prepared.explain()
    assert runs(prepared.explain(analyze=True, most=10))[-1].rows_out == 1
    with pytest.raises(ins.InvalidArgument, match="most"):
        prepared.explain(analyze=True)
    with pytest.raises(ins.InvalidArgument, match="analyze"):
        prepared.explain(most=10)
    with pytest.raises(ins.InvalidArgument, match="least"):
        prepared.explain(analyze=True, most=1, least=0)


def test_an_analysis_fails_as_the_query_does(t: ins.Table) -> None:
    with pytest.raises(ins.CastFailed):
        t.select(col("a").cast("int8")).explain(analyze=True)
    with pytest.raises(ins.UnknownColumn):
        t.select("zzz").explain(analyze=True)
    with pytest.raises(ins.TypeMismatch):
        t.select("a").explain(analyze="yes")  # type: ignore[arg-type]


def tried(text: str) -> list[str]:
    """The comparisons in the order in which they decide."""
    return re.findall(r"<- ((?:lt|ge|gt|le|eq|ne)\.\w+ col\d+)", text)


def test_predicates_are_ordered_by_the_statistics(region: ins.Region) -> None:
    rng = np.random.default_rng(1)
    wide, narrow = rng.integers(0, 1_000_000, ROWS), rng.integers(0, 100, ROWS)
    query = (col("w") < 900_000, col("n") == 7)
    t = region.put("t", {"w": wide, "n": narrow})
    assert tried(t.filter(*query).explain()) == ["eq.int64 col1", "lt.int64 col0"]
    want = np.flatnonzero((wide < 900_000) & (narrow == 7))
    ids = region.put("ids", {"w": wide, "n": narrow, "row": np.arange(ROWS)})
    for predicates in (query, query[::-1], (query[0] & query[1],)):
        got = ids.filter(*predicates).select("row").to_numpy()["row"]
        assert (got == want).all()
    # The other way round where the statistics are.
    u = region.put("u", {"w": narrow, "n": wide})
    assert tried(u.filter(col("w") < 1, col("n") < 900_000).explain())[0] == "lt.int64 col0"
    assert tried(u.filter(col("n") < 900_000, col("w") < 1).explain())[0] == "lt.int64 col0"
    # Floats have ranges too.
    f = region.put("f", {"w": wide / 1e6, "n": narrow / 100})
    first = tried(f.filter(col("w") < 0.9, col("n") < 0.02).explain())[0]
    assert first == "lt.float64 col1"


def test_a_predicate_that_can_fail_is_not_moved(region: ins.Region) -> None:
    t = region.put("t", {"a": np.array([1, 1000, 3]), "b": np.array([5, 6, 5])})
    narrow = col("a").cast("int8") > 0
    with pytest.raises(ins.CastFailed):
        t.filter(narrow, col("b") == 5).collect()
    with pytest.raises(ins.CastFailed):
        t.filter((col("b") == 5) & narrow).collect()
    assert t.filter(col("b") == 5, narrow).to_numpy()["a"].tolist() == [1, 3]


def test_an_update_says_which_way_it_would_go(region: ins.Region) -> None:
    t = region.put("t", {"x": np.arange(10.0), "n": np.arange(10), "s": list("abcdefghij")})
    over, beside = 'in "t": over the old values\n', 'in "t": beside the old values, and swapped in'
    first = t.explain_update(x=col("x") * 2)
    assert first.startswith('update of "x" ' + over)
    assert "mul.float64" in first
    assert "any, since" in first
    both = t.explain_update({"n": col("n").shift(3, fill_value=0), "x": 1.5}, where=col("n") > 2)
    assert both.startswith('update of "n", "x" ' + over)
    assert "from the last row to the first, since rows up to 3 before are read" in both
    assert "from the first row to the last" in t.explain_update(
        x=col("x").shift(-1, fill_value=0.5)
    )
    cast = t.explain_update(n=col("n").cast("int8").cast("int64"))
    assert "first a pass over all rows that writes nothing" in cast
    assert "a pass over all rows" not in first
    bitmap = t.explain_update(x=col("x").shift(1))
    assert over in bitmap
    assert "once there is a bitmap, since" in bitmap
    mean = t.explain_update(x=col("x") - col("x").mean())
    assert "reduce to one row" in mean
    for text, sets in (
        ("reads other rows", {"x": col("x").cum_sum()}),
        ("on both sides", {"x": (col("x").shift(1) + col("x").shift(-1)).fill_null(0.5)}),
        ("no width of their own", {"s": "z"}),
    ):
        said = t.explain_update(sets)
        assert beside in said, said
        assert text in said.split("\n", maxsplit=1)[0]
    view = t["n"].to_numpy()
    assert "since others read it" in t.explain_update(x=0.5)
    assert view[9] == 9
    del view
    with t.exclusive() as own:
        assert over in own.explain_update(x=0.5)
        assert beside in own.explain_update(x=col("x").shift(1))
    other = region.put("other", t)
    assert "shares its memory" in t.explain_update(x=0.5)
    del other, region["other"]
    # As it says, it is; and nothing was changed by saying it.
    assert t["x"].to_numpy(copy=True).tolist() == list(range(10))
    count = region.stats()["updates_in_place"]
    for sets, places in (({"x": col("x") + 1}, 1), ({"x": col("x").cum_sum()}, 0)):
        assert (over in t.explain_update(sets)) == bool(places)
        t.update(sets)
        assert region.stats()["updates_in_place"] == count + places
        count += places
    with pytest.raises(ins.UnknownColumn):
        t.explain_update(y=1)
    with pytest.raises(ins.TypeMismatch):
        t.explain_update(n=1.5)
    with pytest.raises(ins.InvalidArgument):
        t.explain_update()
    with pytest.raises(ins.Unsupported, match="without a name"):
        t.select("x").collect().explain_update(x=0.5)
