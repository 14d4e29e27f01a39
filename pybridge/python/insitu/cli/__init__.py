"""The command line `insitu`: looking at regions, and cleaning up after programs.

A mistake is one line on standard error, with --json a line of JSON, and an exit code, never a
traceback:

====  ==================================================================
0     done
1     it could not be done: no such region, damaged, in use, ...
2     the command line makes no sense
3     `verify` found problems
130   Ctrl-C
141   whoever read the output has gone
====  ==================================================================
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence

import insitu as ins
from insitu.cli.arguments import parser, tell
from insitu.cli.regions import Mistake
from insitu.cli.text import clean


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names may hold anything, and not every terminal can show it.
            stream.reconfigure(errors="replace")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser(for_programs="--json" in arguments).parse_args(arguments)
    try:
        code: int = options.run(options)
        # Here, not at the interpreter's exit, where a closed pipe would be reported.
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # What is still buffered goes nowhere, silently.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ins.Error, Mistake, OSError) as error:
        if options.json:
            tell(_kind(error), str(error))
        else:
            print(f"insitu: {clean(str(error))}", file=sys.stderr)
        return 1
    return code


def _kind(error: Exception) -> str:
    """What an error is called for programs."""
    if isinstance(error, Mistake):
        return error.kind
    return type(error).__name__ if isinstance(error, ins.Error) else "Io"
