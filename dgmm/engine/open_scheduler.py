"""A scheduler that is reached over a network without TLS: said once, with what to do."""

from __future__ import annotations

import ipaddress
import warnings

from dgmm.errors import SecurityWarning

_told: set[str] = set()


def warn_if_open(address: str) -> None:
    """Warn, once for each scheduler, unless it is on this machine alone or speaks TLS.

    Parameters
    ----------
    address : str
        Of the scheduler, as its client has it: ``tcp://10.0.0.5:8786``.
    """
    protocol, _, place = address.rpartition("://")
    if address in _told or protocol != "tcp" or _is_loopback(place):
        return
    _told.add(address)
    msg = (
        f"the scheduler at {address} is reached over the network without TLS: whoever reaches it can run code as "
        "you, and data and models can be read on their way. Start it with certificates (docs/clusters.md, TLS), "
        "or see that only you reach it."
    )
    warnings.warn(msg, SecurityWarning, stacklevel=2)


def _is_loopback(place: str) -> bool:
    host = place.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
