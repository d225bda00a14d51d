"""`dgmm fit` on 2 workers of 1 GiB, watched: what it prints, and the memory and CPU time of its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil


class Watcher(threading.Thread):
    """Watches each process of a tree.

    Attributes
    ----------
    largest : dict of str to int
        Largest resident memory of each, in bytes.
    largest_together : int
        Of all at one time; what they share is counted for each.
    seconds : dict of str to float
        CPU time of each.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root = psutil.Process(pid)
        self.largest: dict[str, int] = {}
        self.largest_together = 0
        self.seconds: dict[str, float] = {}

    def run(self) -> None:
        while self.root.is_running():
            together = 0
            try:
                for process in [self.root, *self.root.children(recursive=True)]:
                    line = " ".join(process.cmdline())
                    kind = "driver" if process == self.root else "worker" if "spawn_main" in line else "other"
                    name = f"{kind} {process.pid}"
                    resident = process.memory_info().rss
                    together += resident
                    self.largest[name] = max(self.largest.get(name, 0), resident)
                    times = process.cpu_times()
                    self.seconds[name] = times.user + times.system
            except psutil.Error:
                pass
            self.largest_together = max(self.largest_together, together)
            time.sleep(0.25)

    def of_workers(self) -> tuple[int, float]:
        """The largest memory of a worker, in bytes, and the CPU seconds of all."""
        sizes = [size for name, size in self.largest.items() if name.startswith("worker")]
        return max(sizes), sum(seconds for name, seconds in self.seconds.items() if name.startswith("worker"))


def run(command: list[str]) -> tuple[Watcher, str, int]:
    """Run a command to its end; its watcher, standard error and exit status.

    No blocks stay in memory between passes, unless the environment says so: they would be measured with the plan.
    """
    environment = {"DASK_DGMM__KEPT_BYTES": "0"} | os.environ
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    watcher = Watcher(process.pid)
    watcher.start()
    _, err = process.communicate()
    return watcher, err, process.returncode


def fit(*words: object, scratch: Path) -> tuple[Watcher, str, dict[str, Any]]:
    """Run `dgmm fit` on DATA and with the options given; its watcher, standard error, and facts about the model.

    Parameters
    ----------
    *words : object
    scratch : Path
        Checkpoint and model are written below it, and deleted.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as own:
        command = [
            *(sys.executable, "-m", "dgmm", "fit", *map(str, words)),
            *("--workers", "2", "--memory-limit", "1GiB", "--seed", "0"),
            *("--checkpoint", f"{own}/checkpoint", "--model", f"{own}/model"),
        ]
        watcher, err, code = run(command)
        if code:
            raise SystemExit(err)
        info = [sys.executable, "-m", "dgmm", "info", f"{own}/checkpoint", "--json"]
        facts = json.loads(subprocess.run(info, check=True, capture_output=True).stdout)
    return watcher, err, facts
