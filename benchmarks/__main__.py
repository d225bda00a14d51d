"""Every benchmark, one after another; or one small run of each, to see that they still do.

    python benchmarks FOLDER [--tiny] [--only em_iteration roofline ...]

Data are written below FOLDER, some 60 GB in all (half a gigabyte with --tiny), and deleted after each.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
# What each is called with, for the figures of the README, and tiny; FOLDER is a folder of its own.
RUNS: dict[str, tuple[str, str]] = {
    "em_iteration": ("", "--scale 0.03 --repeats 1"),
    "roofline": ("", "--scale 0.01 --repeats 1"),
    "cost": ("", "--scale 0.01 --repeats 1"),
    "kernels": ("", "--rows 20_000"),
    "lockstep": ("FOLDER", "FOLDER --scale 0.01 --repeats 1"),
    "zarr_passes": ("FOLDER", "FOLDER --gigabytes 0.004 --repeats 1 --workers 2"),
    "memory": ("FOLDER", "FOLDER --features 2 --components 2 --chunks 1 --types full"),
    "passes": ("", "--only separated --rows 5_000"),
    "acceleration": ("--types full diag tied spherical", "--only separated --rows 5_000 --most 10"),
    "numerics": ("", "--only table"),
    "end_to_end": ("FOLDER --sklearn-rows 1_000_000", "FOLDER --rows 100_000 --sklearn-rows 10_000"),
    "own_start": ("", "--only A --scale 0.02 --subsample 5_000 --repeats 1"),
    "selection": ("", "--rows 5_000 --seeds 1 --sizes 9 11 --timed-rows 5_000 --types diag"),
    "saving": ("FOLDER --rows 200_000", "FOLDER --rows 40_000 --saves 3"),
    "outputs": ("FOLDER", "FOLDER --rows 2_000 --drawn 10_000"),
    "quantile": ("", "--values 200_000"),
    "tables": ("FOLDER", "FOLDER --gigabytes 0.01 --rounds 1"),
    "grids": ("FOLDER", "FOLDER --gigabytes 0.05 --iterations 2"),
    "object_store": ("FOLDER", "FOLDER --gigabytes 0.01 --rounds 1 --iterations 2"),
    "out_of_core": ("FOLDER", "FOLDER --gigabytes 0.02 --iterations 2"),
    "workers": ("", "--workers 1 2 --leaves 2 --shapes 2x3 --seconds 0.2 --passes 1"),
    "billion": ("FOLDER", "FOLDER --rows 500_000"),
}

NEEDS = {"quantile": "datasketches"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(RUNS), choices=list(RUNS))
    options = parser.parse_args()
    failed = []
    for name in options.only:
        folder = options.folder.resolve() / name
        words = RUNS[name][options.tiny].split()
        print(f"== python benchmarks/{name}.py {' '.join(words)}", flush=True)
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            print(f"== left out: pip install {NEEDS[name]}\n", flush=True)
            continue
        began = time.perf_counter()
        arguments = [str(folder) if word == "FOLDER" else word.replace("_", "") for word in words]
        code = subprocess.run([sys.executable, HERE / f"{name}.py", *arguments], check=False).returncode
        shutil.rmtree(folder, ignore_errors=True)
        print(f"== {name}: {time.perf_counter() - began:.0f} s\n", flush=True)
        failed += [name] if code else []
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
