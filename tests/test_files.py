"""Files: what a flush makes durable, what is there after another boot, and how damage is told."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import insitu as ins
import numpy as np
import pyarrow as pa
import pytest

BOOT_ID = 256
ROOTS = (1024, 1536)


def reboot(path: Path) -> None:
    """Makes a file one that was last used before the system started."""
    with path.open("r+b") as file:
        file.seek(BOOT_ID)
        file.write(secrets.token_bytes(16))


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x21]))


def where(path: Path, needle: bytes) -> int:
    """Where a file's data first holds some bytes; its holes are skipped."""
    with path.open("rb") as file:
        at = 0
        while True:
            at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            file.seek(at)
            found = file.read(end - at).find(needle)
            if found >= 0:
                return at + found
            at = end


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "region"


def table() -> pa.Table:
    return pa.table(
        {
            "a": np.arange(100_000, dtype="int64"),
            "s": pa.array([f"row {i}" if i % 7 else None for i in range(100_000)]),
            "d": pa.array(["x", "y", None, "x"] * 25_000).dictionary_encode(),
        }
    )


def test_a_flushed_file_comes_back_after_a_reboot(path: Path, run: Any) -> None:
    with ins.create(path=path, capacity="64MiB") as region:
        region["t"] = table()
        region["gone"] = {"a": np.arange(10)}
        region.flush()
        region["late"] = {"a": np.arange(10)}
        del region["gone"]
        assert region.verify().ok
    # Same boot: everything that was published is there, flushed or not.
    with ins.open(path=path) as region:
        assert region.names() == ["late", "t"]
    reboot(path)
    script = """
        import json, sys
        import insitu as ins
        with ins.open(path=sys.argv[1]) as region:
            t = region["t"].to_arrow()
            print(json.dumps({
                "names": region.names(), "ok": region.verify().ok, "sum": region["t"]["a"].sum(),
                "strings": t["s"].to_pylist()[:3], "codes": t["d"].to_pylist()[:3],
            }))
    """
    assert run(script, path).json() == {
        "names": ["gone", "t"],
        "ok": True,
        "sum": 99_999 * 100_000 // 2,
        "strings": [None, "row 1", "row 2"],
        "codes": ["x", "y", None],
    }
    with ins.open(path=path) as region:
        assert region["t"].to_arrow() == table()
        region["more"] = {"a": np.arange(10)}
        region.flush()
    reboot(path)
    with ins.open(path=path) as region:
        assert region.names() == ["gone", "more", "t"]


def test_what_was_never_flushed_is_gone(path: Path) -> None:
    with ins.create(path=path, capacity="16MiB") as region:
        region["t"] = {"a": np.arange(1_000_000)}
    grown = path.stat().st_blocks * 512
    reboot(path)
    # Who only reads cannot put it back, and is told what to do.
    with pytest.raises(ins.Unsupported, match="open it for writing"):
        ins.open(path=path, read_only=True)
    with ins.open(path=path) as region:
        assert region.names() == []
        assert region.verify().ok
        assert region.stats()["used"] == 0
        # The disk has its blocks back.
        assert path.stat().st_blocks * 512 < grown - 7_000_000
        region["t"] = {"a": np.arange(1_000_000)}
    with ins.open(path=path, read_only=True) as region:
        assert region["t"]["a"].to_numpy().sum() == 999_999 * 500_000


def test_elsewhere_flush_does_nothing(name: str) -> None:
    for region in [ins.create(name, capacity="1MiB"), ins.create(capacity="1MiB")]:
        with region:
            region["t"] = {"a": np.arange(10)}
            region.flush()
            assert region.verify().ok
        with pytest.raises(ins.Stale):
            region.flush()


def test_flush_needs_a_writer(path: Path) -> None:
    with ins.create(path=path, capacity="1MiB"):
        pass
    with ins.open(path=path, read_only=True) as region, pytest.raises(ins.ReadOnly):
        region.flush()


def test_views_and_handles_live_through_flushes(path: Path) -> None:
    with ins.create(path=path, capacity="16MiB") as region:
        t = region.put("t", {"a": np.arange(1000)})
        view = t["a"].to_numpy()
        region.flush()
        region["t"] = {"a": np.zeros(10)}
        region.flush()
        region["t"] = {"a": np.ones(10)}
        region.flush()
        region["u"] = {"a": np.full(200_000, 7)}
        assert view.sum() == 999 * 500
        assert t.num_rows == 1000
        assert region.verify().ok


def test_frees_await_a_flush(path: Path) -> None:
    with ins.create(path=path, capacity="8MiB") as region:
        region["t"] = {"a": np.arange(700_000)}
        region.flush()
        del region["t"]
        with pytest.raises(ins.RegionFull, match="frees that await a flush") as raised:
            region["u"] = {"a": np.arange(700_000)}
        assert raised.value.cause == "frees that await a flush"
        region.flush()
        region["u"] = {"a": np.arange(700_000)}
        assert region.verify().ok


