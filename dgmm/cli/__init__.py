"""The command line.

``dgmm fit | select | predict | score | sample | convert | info | compare | report | cluster | demo``

Exit codes: 0 success; 1 failure, and a stop by a signal that kept nothing; 2 bad usage or input; 75 stopped by a
signal with the state on disk, so that the same command goes on.
"""

from typing import NoReturn

from dgmm.cli import signals


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    # Before anything that takes time to import.
    signals.listen()
    try:
        from dgmm.cli.run import run

        code = run()
    except signals.StopRequested as stop:
        code = signals.report(stop)
    raise SystemExit(code)
