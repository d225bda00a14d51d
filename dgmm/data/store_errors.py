"""What an object store answers when it refuses, in words that say what to do.

obstore's own messages are not passed on: they quote requests and answers, with signatures among them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from dgmm.data.address import kind_of, split_url
from dgmm.data.credentials import CREDENTIALS, ENDPOINT
from dgmm.errors import DgmmError, InvalidParameter, SourceNotFound, StoreError

_STATUS = re.compile(r"status code: (\d{3}[A-Za-z ]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_SERVER = re.compile(r"Error performing \w+ https?://(?:[^/\s?@]*@)?([^/\s?]+)")
_CAUSES = (
    re.compile(r'\bmessage: "([^"]+)"'),  # of the operating system
    re.compile(r"(failed to lookup address[^\"\n]*)"),
    re.compile(r"\b(TimedOut|timed out)\b"),
    re.compile(r" - HTTP error: ([\w ,]+)"),
)
# Machines in a cloud are asked for credentials here, when there are none elsewhere.
_METADATA = ("/latest/api/token", "/latest/meta-data", "computeMetadata", "/metadata/identity", "169.254.170.")
_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP", "http": ""}
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted")


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what obstore raises meanwhile into errors of dgmm; `FileNotFoundError` stays one."""
    try:
        yield
    except (DgmmError, FileExistsError):
        raise
    except ValueError as error:
        if "Could not parse path" not in str(error):
            raise
        msg = f"{url} is no key of an object store: between slashes there must be a name, and not . or .."
        raise InvalidParameter(msg) from None
    except Exception as error:
        if not isinstance(error, FileNotFoundError) and not _is_obstores(error):
            raise
        raise _translation(url, error) from None


@contextlib.contextmanager
def writing(url: str) -> Iterator[None]:
    """The same while something is written: what is not there then can only be the bucket."""
    with translated(url):
        try:
            yield
        except FileNotFoundError:
            raise no_bucket(url) from None


def no_bucket(url: str) -> SourceNotFound:
    """The error of a bucket that does not exist."""
    return SourceNotFound(f"{url}: {split_url(url)[0]} does not exist. Check its name, or create it first.")


def answered(error: Exception) -> bool:
    """Whether it was the store itself that refused, and not silence or a lack of credentials."""
    text = str(error)
    return bool(_STATUS.search(text)) and not _asks_machine(text)


def _is_obstores(error: Exception) -> bool:
    return type(error).__module__.startswith("obstore") or isinstance(error, NotImplementedError)


def _asks_machine(text: str) -> bool:
    return any(path in text for path in _METADATA)


def _translation(url: str, error: Exception) -> Exception:
    text = str(error)
    kind, bucket = kind_of(url) or "http", split_url(url)[0]
    status, code = _found(_STATUS, text), _found(_CODE, text)
    if code in _NO_BUCKET:
        return no_bucket(url)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"there is no object {url}")
    said = f"{status} ({code})" if code else status
    server = _found(_SERVER, text) or bucket
    cause = next(filter(None, (_found(pattern, text) for pattern in _CAUSES)), "no connection")
    # The first that holds.
    explanations = {
        f"no credentials were found. {CREDENTIALS[kind]}": (
            _asks_machine(text) or "redential" in text or "Account must be" in text
        ),
        f"access is refused, {said}. The credentials are wrong or do not allow this. {CREDENTIALS[kind]}": (
            status.startswith(("401", "403"))
        ),
        f"the bucket is elsewhere, {said}. Set AWS_REGION to its region": status.startswith(("301", "307")),
        f"its endpoint is a plain http:// address. If that is meant, set {_ALLOW_HTTP[kind]}=true": (
            "BadScheme" in text
        ),
        "this server does not support the request (a range, a listing or a conditional write). Copy the data to a "
        "disk or to an object store": (
            type(error).__name__ in ("NotSupportedError", "NotImplementedError") or status.startswith("501")
        ),
        f"{server} failed, {said}. Look at the server, or try again later": bool(status),
        f"{server} does not answer ({cause}). Check the network{ENDPOINT[kind]}": True,
    }
    return StoreError(f"{url}: {next(msg for msg, holds in explanations.items() if holds)}.")


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1].strip() if match else ""
