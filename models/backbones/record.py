"""What is known about one backbone without loading it."""

from dataclasses import dataclass

from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

STAGES = (1, 2, 3, 4)
TORCHVISION_URL = "https://download.pytorch.org/models/"


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """Architecture, published weights and the preprocessing they were trained with: inseparable facts.

    `name` is torchvision's name of the architecture and of its constructor. The published file carries the
    first eight digits of its SHA-256 in its own name.
    """

    name: str
    blocks: tuple[int, int, int, int]  # residual blocks in each stage
    stage_widths: tuple[int, int, int, int]  # channels of each stage
    weights_file: str
    weights_tag: str = "IMAGENET1K_V1"
    weights_licence: str = "BSD-3-Clause (torchvision); trained on ImageNet-1k, whose terms are for research"
    image_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def weights_url(self) -> str:
        return TORCHVISION_URL + self.weights_file

    @property
    def weights_sha256_prefix(self) -> str:
        return self.weights_file.rpartition("-")[2].removesuffix(".pth")
