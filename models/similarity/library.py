"""The one place that imports pytorch-metric-learning.

Its inference module imports `faiss.contrib.torch_utils`, which replaces the searches of every FAISS index in the
process by ones that take no search parameters: from then on no filtered and no approximate search would work. Nothing
here needs that module, so its import is made to fail while the library is imported; the library allows for that.
"""

import sys

_REPLACES_SEARCHES = "faiss.contrib.torch_utils"

sys.modules[_REPLACES_SEARCHES] = None  # type: ignore[assignment]
try:
    from pytorch_metric_learning import losses, miners
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
finally:
    del sys.modules[_REPLACES_SEARCHES]

__all__ = ["AccuracyCalculator", "losses", "miners"]
