"""Addresses as users write them: paths, URLs of object stores, and other URLs that fsspec understands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from dgmm.errors import InvalidParameter

Address: TypeAlias = "str | os.PathLike[str]"

_KINDS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    "gs": "gs",
    **dict.fromkeys(("az", "azure", "adl", "abfs", "abfss"), "az"),
    **dict.fromkeys(("http", "https"), "http"),
}


def is_url(address: str) -> bool:
    """Whether it is a URL (also a chain of fsspec's, with ``::``) and no path."""
    return "://" in address or "::" in address


def kind_of(address: str) -> str | None:
    """The object store behind a URL: 's3', 'gs', 'az' or 'http'; None for a path and for all other URLs."""
    # A chain of fsspec's (simplecache::s3://...) has no such scheme.
    scheme, found, _ = address.partition("://")
    return _KINDS.get(scheme.lower()) if found else None


def plain(address: Address) -> str:
    """The address as text, a ``file://`` URL as a path.

    Raises
    ------
    InvalidParameter
        It holds a password, or what could be one: credentials come from the environment alone.
    """
    text = os.fspath(address)
    if not is_url(text):
        return text
    for link in [text] if kind_of(text) else text.split("::"):
        _refuse_secrets(link)
    return unquote(urlsplit(text).path) if text.startswith("file://") else text.rstrip("/")


def split_url(url: str) -> tuple[str, str]:
    """The root of an object store (scheme and bucket) and the key below it."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    # The keys of a bucket are taken as they are written; only HTTP has rules for what a URL means.
    return f"{scheme}://{bucket}", unquote(key).strip("/") if kind_of(url) == "http" else key.strip("/")


def split_name(address: Address) -> tuple[str, str]:
    """The folder of a file and the file's name.

    Raises
    ------
    InvalidParameter
        It is a bucket; see also `plain`.
    """
    text = plain(address)
    if not is_url(text):
        return str(Path(text).parent), Path(text).name
    if kind_of(text) and not split_url(text)[1]:
        msg = f"{text} is a bucket, and a file was expected: name one in it, as in {text}/NAME."
        raise InvalidParameter(msg)
    folder, _, name = text.rpartition("/")
    return folder, name


def _refuse_secrets(url: str) -> None:
    kind, (scheme, found, rest) = kind_of(url), url.partition("://")
    if not found:
        return
    bucket = rest.partition("/")[0]
    if kind is not None and not bucket:
        msg = f"{url} names no {'host' if kind == 'http' else 'bucket'}; expected {scheme}://BUCKET/PATH."
        raise InvalidParameter(msg)
    user, at, host = bucket.rpartition("@")
    # A secret may hold a slash, which would end the host: then what is left of it stands where a port would.
    _, colon, port = host.rpartition("]")[2].partition(":")
    # abfss://container@account.dfs.core.windows.net names no user.
    named = bool(at) and (kind != "az" or ":" in user)
    if named or (colon and not port.isdecimal()):
        msg = (
            f"An address that starts with {scheme}:// holds a user name or a password. dgmm takes credentials "
            "from the environment and the usual files alone, so that they end up in no log and no checkpoint: "
            "remove them from the address (docs/object-stores.md)."
        )
        raise InvalidParameter(msg)
    if kind == "http" and ("?" in rest or "#" in rest):
        msg = (
            f"An address that starts with {scheme}:// has a query (?) or a fragment (#), which may hold a "
            "signature. Use the URL without it; an object store that wants signed requests has its own addresses: "
            "s3://, gs:// or az://."
        )
        raise InvalidParameter(msg)
