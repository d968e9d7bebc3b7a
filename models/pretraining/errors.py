"""What training a backbone refuses, as one tree. It happens on a command line, never inside a request.

ModelsError
    PretrainingError
        TrainingSetInvalid      the packed images or their targets are absent, damaged or not allowed
        CheckpointMismatch      the checkpoint was written by another recipe
        TrainingDiverged        the loss is no longer a number
        ExportInvalid           the weights cannot be shipped as they are
"""

from models.errors import ModelsError


class PretrainingError(ModelsError):
    """Root of what training a backbone refuses."""


class TrainingSetInvalid(PretrainingError):
    """The packed images or their targets are absent, damaged or not allowed."""


class CheckpointMismatch(PretrainingError):
    """The checkpoint was written by another recipe, or on other data."""


class TrainingDiverged(PretrainingError):
    """The loss is no longer a number; a lower learning rate may help."""


class ExportInvalid(PretrainingError):
    """The weights cannot be shipped as they are."""
