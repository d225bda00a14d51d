"""A private Azure Blob Storage on loopback: Azurite, Microsoft's own emulator, from npm."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

from servers.slurm import free_ports, poll

START, INSTALL = 60, 300  # seconds
ACCOUNT, CONTAINER = "dgmmaccount", "dgmm-test"


def install(folder: Path) -> tuple[Path | None, str]:
    """The program, installed in a folder unless it is on the path; or None, and why it cannot be had."""
    if found := shutil.which("azurite-blob"):
        return Path(found), ""
    if not (npm := shutil.which("npm")):
        return None, "neither azurite-blob nor npm is installed"
    command = [npm, "install", "--prefix", folder, "--no-audit", "--no-fund", "--silent", "azurite"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL)
    except subprocess.TimeoutExpired:
        return None, f"npm did not install azurite within {INSTALL} s"
    if done.returncode:
        return None, f"npm cannot install azurite: {done.stderr.strip()[-200:]}"
    return folder / "node_modules/.bin/azurite-blob", ""


@dataclass(frozen=True)
class Azurite:
    """A running server with one account and one container."""

    endpoint: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to work with it."""
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
            "AZURE_STORAGE_ENDPOINT": f"{self.endpoint}/{ACCOUNT}",
            "AZURE_ALLOW_HTTP": "true",
        }

    def create_container(self) -> None:
        """Signed with the account's key, as Azure's documentation of Shared Key has it."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
        canonical = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
        resource = f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
        text = "PUT" + "\n" * 12 + canonical + resource
        digest = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}"
        url = f"{self.endpoint}/{ACCOUNT}/{CONTAINER}?restype=container"
        request = urllib.request.Request(url, headers=headers, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def azurite(program: Path, folder: Path) -> Iterator[Azurite]:
    """A server in a new folder, with an account key that nobody else knows."""
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    server = Azurite(f"http://127.0.0.1:{port}", base64.b64encode(secrets.token_bytes(32)).decode())
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder, "--silent"]
    log = folder / "azurite.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--skipApiVersionCheck", "--disableTelemetry"],
            env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{server.key}"},
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip

    def up() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(OSError):
            server.create_container()
            return True
        return False

    try:
        poll(up, START, log.read_text)
        yield server
    finally:
        process.kill()
        process.wait()
