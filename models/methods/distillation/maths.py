"""Soft targets, the loss that teaches them, and how far a student is from its teacher.

Letters: K classes (prototypes), T temperature, D features.
"""

import torch
from torch import Tensor, nn


def soft_targets(logits: Tensor, temperature: float) -> Tensor:
    """Class probabilities at a temperature: the higher, the more is told of the classes that are not the first.

    Shapes: (..., K) -> (..., K), sums 1.

    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, equation 1.
    """
    return torch.softmax(logits / temperature, dim=-1)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float, hard_weight: float, hard: Tensor) -> Tensor:
    """Cross-entropy with the teacher's soft targets times T squared, and with the hard labels, weighted together.

    The gradient of the first term shrinks as 1 / T^2; the factor keeps the two in proportion at any temperature.

    Shapes: student logits (..., K), teacher probabilities at T (..., K), hard class numbers (...) -> scalar, the mean.

    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2.
    """
    soft = -(teacher * torch.log_softmax(student / temperature, dim=-1)).sum(dim=-1).mean() * temperature**2
    known = nn.functional.cross_entropy(student.reshape(-1, student.shape[-1]), hard.reshape(-1))
    return (1 - hard_weight) * soft + hard_weight * known


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's probabilities from the teacher's.

    Shapes: log probabilities (..., K) twice -> (...). Units: nats, at least 0.
    """
    return (teacher.exp() * (teacher - student)).sum(dim=-1).clamp_min(0.0)


def cosine_logits(features: Tensor, prototypes: Tensor, sharpness: float) -> Tensor:
    """Logits of a network that has no class head: its features' cosines to prototypes, times a sharpness.

    Shapes: features (..., D), prototypes (K, D) of unit length -> (..., K) from -sharpness to sharpness.
    """
    return sharpness * (nn.functional.normalize(features, dim=-1) @ prototypes.T)
