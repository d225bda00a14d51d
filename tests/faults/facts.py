"""The line of facts that each harness ends with: a row of the table of faults.

``pytest -rP`` shows them.
"""

from __future__ import annotations

import random


def tell(fault: str, injected: int, survived: int, longest_s: float | None = None, bits_equal: str = "") -> None:
    """Print a row.

    Parameters
    ----------
    fault : str
    injected, survived : int
        Times.
    longest_s : float, optional
        The longest recovery.
    bits_equal : str
        Of what, if bits were compared.
    """
    longest = "" if longest_s is None else f"{longest_s:.2f} s"
    print(f"FACT | {fault} | {injected} | {survived} | {longest} | {bits_equal} |")


def new_seed() -> int:
    """A seed nobody has chosen; pytest shows it where a test fails."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return seed