def test_damage_names_the_table(path: Path) -> None:
    marked = np.arange(50_000, dtype="uint64") + 0x0123_4567_89AB_0000
    with ins.create(path=path, capacity="16MiB") as region:
        region["good"] = {"a": np.arange(50_000)}
        region["bad"] = {"a": marked}
        region.flush()
        at = where(path, marked[:4].tobytes())
        flip(path, at + 64_000)
        report = region.verify()
        assert not report.ok
        assert len(report.problems) == 1
        assert '"bad"' in report.problems[0]
        assert str(at) in report.problems[0]
    reboot(path)
    with ins.open(path=path) as region:
        assert region.verify().problems == report.problems
        assert region["good"]["a"].sum() == 49_999 * 25_000
    flip(path, at + 64_000)
    with ins.open(path=path) as region:
        assert region.verify().ok


def test_damaged_roots(path: Path, tmp_path: Path) -> None:
    with ins.create(path=path, capacity="1MiB") as region:
        for value in range(3):
            region["t"] = {"a": np.full(10, value)}
            region.flush()
    whole = tmp_path / "whole"
    shutil.copy(path, whole)
    header = path.read_bytes()[:4096]
    older, newer = sorted(ROOTS, key=lambda at: struct.unpack_from("<Q", header, at + 16))
    flip(path, older + 100)
    reboot(path)
    with ins.open(path=path) as region:
        assert (region["t"]["a"].to_numpy() == 2).all()
        assert region.verify().ok
    shutil.copy(whole, path)
    flip(path, newer + 100)
    reboot(path)
    # What the older root names may have been recycled since. Then that is what it says.
    with contextlib.suppress(ins.RegionCorrupt), ins.open(path=path) as region:
        assert (region["t"]["a"].to_numpy() == 1).all()
        assert region.verify().ok
    shutil.copy(whole, path)
    for root in ROOTS:
        flip(path, root + 100)
    reboot(path)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(ins.RegionCorrupt, match=r"1024.*both of its durable roots"):
            ins.open(path=path)
    # Refused is not touched: but for who was there.
    after = path.read_bytes()
    assert before[:256] == after[:256]
    assert before[1024:4096] == after[1024:4096]
    assert where(path, struct.pack("<10q", *[2] * 10)) > 0


def test_truncated_files(path: Path) -> None:
    with ins.create(path=path, capacity="1MiB") as region:
        region["t"] = {"a": np.arange(100)}
        region.flush()
    size = path.stat().st_size
    for left in [0, 10, 159, 4096, size // 2, size - 1]:
        os.truncate(path, left)
        with pytest.raises(ins.RegionCorrupt):
            ins.open(path=path)


def test_a_flusher_that_is_killed_stops_nobody(path: Path) -> None:
    script = """
        import sys
        import insitu as ins, numpy as np
        region = ins.open(path=sys.argv[1])
        for i in range(10**9):
            region["t"] = {"a": np.full(20_000, i)}
            region.flush()
            print(i, flush=True)
    """
    with ins.create(path=path, capacity="16MiB") as region:
        for turn in range(4):
            command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(0.1 + 0.07 * turn)
                # Two who flush take turns.
                region["mine"] = {"a": np.full(10, turn)}
                region.flush()
                process.send_signal(signal.SIGKILL)
                process.wait()
            region["after"] = {"a": np.full(10, turn)}
            region.flush()
            region.gc()
            assert region.verify().ok, region.verify().problems
            values = region["t"]["a"].to_numpy()
            assert (values == values[0]).all()
            copy = path.with_suffix(f".{turn}")
            shutil.copy(path, copy)
            reboot(copy)
            with ins.open(path=copy) as found:
                assert found.names() == ["after", "mine", "t"]
                assert found["after"]["a"].to_numpy()[0] == turn
                values = found["t"]["a"].to_numpy()
                assert (values == values[0]).all()
                assert found.verify().ok


def test_close_does_not_flush(path: Path, run: Any) -> None:
    script = """
        import sys
        import insitu as ins, numpy as np
        with ins.create(path=sys.argv[1], capacity="1MiB") as region:
            region["a"] = {"a": np.arange(10)}
            region.flush()
            region["b"] = {"a": np.arange(10)}
        print("{}")
    """
    run(script, path).json()
    reboot(path)
    with ins.open(path=path) as region:
        assert region.names() == ["a"]


def test_the_command_line_verifies(path: Path) -> None:
    with ins.create(path=path, capacity="1MiB") as region:
        region["t"] = {"a": np.full(5_000, 0x5A5A_1234_5678_9ABC)}
        region.flush()
    flip(path, where(path, struct.pack("<q", 0x5A5A_1234_5678_9ABC)))
    command = [sys.executable, "-m", "insitu", "verify", str(path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3, done.stderr
    assert any('\\"t\\"' in json.dumps(p) for p in json.loads(done.stdout)["problems"])
