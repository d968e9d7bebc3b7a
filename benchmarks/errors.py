"""What a benchmark refuses.

BenchmarkRefused    the folder or the options do not allow the measurement asked for
"""


class BenchmarkRefused(Exception):
    """The folder or the options do not allow the measurement asked for; the sentence says why."""
