"""The display of a running fit in a notebook, in a real kernel."""

import nbformat
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbclient import NotebookClient
from webpages import Page

from dgmm.live import in_notebook, watcher
from dgmm.mixture.criteria import converged, iterations_left
from dgmm.progress import ProgressLog

FIT = """
import numpy as np, zarr
from dgmm import GaussianMixture
rng = np.random.default_rng(0)
rows = np.concatenate([rng.normal(0, 1, (3000, 2)), rng.normal(1.5, 1, (3000, 2))])
zarr.create_array("rows.zarr", data=rows, chunks=(1000, 2), overwrite=True)
GaussianMixture(2, random_state=0, sample_size=500, tol=1e-9, verbose={verbose}).fit("rows.zarr")
"""


@given(ratio=st.floats(0.05, 0.97), first=st.floats(1e-4, 1e3), seen=st.integers(3, 30), digits=st.floats(3, 8))
def test_the_number_of_iterations_left(ratio, first, seen, digits):
    tol = first * 10**-digits
    history = np.cumsum(first * ratio ** np.arange(2000))
    end = next(n for n in range(2, 2000) if converged(history[:n], tol))
    left = iterations_left(history[:seen], tol)
    if seen < end and history[seen - 1] - history[seen - 2] > 1e-9 * abs(history[seen - 1]):
        assert abs(seen + left - end) <= 2


@pytest.mark.parametrize("history", [(), (1.0,), (1.0, 2.0), (1.0, 2.0, 4.0), (1.0, 2.0, 1.5), (1.0, 1.0, 1.0)])
def test_no_number_where_gains_do_not_shrink(history):
    assert iterations_left(history, 1e-5) is None


def test_elsewhere_it_is_a_log():
    assert not in_notebook()
    assert watcher(0, 10, 1e-5) is None
    assert isinstance(watcher(1, 10, 1e-5), ProgressLog)


def run(cells, folder):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell.outputs for cell in notebook.cells]


@pytest.mark.slow
def test_a_notebook_shows_one_output_that_moves_and_then_the_mixture(tmp_path):
    (outputs,) = run([FIT.format(verbose=1)], tmp_path)
    display, result = outputs
    assert (display.output_type, result.output_type) == ("display_data", "execute_result")
    page = Page(display.data["text/html"])
    assert "log-likelihood per row, iterations 1 to" in page.text
    assert "<polyline" in display.data["text/html"]
    assert "iteration" in display.data["text/plain"]
    assert "converged" in Page(result.data["text/html"]).text


@pytest.mark.slow
def test_silent_where_nothing_is_asked_for(tmp_path):
    (outputs,) = run([FIT.format(verbose=0)], tmp_path)
    assert [output.output_type for output in outputs] == ["execute_result"]
