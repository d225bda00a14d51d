"""How a store is reached: credentials and client options from the environment and the usual files alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dgmm.errors import MissingExtra, StoreError

CREDENTIALS = {
    "s3": (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE; for a public "
        "bucket AWS_SKIP_SIGNATURE=true; for another server than Amazon's AWS_ENDPOINT_URL"
    ),
    "gs": (
        "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file; for a "
        "public bucket GOOGLE_SKIP_SIGNATURE=true"
    ),
    "az": (
        "Set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN or all of "
        "AZURE_STORAGE_CLIENT_ID, _CLIENT_SECRET and _TENANT_ID; for a public container AZURE_SKIP_SIGNATURE=true"
    ),
    "http": "Check the address",
}
"""How to give them, as the end of a message."""
ENDPOINT = {
    "s3": ", AWS_ENDPOINT_URL and AWS_REGION",
    "gs": "",
    "az": ", AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ENDPOINT",
    "http": " and the address",
}
"""What says where a store is, after "Check the network"."""
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_", "http": ""}
# obstore reads these itself, unless any option is given to it: then it takes those alone.
_FROM_ENVIRONMENT = (
    *("allow_http", "allow_invalid_certificates", "proxy_url", "proxy_ca_certificate", "proxy_excludes"),
    *("connect_timeout", "timeout", "user_agent"),
)


def environment() -> tuple[tuple[str, str], ...]:
    """What a store is made from: when it changes, another store is needed."""
    prefixes = ("AWS_", "GOOGLE_", "AZURE_", "AZURITE_")
    variables = [(name, value) for name, value in os.environ.items() if name.startswith(prefixes)]
    return *sorted(variables), *((str(file), str(file.stat().st_mtime_ns)) for file in _aws_files())


def client_options(kind: str) -> dict[str, Any]:
    """What the environment says of connections, as obstore's client options."""
    if kind == "http":
        return {"allow_http": True}
    given = {key: os.environ.get(f"{_PREFIXES[kind]}{key.upper()}") for key in _FROM_ENVIRONMENT}
    return {key: value for key, value in given.items() if value is not None}


def store_options(kind: str) -> dict[str, Any]:
    """What obstore does not find by itself: the shared files of AWS, with their profiles.

    Raises
    ------
    MissingExtra
        There are such files, no key in the environment, and boto3 is not installed.
    StoreError
        The files cannot be used: they lack the profile, say.
    """
    if kind != "s3" or not (_aws_files() or os.environ.get("AWS_PROFILE")):
        return {}
    in_environment = bool(os.environ.get("AWS_ACCESS_KEY_ID") or os.environ.get("AWS_SKIP_SIGNATURE"))
    try:
        import botocore.session
        from boto3 import Session
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        if in_environment:
            return {}
        msg = "Profiles and files in ~/.aws are read with boto3. Install it: pip install 'dgmm[objects]'"
        raise MissingExtra(msg) from error
    options: dict[str, Any] = {}
    core = botocore.session.Session()
    try:
        session, profile = Session(botocore_session=core), core.get_scoped_config()
        if session.region_name and not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
            options["region"] = session.region_name
        if not in_environment and session.get_credentials() is not None:
            options["credential_provider"] = Boto3CredentialProvider(session)
        if profile.keys() & {"endpoint_url", "services"} and not _endpoint_in_environment():
            options["endpoint"] = session.client("s3").meta.endpoint_url
    except BotoCoreError as error:
        msg = f"The AWS credentials and configuration files cannot be used: {error}. {CREDENTIALS['s3']}."
        raise StoreError(msg) from None
    return options


def _endpoint_in_environment() -> bool:
    return any(os.environ.get(f"AWS_ENDPOINT{suffix}") for suffix in ("", "_URL", "_URL_S3"))


def _aws_files() -> list[Path]:
    variables = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
    files = [Path(os.environ.get(name, usual)).expanduser() for name, usual in variables.items()]
    return [file for file in files if file.is_file()]
