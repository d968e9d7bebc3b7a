"""Why this answer? Shown by examples first, and on request by a map of the parts of the image that it rests on.

Jeyakumar, Noor, Cheng, Garcia, Srivastava 2020, "How Can I Explain This to You? An Empirical Study of Deep Neural
Network Explanation Methods": people asked preferred explanation by example for images.
"""

from models.methods.explain.cells import Attribution, Cells, Score, blurred, mean_colour
from models.methods.explain.examples import ClassExamples, Search, nearest_of_classes
from models.methods.explain.maths import Gradient, integrated_gradients, occlusion
from models.methods.explain.method import Explain, ExplainParams, MapKind

METHOD = Explain

__all__ = [
    "METHOD",
    "Attribution",
    "Cells",
    "ClassExamples",
    "Explain",
    "ExplainParams",
    "Gradient",
    "MapKind",
    "Score",
    "Search",
    "blurred",
    "integrated_gradients",
    "mean_colour",
    "nearest_of_classes",
    "occlusion",
]
