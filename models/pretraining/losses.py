"""What is minimised, image by image, and changes to how."""

from collections.abc import Iterable

import torch
import torch.nn.functional as functional
from torch import Tensor

from models.mixing import sharpened


def soft_target_loss(scores: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Divergence of the student's softened distribution from the teacher's, times the squared temperature.

    Shapes: scores (B, C), teacher_logits (B, C) -> (B,).
    Units:  nats; >= 0, 0 where both distributions are equal. The factor keeps the size of the gradients
        from falling with the square of the temperature, so weights need not be tuned again with it.

    Source:  Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2.
    Differs: the divergence instead of the cross-entropy; they differ by the teacher's entropy, which has no
        gradient.
    """
    student = functional.log_softmax(scores / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    divergence = functional.kl_div(student, teacher, log_target=True, reduction="none").sum(dim=1)
    return temperature**2 * divergence


def feature_loss(guesses: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean squared difference between mapped student features and the teacher's.

    Shapes: (B, F), (B, F) -> (B,).

    Source:  Romero et al. 2015 (FitNets), arXiv:1412.6550, section 2.
    Differs: the map is linear, on pooled features, and trained together with everything else.
    """
    return (guesses - teacher_features).square().mean(dim=1)


def consistency_loss(scores: Tensor, copies: int, temperature: float) -> Tensor:
    """Squared difference of what is said of each view from the sharpened mean over all views of its image.

    Shapes: scores (copies * B, C), all images of the first copy first -> (copies * B,), in [0, 2].

    Source:  Berthelot et al. 2019, arXiv:1905.02249, "Label guessing" and the loss of unlabelled images.
    Differs: summed over the classes, not averaged; and a view belongs to the guess that it is held to.
    """
    shares = torch.softmax(scores, dim=1).reshape(copies, -1, scores.shape[1])
    with torch.no_grad():
        guesses = sharpened(shares.mean(dim=0), temperature)
    return (shares - guesses).square().sum(dim=2).flatten()


def worst_of(losses: Tensor, copies: int) -> Tensor:
    """Mean over the images of the largest loss among the copies of each (MaxUp).

    Shapes: losses (copies * B,), all images of the first copy first -> ().

    Source:  Gong, Ren, Ye and Liu 2020, arXiv:2002.09024, section 2.
    """
    return losses.reshape(copies, -1).amax(dim=0).mean()


def centralize_gradients(parameters: Iterable[Tensor]) -> None:
    """Take from the gradient of each convolution its mean over everything but the output channel, in place.

    Source:  Yong, Huang, Hua and Zhang 2020, arXiv:2004.01461, section 3.
    Differs: convolutions only; the linear maps are thrown away after training.
    """
    with torch.no_grad():
        for parameter in parameters:
            if parameter.ndim == 4 and parameter.grad is not None:
                parameter.grad.sub_(parameter.grad.mean(dim=(1, 2, 3), keepdim=True))
