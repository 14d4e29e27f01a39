"""Regions of every kind that go away whatever a test does, and processes of their own."""

from __future__ import annotations

import gc
import json
import os
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import insitu as ins
import numpy as np
import pytest

CAPACITY = "256MiB"
ROWS = 100_000
"""Of the table "t" of a tidy region, whose column "a" counts from 0."""
TOTAL = ROWS * (ROWS - 1) // 2
TICKET_UNTIL = 232
"""Where in a table slot it says until when a result is kept whose sender has ended."""


@pytest.fixture
def new_name() -> Iterator[Callable[[], str]]:
    """Makes region names that nobody else uses; their regions are removed after the test."""
    names: list[str] = []

    def make() -> str:
        names.append(f"test-{os.getpid()}-{secrets.token_hex(4)}")
        return names[-1]

    yield make
    for name in names:
        try:
            ins.remove(name)
        except ins.RegionNotFound:
            pass
        except ins.Error:
            # Damaged on purpose: what cannot be opened can still be unlinked.
            Path(f"/dev/shm/insitu.{name}").unlink(missing_ok=True)


@pytest.fixture
def name(new_name: Callable[[], str]) -> str:
    return new_name()


@pytest.fixture
def region(name: str) -> Iterator[ins.Region]:
    """A region in POSIX shared memory."""
    region = ins.create(name, capacity=CAPACITY)
    yield region
    region.close()


@pytest.fixture
def tidy(region: ins.Region) -> Iterator[ins.Region]:
    """A region with a table "t" that must hold nothing else when the test is over, but named
    tables."""
    region.put("t", {"a": np.arange(ROWS), "b": np.arange(ROWS) % 7})["a"].sum()
    before = region.stats()
    yield region
    gc.collect()
    region.gc()
    for name in region.names():
        if name != "t":
            del region[name]
    after = region.stats()
    assert [r for r in region.leases() if r["table"] != "t"] == []
    for key in ("used", "retired", "extents"):
        assert after[key] == before[key], key
    report = region.verify()
    assert report.ok, report.problems


@pytest.fixture(params=["shm", "file", "memfd"])
def any_region(
    request: pytest.FixtureRequest, new_name: Callable[[], str], tmp_path: Path
) -> Iterator[ins.Region]:
    """A region in each of the three backings."""
    match request.param:
        case "shm":
            region = ins.create(new_name(), capacity=CAPACITY)
        case "file":
            region = ins.create(path=tmp_path / "region", capacity=CAPACITY)
        case _:
            region = ins.create(capacity=CAPACITY)
    yield region
    region.close()


class Process:
    """What a script in a process of its own said and how it ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.output = done.stdout
        self.errors = done.stderr

    def json(self) -> Any:
        assert self.code == 0, self.errors
        return json.loads(self.output)


@pytest.fixture
def run() -> Callable[..., Process]:
    """Runs a script in a fresh interpreter; arguments arrive in sys.argv."""

    def run(script: str, *arguments: object, **options: Any) -> Process:
        command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, **options
        )
        return Process(done)

    return run


@pytest.fixture
def poison(name: str) -> Callable[[str], int]:
    """Poisons a table of the region of that name: a process stores into its first column and is
    killed over it. Gives the process."""
    script = """
    import sys, time
    import insitu as ins
    t = ins.open(sys.argv[1])[sys.argv[2]]
    with t.writable() as w:
        w[t.columns[0]][0] = -1
        print("stored", flush=True)
        time.sleep(60)
    """

    def poison(table: str) -> int:
        command = [sys.executable, "-c", textwrap.dedent(script), name, table]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "stored\n"
            child.kill()
        return child.pid

    return poison


def end_grace(name: str) -> None:
    """Has results whose senders have ended be kept no longer: sets their times in the region."""
    with Path(f"/dev/shm/insitu.{name}").open("r+b") as file:
        slots, high = (read_word(file, at) for at in (72, 536))
        for at in range(slots + TICKET_UNTIL, slots + high * 512, 512):
            if read_word(file, at):
                file.seek(at)
                file.write((1).to_bytes(8, "little"))


def read_word(file: BinaryIO, at: int) -> int:
    file.seek(at)
    return int.from_bytes(file.read(8), "little")
