"""Which learner, a slice of the embedding, learns from which images."""

import numpy as np
from numpy.typing import NDArray

from index import kmeans
from index.distances import unit_rows
from models.learners import Members, matched, slices_of


class Learners:
    """K slices of an embedding and the images of each, divided anew every few epochs until all join.

    Chance is of its own, so that with one learner nothing differs from a training without.
    """

    def __init__(self, count: int, width: int, *, every: int, divided: int, seed: int) -> None:
        """`divided` epochs apart, then together; a new division `every` so many epochs."""
        self.slices = slices_of(width, count)
        self.members: list[Members] = []
        """Of each learner; a learner without images does not learn."""
        self._every = every
        self._divided = divided
        self._seed = seed
        self._random = np.random.default_rng(seed)

    def renew(self, epoch: int, embeddings: NDArray[np.float32]) -> None:
        """Divide the images by k-means on the full embedding; each cluster goes to the learner that knew most of it."""
        if epoch >= self._divided or epoch % self._every:
            return
        if len(self.slices) == 1:
            self.members = [np.arange(len(embeddings))]
            return
        _, clusters = kmeans(unit_rows(embeddings), len(self.slices), seed=self._seed)
        found = [np.flatnonzero(clusters == one) for one in range(len(self.slices))]
        self.members = matched(self.members, found) if self.members else found

    def turn(self, epoch: int) -> tuple[Members | None, slice]:
        """The images and the slice of the learner whose turn it is; all images and the whole embedding at the end."""
        if epoch >= self._divided:
            return None, slice(None)
        learning = [place for place, rows in enumerate(self.members) if rows.size]
        place = learning[int(self._random.integers(len(learning)))]
        rows = self.members[place]
        return (None if len(self.slices) == 1 else rows), self.slices[place]
