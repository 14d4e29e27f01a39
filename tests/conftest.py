"""Regions of every kind that go away whatever a test does, and processes of their own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import insitu as ins
import pytest

CAPACITY = "256MiB"


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
