"""A projection of the vectors in which images of one class lie together, chosen and measured by a fair protocol.

Musgrave, Belongie, Lim 2020, "A Metric Learning Reality Check", arXiv:2003.08505: compared at the same trunk, batches
and number of trials, on classes that nothing was chosen by, losses differ far less than their papers say.
"""

from models.methods.metric_learning.method import MetricLearning, MetricLearningParams

METHOD = MetricLearning

__all__ = ["METHOD", "MetricLearning", "MetricLearningParams"]
