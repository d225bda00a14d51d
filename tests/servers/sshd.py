"""A real OpenSSH server for one test: what SSH refuses, and what it leaves running, no imitation would show."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# Debian keeps sshd where only root's PATH leads.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin"
_MARK = "TEST_SSHD"
_SECONDS = 20

# Without StrictModes: it refuses keys below a folder that others may write to, which /tmp is.
_CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey "{folder}/host_key"
AuthorizedKeysFile "{folder}/user_key.pub"
AuthenticationMethods publickey
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PidFile none
SetEnv "{mark}={folder}"
"""


def missing() -> str:
    """A command that is not installed, or nothing."""
    return next((name for name in ("sshd", "ssh-keygen") if not shutil.which(name, path=_PATH)), "")


@dataclass(frozen=True)
class Sshd:
    """Where the server listens and what opens it: its one user is who runs the test."""

    folder: Path
    port: int
    user: str
    key: Path
    known_hosts: Path

    def processes(self) -> list[psutil.Process]:
        """What was started over it and runs: also orphans, which a driver that was killed leaves."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == str(self.folder):
                    found.append(process)
        return found


@contextmanager
def sshd(folder: Path) -> Iterator[Sshd]:
    """A server on 127.0.0.1 that lets in one key, made in `folder`; at the end nothing started over it is left."""
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    if os.geteuid() == 0:
        # Where root's sshd locks up the process that talks to strangers.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as held, (folder / "sshd.log").open("wb") as log:
        # Held, so that no test beside this one is given the port; sshd, which asks likewise, may listen there.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        known_hosts = folder / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{port},[localhost]:{port} {(folder / 'host_key.pub').read_text()}")
        server = Sshd(folder, port, pwd.getpwuid(os.getuid()).pw_name, folder / "user_key", known_hosts)
        (folder / "sshd_config").write_text(_CONFIG.format(folder=folder, port=port, mark=_MARK))
        # It runs itself again for each connection, which needs its full path.
        command = [shutil.which("sshd", path=_PATH) or "sshd", "-D", "-e", "-f", str(folder / "sshd_config")]
        process = psutil.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        try:
            _wait_until_it_listens(process, folder / "sshd.log")
            yield server
        finally:
            _end(process, server)


def _wait_until_it_listens(process: psutil.Popen, log: Path) -> None:
    """By its own word: whoever took the port first would answer too."""
    deadline = time.monotonic() + _SECONDS
    while "Server listening on" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            message = f"sshd does not listen: {log.read_text()}"
            raise RuntimeError(message)
        time.sleep(0.02)


def _end(process: psutil.Popen, server: Sshd) -> None:
    """Connections outlive the server, commands outlive connections, and a nanny starts workers again."""
    left = [process, *process.children(recursive=True)] if process.poll() is None else server.processes()
    while left:
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        left = server.processes()
    process.wait()
