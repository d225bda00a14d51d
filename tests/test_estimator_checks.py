"""scikit-learn's own checks of an estimator: all of them, for every covariance type, no failure expected."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cases import TYPES
from sklearn.utils.estimator_checks import parametrize_with_checks

import dgmm
from dgmm import GaussianMixture


# Some checks fit fewer rows than features, of which dgmm warns.
@pytest.mark.filterwarnings("ignore::dgmm.errors.CollapsedComponentWarning")
@parametrize_with_checks([GaussianMixture(covariance_type=name) for name in TYPES])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
def test_with_array_api_support_no_check_is_skipped():
    # SciPy reads the variable once, when it is imported: only then does check_array_api_input run.
    code = f"""
from collections import Counter
from sklearn.utils.estimator_checks import check_estimator
from dgmm import GaussianMixture
for name in {TYPES}:
    checks = check_estimator(GaussianMixture(covariance_type=name), on_skip=None, on_fail=None)
    print(name, [c["check_name"] for c in checks if c["status"] != "passed"], len(checks) > 40)
"""
    root = str(Path(dgmm.__file__).parents[1])
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": root}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines() == [f"{name} [] True" for name in TYPES]
