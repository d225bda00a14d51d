"""The notebooks run from top to bottom; a fit in one is stopped and goes on."""

import os
import shutil
import signal
import threading
from pathlib import Path

import nbformat
import numpy as np
import pytest
import zarr
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import dgmm

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "jobs" / "notebook"


@pytest.fixture
def folder(tmp_path):
    """A copy of what the notebooks see."""
    shutil.copytree(NOTEBOOKS, tmp_path / "jobs" / "notebook")
    shutil.copytree(ROOT / "cluster-configs", tmp_path / "cluster-configs")
    return tmp_path / "jobs" / "notebook"


def executed(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    return notebook


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_a_fit_of_big_data(folder):
    notebook = executed(folder / "big-data-fit.ipynb")
    assert pictures(notebook) == 4
    out = folder / "big-data-fit"
    best = dgmm.load(out / "model.dgmm")
    labels = zarr.open_array(out / "labels.zarr", mode="r")[:]
    rows = dgmm.open_source(out / "flights.zarr")
    assert (rows.n_rows, rows.n_features) == (327_346, 5)
    np.testing.assert_array_equal(labels, best.predict(rows).compute())
    assert "<html" in (out / "report.html").read_text()


@pytest.mark.slow
def test_regimes_of_the_sea_surface(folder):
    notebook = executed(folder / "sea-surface-regimes.ipynb")
    assert pictures(notebook) == 4
    assert (folder / "sea-surface-regimes.nc").is_file()


FIT = """
import numpy as np, zarr, dgmm
rows = dgmm.open_source("rows.zarr")
mixture = dgmm.GaussianMixture(3, random_state=0, sample_size=2000, tol=1e-12, max_iter=400, verbose=1)
mixture.fit(rows, checkpoint="c")
print(mixture.means_.tobytes().hex())
"""


@pytest.mark.filterwarnings("ignore:EM did not converge")
@pytest.mark.slow
def test_the_stop_button(tmp_path):
    """What it does is send SIGINT to the kernel; the cell, run again, ends with the bits of an unbroken fit."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60_000, 3)) + rng.integers(3, size=(60_000, 1))
    zarr.create_array(tmp_path / "rows.zarr", data=rows, chunks=(5000, 3))
    settings = {"random_state": 0, "sample_size": 2000, "tol": 1e-12, "max_iter": 400}
    unbroken = dgmm.GaussianMixture(3, **settings).fit(tmp_path / "rows.zarr")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FIT)])
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    cell = notebook.cells[0]
    with client.setup_kernel():
        stopped = threading.Event()

        def stop_once_it_iterates():
            while not stopped.wait(0.01):
                if list((tmp_path / "c").glob("iteration-*.npz")):
                    os.kill(client.km.provisioner.pid, signal.SIGINT)
                    return

        watcher = threading.Thread(target=stop_once_it_iterates)
        watcher.start()
        with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
            client.execute_cell(cell, 0)
        stopped.set()
        watcher.join()
        reached = max(int(path.stem.split("-")[1]) for path in (tmp_path / "c").glob("iteration-*.npz"))
        assert 0 < reached < unbroken.n_iter_
        client.execute_cell(cell, 0)
    (printed,) = [output.text for output in cell.outputs if output.get("name") == "stdout"]
    assert printed.strip() == unbroken.means_.tobytes().hex()
