"""One number of threads for every engine. Most read it from the environment when they are imported,
so this module is imported first and imports none of them itself.
"""

from __future__ import annotations

import os

# One variable each; the pools that are not named here are set in `apply`.
_VARIABLES = (
    "INSITU_THREADS",
    "POLARS_MAX_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
)


def before_imports(threads: int) -> None:
    """To be called before any engine is imported; spawned children inherit it."""
    for variable in _VARIABLES:
        os.environ[variable] = str(threads)


def apply(threads: int) -> dict[str, str]:
    """Sets the rest, and returns what each engine says it uses."""
    import numba
    import numexpr
    import polars
    import pyarrow

    pyarrow.set_cpu_count(threads)
    pyarrow.set_io_thread_count(threads)
    numexpr.set_num_threads(threads)
    return {
        "NumPy": "1 (it has no threads)",
        "pandas": "1 (it has none, but where it calls numexpr or pyarrow)",
        "pyarrow": str(pyarrow.cpu_count()),
        "Polars": str(polars.thread_pool_size()),
        "DuckDB": f"{threads} (SET threads)",
        "DataFusion": f"{threads} (target partitions)",
        "numexpr": str(numexpr.nthreads),
        "numba": str(numba.get_num_threads()),
    }
