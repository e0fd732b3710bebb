"""Maps from a model's probabilities to how often the label was true on the validation part."""

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

# Probabilities of 0 and 1 have no log-odds; SQL clips them alike.
LEAST = 1e-6
# Two numbers need no more: the slope is then known to about a hundredth.
PLATT_ROWS = 200_000
# Newton's method doubles its digits at each step; a slope that labels leave without a bound stops.
STEPS = 25


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
    order = np.argsort(probabilities)
    steps = IsotonicRegression(y_min=0, y_max=1).fit(probabilities[order], labels[order])
    knots = zip(steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist(), strict=True)
    clipped = np.clip(probabilities[:PLATT_ROWS], LEAST, 1 - LEAST)
    slope, intercept = _line(np.log(clipped / (1 - clipped)), labels[:PLATT_ROWS])
    return [
        *(("isotonic", probability, calibrated) for probability, calibrated in knots),
        ("platt", slope, intercept),
    ]


def _line(odds: npt.NDArray[np.float64], labels: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and intercept of a logistic regression on log-odds, by Newton's method."""
    center, scale = odds.mean(), odds.std() or 1.0
    columns = np.stack([(odds - center) / scale, np.ones_like(odds)])
    found = np.zeros(2)
    for _ in range(STEPS):
        said = (1 + np.tanh(found @ columns / 2)) / 2
        curvature = (columns * (said * (1 - said))) @ columns.T
        step = np.linalg.lstsq(curvature, columns @ (labels - said))[0]
        found += step
        if np.abs(step).max() < 1e-12:
            break
    slope = found[0] / scale
    return float(slope), float(found[1] - slope * center)
