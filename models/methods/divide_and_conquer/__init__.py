"""A projection learnt by several learners, each a slice of it, each from a part of the images; then by all together.

Sanakoyeu, Tschernezki, Buechler, Ommer 2019, "Divide and Conquer the Embedding Space for Metric Learning",
arXiv:1906.05990.
"""

from models.methods.divide_and_conquer.division import Learners
from models.methods.divide_and_conquer.method import DivideAndConquer, DivideAndConquerParams

METHOD = DivideAndConquer

__all__ = ["METHOD", "DivideAndConquer", "DivideAndConquerParams", "Learners"]
