"""How sure to be: one number that turns logits into probabilities that can be believed.

Regularised regression on few unit-length vectors is far too timid: with 500 classes of 10 images its largest
probability hardly rises above 1/500, however clear the case. The order of the classes is right, the scale is not. So
logits of examples that took no part in the fit are scaled by one factor until they are as sure as they are right.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

LOG_SHARPNESS = (-7.0, 14.0)
"""Range searched, of the logarithm of the factor; smoothed targets keep the answer well inside."""


def fitted_sharpness(logits: NDArray[np.float64], classes: NDArray[np.int64]) -> float:
    """The factor on the logits (one over the temperature) at which held-out examples are likeliest.

    Targets are smoothed, 1 - e for the true class and e shared by the others with e = 1 / (m + 2): m right answers do
    not show that the next is right for certain. Without it the factor of m easy examples would be infinite.

    Shapes: logits (m, C), classes (m,) -> a number above 0; 1 when there is nothing to learn from.

    Source:  temperature scaling, Guo, Pleiss, Sun, Weinberger 2017, arXiv:1706.04599; smoothed targets, Platt 1999,
             "Probabilistic outputs for support vector machines".
    """
    m, n_classes = logits.shape
    if m == 0 or n_classes < 2:
        return 1.0
    relative = logits - logits[np.arange(m), classes][:, None]
    others = np.where(np.isfinite(relative), relative, 0.0).sum(axis=1) / (n_classes - 1)
    error = 1.0 / (m + 2)

    def surprise(log_sharpness: float) -> float:
        sharpness = np.exp(log_sharpness)
        return float((logsumexp(sharpness * relative, axis=1) - error * sharpness * others).sum())

    found = minimize_scalar(  # type: ignore[no-untyped-call]
        surprise, bounds=LOG_SHARPNESS, method="bounded", options={"xatol": 1e-4}
    )
    return float(np.exp(found.x))
