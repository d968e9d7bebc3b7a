"""Classes divided among slices of the vector, each of which learns its own apart from the others."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index import kmeans
from index.distances import unit_rows
from models.learners import matched, slices_of


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What one step learns while the learners are apart: images of some classes, by some columns of the vector."""

    rows: NDArray[np.int64]  # of the training set
    classes: NDArray[np.int64]  # ascending: those that are told from one another
    columns: slice


class Division:
    """Which slice of the vector learns which classes.

    Source:  Sanakoyeu et al. 2019, arXiv:1906.05990, section 3.
    Differs: the rows of the map to the classes are clustered and not the vectors of all images, so that no pass over
        the images is needed; and a class is told from the others of its cluster by their cross-entropy.
    """

    def __init__(self, labels: NDArray[np.int64], classes: int, learners: int, width: int, seed: int) -> None:
        """`labels` are of all images, from 0 to `classes` - 1."""
        self.learner_of: NDArray[np.int64] | None = None  # for each class; None before the first division
        self._labels = labels
        self._classes = classes
        self._slices = slices_of(width, learners)
        self._seed = seed

    def renew(self, prototypes: NDArray[np.float32]) -> None:
        """Divide the classes by k-means on their directions; each cluster goes to the learner that knew most of it.

        Shapes: prototypes (classes, width).
        """
        _, clusters = kmeans(unit_rows(prototypes), len(self._slices), seed=self._seed)
        found = [np.flatnonzero(clusters == one) for one in range(len(self._slices))]
        if self.learner_of is not None:
            found = matched([np.flatnonzero(self.learner_of == one) for one in range(len(self._slices))], found)
        self.learner_of = np.empty(self._classes, np.int64)
        for learner, members in enumerate(found):
            self.learner_of[members] = learner

    def state(self) -> Tensor | None:
        """What `restore` takes."""
        return None if self.learner_of is None else torch.from_numpy(self.learner_of)

    def restore(self, state: Tensor | None) -> None:
        """The division as it was."""
        self.learner_of = None if state is None else state.numpy()

    def lesson(self, step: int, count: int) -> Lesson:
        """So many images for the learner whose turn it is; how often that is goes by the images of its classes."""
        assert self.learner_of is not None
        random = np.random.default_rng([self._seed, step, 2])  # with 1 the trainer pairs the images of a step
        learner_of_image = self.learner_of[self._labels]
        learner = int(learner_of_image[random.integers(len(learner_of_image))])
        among = np.flatnonzero(learner_of_image == learner)
        rows = random.choice(among, count, replace=len(among) < count)
        return Lesson(rows, np.flatnonzero(self.learner_of == learner), self._slices[learner])
