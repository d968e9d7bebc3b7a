"""The backbone that learns, with the linear maps that are thrown away afterwards."""

import torch
from torch import Tensor

from models.pretraining.small_maps import with_small_maps
from models.torchvision_import import import_torchvision


class Student(torch.nn.Module):
    """A torchvision ResNet without its classifier, and a linear map for each kind of target."""

    def __init__(self, backbone: str, *, classes: int, logits: int, features: int) -> None:
        super().__init__()
        body = getattr(import_torchvision().models, backbone)(weights=None, zero_init_residual=True)
        width = body.fc.in_features
        body.fc = torch.nn.Identity()
        self.body = with_small_maps(body)
        self.label = torch.nn.Linear(width, classes)
        self.soft = torch.nn.Linear(width, logits) if logits else None
        self.feature = torch.nn.Linear(width, features) if features else None

    def forward(self, views: Tensor, columns: slice = slice(None)) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Class scores, scores for the teacher's classes, and guesses of the teacher's features.

        Nothing is made of the vector but these columns, so that no other learns.

        Shapes: (B, 3, S, S) -> (B, classes), (B, logits) or None, (B, features) or None.
        """
        whole = self.body(views)
        pooled = torch.zeros_like(whole)
        pooled[:, columns] = whole[:, columns]
        return (
            self.label(pooled),
            None if self.soft is None else self.soft(pooled),
            None if self.feature is None else self.feature(pooled),
        )

    def backbone_weights(self) -> dict[str, Tensor]:
        """The tensors a served backbone reads, by torchvision's names."""
        return {
            name: tensor.detach()
            for name, tensor in self.body.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }


def seeded_student(backbone: str, *, classes: int, logits: int, features: int, seed: int) -> Student:
    """A student drawn from the seed; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(backbone, classes=classes, logits=logits, features=features)
    for parameter in student.parameters():
        if parameter.ndim == 4:
            # Convolutions on processors are quicker with channels innermost.
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return student
