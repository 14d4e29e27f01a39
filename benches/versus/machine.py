"""What the numbers were measured on: processor, memory pages, versions. No names, no paths."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

PEERS = (
    "insitu",
    "numpy",
    "pandas",
    "pyarrow",
    "polars",
    "duckdb",
    "datafusion",
    "numexpr",
    "numba",
    "ray",
)


def describe() -> dict[str, str]:
    """Facts, in the order to print."""
    facts = {
        "processor": _processor(),
        "processors allowed": str(len(os.sched_getaffinity(0))),
        "caches": _caches(),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "huge pages": _chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        "huge pages, shared memory": _chosen("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "Python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f} (1 minute)",
    }
    for peer in PEERS:
        try:
            facts[peer] = importlib.metadata.version(peer)
        except importlib.metadata.PackageNotFoundError:
            facts[peer] = "not installed"
    return facts


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


def _caches() -> str:
    sizes = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level = (
                (index / "type").read_text().strip(),
                (index / "level").read_text().strip(),
            )
            if kind != "Instruction":
                sizes.append(f"L{level} {(index / 'size').read_text().strip()}")
        except OSError:
            continue
    return ", ".join(sizes) or "unknown"


def _chosen(path: str) -> str:
    try:
        text = Path(path).read_text()
    except OSError:
        return "unknown"
    return text[text.find("[") + 1 : text.find("]")]
