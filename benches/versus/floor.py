"""The memory-bandwidth floor: builds benches/floor, loads it, makes contestants of its loops."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .harness import FLOOR, Contestant

ROOT = Path(__file__).resolve().parents[2]
_SHAPES = {
    "plain triad": 0,
    "streaming triad": 1,
    "in-place triad": 2,
    "memcpy": 3,
    "streaming copy": 4,
}


def aligned(rows: int, fill: float) -> np.ndarray:
    """float64 on a multiple of 64 bytes, every page present."""
    raw = np.empty(rows * 8 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + rows * 8].view(np.float64)
    array[:] = fill
    return array


class Floor:
    """The loaded library, with its threads running."""

    def __init__(self, threads: int) -> None:
        self._library = ctypes.CDLL(str(_build()))
        self._library.floor_threads.argtypes = [ctypes.c_size_t]
        self._library.floor_threads.restype = ctypes.c_size_t
        word = ctypes.c_size_t
        self._library.floor_read.argtypes = [
            ctypes.c_uint32,
            ctypes.POINTER(word),
            ctypes.POINTER(word),
            word,
        ]
        self._library.floor_read.restype = ctypes.c_uint64
        self._library.floor_write.argtypes = [ctypes.c_uint32, word, word, word, word]
        self.threads = self._library.floor_threads(threads)
        if not self.threads:
            raise RuntimeError("the floor's threads did not start")
        self.bits = self._library.floor_level()

    def read(self, columns: Sequence[np.ndarray]) -> list[Contestant]:
        """Reads every byte of the columns once, as one, two and four streams."""
        word = ctypes.c_size_t * len(columns)
        addresses = word(*(c.ctypes.data for c in columns))
        sizes = word(*(c.nbytes // 8 * 8 for c in columns))

        def sweep(streams: int) -> Contestant:
            def run(keep: Sequence[np.ndarray] = columns) -> None:
                self._library.floor_read(streams, addresses, sizes, len(keep))

            return Contestant(
                f"{FLOOR}: read, {streams} stream" + "s" * (streams > 1), run, engine=FLOOR
            )

        return [sweep(streams) for streams in (1, 2, 4)]

    def triad(self, rows: int) -> list[Contestant]:
        """Two columns of float64 in, one out, by each way to store."""
        rows -= rows % 8
        out, a, b = aligned(rows, 1.0), aligned(rows, 1.0), aligned(rows, 0.0)
        return [
            self._write(shape, out, a, b)
            for shape in ("plain triad", "streaming triad", "in-place triad")
        ]

    def copy(self, out: np.ndarray, source: np.ndarray) -> list[Contestant]:
        """The bytes of `source` into `out`, with all threads, into warm memory."""
        return [self._write(shape, out, source, source) for shape in ("memcpy", "streaming copy")]

    def _write(self, shape: str, out: np.ndarray, a: np.ndarray, b: np.ndarray) -> Contestant:
        number, size = _SHAPES[shape], out.nbytes // 64 * 64
        if any(array.ctypes.data % 64 or array.nbytes < size for array in (out, a, b)):
            raise ValueError("streaming stores need buffers on a multiple of 64 bytes")

        def run() -> None:
            self._library.floor_write(number, out.ctypes.data, a.ctypes.data, b.ctypes.data, size)

        return Contestant(f"{FLOOR}: {shape}", run, engine=FLOOR)


def _build() -> Path:
    """The shared library, where cargo says that it put it."""
    command = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "--package",
        "insitu-floor",
        "--message-format",
        "json",
    ]
    made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    for line in made.stdout.splitlines():
        message = json.loads(line)
        if (
            message.get("reason") == "compiler-artifact"
            and message["target"]["name"] == "insitu_floor"
        ):
            return Path(message["filenames"][0])
    raise RuntimeError("cargo named no library for insitu-floor")
