"""What a collection is set to: its embedding and how it judges."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

EMBEDDING_FIELDS = ("backbone", "weights", "stages", "image_size", "fit", "pooling")


class CollectionSettings(BaseModel):
    """Every setting of a collection, with its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Annotated[str, Field(max_length=64, description="torchvision ResNet that computes the embedding.")]
    weights: Annotated[
        str,
        Field(
            max_length=1024,
            description="embedded, stand-in, torchvision (brought by `oddity weights fetch`) or file:<path>.",
        ),
    ]
    stages: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4)], ...],
        Field(min_length=1, max_length=4, description="Residual stages whose pooled features are concatenated."),
    ] = (4,)
    image_size: Annotated[
        int | None, Field(ge=32, le=1024, description="Side in pixels of the network's input; null: the weights' own.")
    ] = None
    fit: Annotated[
        Literal["squash", "crop"], Field(description="Whole image resized to a square, or short side and centre crop.")
    ] = "squash"
    pooling: Annotated[
        Literal["mean", "sqrt_mean"],
        Field(
            description="Feature maps become a vector by the average of each channel, or by the square root of it, so "
            "that the strongest weigh less."
        ),
    ] = "mean"
    metric: Annotated[Literal["cosine", "l2"], Field(description="Distance between embeddings.")] = "cosine"
    normalize: Annotated[
        bool, Field(description="With l2: bring embeddings to unit length first. Cosine always does.")
    ] = False
    k: Annotated[int, Field(ge=1, le=64, description="DN2: the score is the mean distance to the k nearest.")] = 2
    neighbours: Annotated[int, Field(ge=0, le=100, description="How many nearest normal images an answer shows.")] = 3
    false_alarm_rate: Annotated[
        float,
        Field(gt=0, lt=1, description="Share of normal images that may alarm, unless a request asks for another."),
    ] = 0.01
    description: Annotated[str, Field(max_length=4096, description="Free text for people.")] = ""

    def embedding(self) -> dict[str, Any]:
        """The settings that make two embeddings comparable or not."""
        return {name: getattr(self, name) for name in EMBEDDING_FIELDS}
