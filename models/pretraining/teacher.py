"""A TFLite or OpenVINO classifier as a teacher; the only module here that needs OpenVINO."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.backbones.weights import file_sha256
from models.openvino_import import openvino
from models.pretraining.errors import TrainingSetInvalid


class OpenVinoTeacher:
    """A classifier whose head is a mean over the map followed by one convolution, as MobileNetV2's is.

    The graph is cut behind both, so that the features and the logits come out and the size of the input is
    free. The file's own input type is kept: a quantised TFLite graph reads the 8-bit levels as they are.
    """

    def __init__(self, path: Path, *, image_size: int, batch: int, threads: int) -> None:
        """Raises TrainingSetInvalid: the file is no such classifier."""
        self.name = path.name
        self.image_size = image_size
        self._batch = batch
        core = openvino.Core()
        try:
            self.sha256 = file_sha256(path)
            graph = core.read_model(path)
            cut = openvino.Model(_features_and_logits(graph), graph.get_parameters(), "teacher")
            cut.reshape([batch, image_size, image_size, 3])
            self._compiled = core.compile_model(
                cut,
                "CPU",
                {
                    # Else it is bf16 where the processor has that, and the targets would hang on the machine.
                    "INFERENCE_PRECISION_HINT": "f32",
                    "PERFORMANCE_HINT": "LATENCY",
                    "INFERENCE_NUM_THREADS": threads,
                },
            )
        except (OSError, RuntimeError) as error:
            raise TrainingSetInvalid(
                f"`path` of a teacher must name a classifier OpenVINO reads; got {path}: {str(error).splitlines()[0]}."
            ) from error
        self._dtype = self._compiled.inputs[0].get_element_type().to_dtype()

    def ask(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Pooled features and logits of each image; fewer images than the batch are padded with black.

        Shapes: pixels (B, S, S, 3), B at most the teacher's batch -> features (B, F), logits (B, C).
        """
        count = len(pixels)
        assert count <= self._batch
        asked = np.zeros((self._batch, self.image_size, self.image_size, 3), dtype=self._dtype)
        asked[:count] = pixels
        told = self._compiled(asked)
        features, logits = (np.array(told[port], dtype=np.float32).reshape(self._batch, -1)[:count] for port in (0, 1))
        return features, logits


def _features_and_logits(graph: Any) -> list[Any]:
    nodes = graph.get_ordered_ops()
    means = [node for node in nodes if node.get_type_name() == "ReduceMean"]
    convolutions = [node for node in nodes if node.get_type_name() == "Convolution"]
    if not means or not convolutions or nodes.index(means[-1]) > nodes.index(convolutions[-1]):
        raise TrainingSetInvalid(
            "`path` of a teacher must name a classifier that ends in a mean and a convolution; got another "
            "kind of head."
        )
    logits = convolutions[-1].output(0)
    following = [target.get_node() for target in logits.get_target_inputs()]
    if len(following) == 1 and following[0].get_type_name() == "Add":  # the bias
        logits = following[0].output(0)
    return [means[-1].output(0), logits]
