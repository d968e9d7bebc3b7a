"""A small network learns on normal images what the backbone says of them; where they part, the image is strange.

Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531: soft targets at a
temperature, a little weight on the hard ones, and specialists for what is easily confused.
"""

from models.methods.distillation.maths import cosine_logits, distillation_loss, divergence, soft_targets
from models.methods.distillation.method import Distillation, DistillationParams, FittedDistillation
from models.methods.distillation.specialists import combined, confusable_groups, with_dustbin

METHOD = Distillation

__all__ = [
    "METHOD",
    "Distillation",
    "DistillationParams",
    "FittedDistillation",
    "combined",
    "confusable_groups",
    "cosine_logits",
    "distillation_loss",
    "divergence",
    "soft_targets",
    "with_dustbin",
]
