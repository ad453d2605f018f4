"""scikit-learn's grid search on the grid: every candidate is trained somewhere, none here.

scikit-learn does its parallel work through joblib, so one line makes the grid its workers. The
search trains a support vector machine on handwritten digits for each pair of parameters and each
fold; ``--check`` runs it a second time in this process, and the scores must be the same.

Run it:                        python examples/grid_search.py --check
On the grid of ``gu up``:      python examples/grid_search.py --address auto
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.svm import SVC

import guactors as gu
from guactors.integrations.joblib import register

CANDIDATES = {"C": [1.0, 10.0], "gamma": [0.0005, 0.001, 0.005]}
FOLDS = 3


def search(images: Any, digits: Any) -> GridSearchCV:
    """The fitted search, on whatever joblib's backend is."""
    return GridSearchCV(SVC(), CANDIDATES, cv=FOLDS, n_jobs=-1).fit(images, digits)


def main() -> int:
    """Search, print the best, and with ``--check`` compare."""
    parser = argparse.ArgumentParser(description="scikit-learn's grid search on the grid")
    parser.add_argument("--address", help="a grid to join (default: one of this program's own)")
    parser.add_argument("--check", action="store_true", help="search a second time, here")
    arguments = parser.parse_args()

    images, digits = load_digits(return_X_y=True)
    images, unseen, digits, answers = train_test_split(
        images, digits, test_size=360, random_state=0
    )

    gu.init(arguments.address)
    register()
    began = time.perf_counter()
    with joblib.parallel_config("guactors"):
        workers = joblib.effective_n_jobs()
        found = search(images, digits)
    seconds = time.perf_counter() - began
    fits = len(found.cv_results_["params"]) * FOLDS
    print(f"{fits} fits on {workers} CPUs in {seconds:.1f} s; best: {found.best_params_}")
    print(f"accuracy on {len(answers)} unseen digits: {found.score(unseen, answers):.2%}")
    if arguments.check:
        with joblib.parallel_config("sequential"):
            here = search(images, digits)
        key = "mean_test_score"
        same = np.array_equal(found.cv_results_[key], here.cv_results_[key])
        print(f"the same scores as in this process: {'yes' if same else 'no'}")
        return 0 if same else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
