"""What a benchmark refuses.

BenchmarkRefused    the folder or the options do not allow the measurement asked for
└── TooFewSets          not enough test images for sets of that size
"""


class BenchmarkRefused(Exception):
    """The folder or the options do not allow the measurement asked for; the sentence says why."""


class TooFewSets(BenchmarkRefused):
    """Not enough test images for sets of that size."""
