"""Encryption of what scheduler, workers and driver say to each other."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dgmm.clusters.schema import Certificates
from dgmm.errors import InvalidClusterFile, MissingExtra


def security_of(tls: Certificates | None) -> Any:
    """A `distributed.Security` that refuses whoever has no certificate of the same authority; None without TLS.

    Raises
    ------
    InvalidClusterFile
        A file is missing.
    """
    from distributed.security import Security

    if tls is None:
        return None
    for name, path in (("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)):
        if not Path(path).is_file():
            msg = f"tls.{name} names {path}, but there is no such file"
            raise InvalidClusterFile(msg)
    roles = {
        f"tls_{role}_{what}": path
        for role in ("scheduler", "worker", "client")
        for what, path in (("cert", tls.cert), ("key", tls.key))
    }
    return Security(tls_ca_file=tls.ca, require_encryption=True, **roles)


@contextlib.contextmanager
def temporary_files(folder: Path) -> Iterator[Certificates]:
    """Certificates for this run alone, in a new folder that only its owner can enter.

    Raises
    ------
    MissingExtra
    """
    from distributed.security import Security

    try:
        security = Security.temporary()
    except ImportError as error:
        msg = "tls: temporary needs the package cryptography; pip install cryptography"
        raise MissingExtra(msg) from error
    folder.mkdir(mode=0o700)
    try:
        names = {"cert": security.tls_client_cert, "key": security.tls_client_key}
        for name, text in names.items():
            path = folder / f"{name}.pem"
            path.touch(mode=0o600)
            path.write_text(text)
        # It is signed by itself.
        cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
        yield Certificates(ca=cert, cert=cert, key=key)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def config_of(tls: Certificates | None) -> dict[str, Any]:
    """The same as Dask settings, for processes that are not handed a `distributed.Security`."""
    if tls is None:
        return {}
    return {
        "distributed.comm.require-encryption": True,
        "distributed.comm.tls.ca-file": tls.ca,
        **{
            f"distributed.comm.tls.{role}.{what}": path
            for role in ("scheduler", "worker", "client")
            for what, path in (("cert", tls.cert), ("key", tls.key))
        },
    }
