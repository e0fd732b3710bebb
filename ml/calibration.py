"""Maps from a model's probabilities to how often the label was true on the validation part."""

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

# Probabilities of 0 and 1 have no log-odds; SQL clips them alike.
LEAST = 1e-6
# Two numbers need no more: the slope is then known to about a hundredth.
PLATT_ROWS = 200_000


def fit(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]
) -> list[tuple[str, float, float]]:
    """Fit two calibrations of a classifier of two classes.

    Parameters
    ----------
    probabilities : numpy.ndarray
        Shape (n,): P(label is true) of rows that the model did not learn from, in no order.
    labels : numpy.ndarray
        Shape (n,): 0 or 1.

    Returns
    -------
    list of (str, float, float)
        ``isotonic``: the knots (probability, calibrated probability) of the nondecreasing
        function that fits best (pool adjacent violators), to interpolate between, the ends to be
        held beyond them. ``platt``: one row of slope and intercept of the calibrated log-odds
        over the log-odds (Platt 1999). Empty where the labels have one class.
    """
    if len(np.unique(labels[:PLATT_ROWS])) < 2:
        return []
    steps = IsotonicRegression(y_min=0, y_max=1).fit(probabilities, labels)
    knots = zip(steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist(), strict=True)
    clipped = np.clip(probabilities[:PLATT_ROWS], LEAST, 1 - LEAST)
    odds = np.log(clipped / (1 - clipped)).reshape(-1, 1)
    line = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(odds, labels[:PLATT_ROWS])
    return [
        *(("isotonic", probability, calibrated) for probability, calibrated in knots),
        ("platt", float(line.coef_[0, 0]), float(line.intercept_[0])),
    ]
