"""The HTML form of a mixture in a notebook: its own numbers, escaped, short, and nothing from elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn
from webpages import Page

from dgmm import GaussianMixture
from dgmm.pages import count, plain, share

HOSTILE = "<script>alert('x')</script> & \"$x$\""


def fitted(k=3, d=3, names=None, n=600, **settings):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, d)) + 8 * rng.integers(k, size=(n, 1))
    data = rows if names is None else pd.DataFrame(rows, columns=names)
    return GaussianMixture(k, random_state=0, **settings).fit(data)


def test_before_a_fit_the_diagram_is_scikit_learns():
    page = GaussianMixture(2)._repr_html_()
    assert "sk-container" in page
    assert "Not fitted" in page


def test_after_a_fit_its_components_stand_there_heaviest_first():
    mixture = fitted(names=["a", "b", "c"])
    page = Page(mixture._repr_html_())
    (table,) = page.tables
    assert table[0] == ["component", "weight", "a", "b", "c"]
    order = np.argsort(-mixture.weights_)
    deviations = np.sqrt(np.diagonal(mixture.covariances_, axis1=1, axis2=2))
    for line, k in zip(table[1:], order, strict=True):
        means = [plain(m, s) for m, s in zip(mixture.means_[k], deviations[k], strict=True)]
        assert line == [str(k), share(mixture.weights_[k]), *means]
    assert "converged after" in page.text
    assert f"{mixture.lower_bound_:.9g}" in page.text
    assert "600 rows" in page.text
    assert not page.references, "self-contained"


def test_the_curve_has_a_point_an_iteration():
    mixture = fitted()
    (line,) = Page(mixture._repr_html_()).of("polyline")
    points = np.array([[float(x) for x in point.split(",")] for point in line["points"].split()])
    assert len(points) == mixture.n_iter_
    assert np.all(np.diff(points[:, 0]) > 0)
    # Down the page is lower: heights go with the log-likelihood.
    heights = np.ptp(points[:, 1]) * (np.array(mixture.lower_bounds_) - mixture.lower_bounds_[0])
    np.testing.assert_allclose(points[0, 1] - points[:, 1], heights / np.ptp(mixture.lower_bounds_), atol=0.11)
    assert line["stroke"] == "currentColor", "of the notebook's theme"


def test_names_are_text_and_nothing_else():
    mixture = fitted(names=[HOSTILE, "b", "c"])
    page = Page(mixture._repr_html_())
    assert page.tables[0][0][2] == HOSTILE
    assert not page.of("script")
    assert "mathjax_ignore" in page.of("div")[0]["class"]


def test_many_components_and_features_are_cut_short():
    page = Page(fitted(k=20, d=30, n=6000, tol=1e-2, covariance_type="spherical")._repr_html_())
    (table,) = page.tables
    assert len(table) == 1 + 12
    assert len(table[0]) == 2 + 8
    assert "8 lighter components and 22 more features" in page.text


def test_a_fit_that_did_not_converge_says_so():
    with pytest.warns(match="did not converge"):
        mixture = fitted(max_iter=1, tol=0)
    page = Page(mixture._repr_html_())
    assert "not converged after 1 iteration" in page.text
    assert not page.of("polyline")


def test_a_mixture_of_scikit_learn_has_a_form_too():
    from sklearn.mixture import GaussianMixture as Theirs

    theirs = Theirs(2, random_state=0).fit(np.random.default_rng(0).standard_normal((50, 1)))
    page = Page(GaussianMixture.from_sklearn(theirs)._repr_html_())
    assert "0 rows" not in page.text
    assert len(page.tables[0]) == 3


def test_notebooks_get_it_as_a_bundle_unless_text_is_wanted():
    mixture = fitted()
    bundle = mixture._repr_mimebundle_()
    assert bundle["text/html"] == mixture._repr_html_()
    assert bundle["text/plain"] == repr(mixture)
    with sklearn.config_context(display="text"):
        assert set(mixture._repr_mimebundle_()) == {"text/plain"}
        assert not hasattr(mixture, "_repr_html_")
    assert "sk-" in GaussianMixture()._repr_mimebundle_()["text/html"]


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (1234.5678, 0.0213, "1,234.568 ± 0.021"),
        (-0.004, 1.5, "0.0 ± 1.5"),
        (15.26, 9.98, "15.3 ± 10.0"),
        (123456.7, 1234.5, "123,457 ± 1,234"),
        (1.7e9, 30.0, "1,700,000,000 ± 30"),
        (1.7e12, 30.0, "1.700000000000e+12 ± 3.0e+01"),
        (3e-9, 1e-9, "3.0e-09 ± 1.0e-09"),
        (0.0, 1e-9, "0e+00 ± 1.0e-09"),
        (1e20, 1e-3, "1.000000000000000e+20 ± 1.0e-03"),
        (2.0, 0.0, "2 ± 0"),
        (float("nan"), 1.0, "nan ± 1"),
    ],
)
def test_means_are_written_to_the_second_digit_of_the_deviation(mean, deviation, text):
    assert plain(mean, deviation) == text


def test_shares_and_counts():
    assert [share(x) for x in (0.0, 1.0, 0.1234, 0.00123, 3.2e-5, 1e-9)] == [
        "0.0%", "100.0%", "12.3%", "0.1%", "0.003%", "< 0.0001%",
    ]  # fmt: skip
    assert [count(x) for x in (5, 1234567, 12.5, 12345.6)] == ["5", "1,234,567", "12.5", "12,346"]
