"""Collections in which a few directions tell classes apart, and louder ones tell nothing."""

import numpy as np

from models.contract import Inputs, Reference


def collection(seed: int, *, classes: int = 12, each: int = 8, width: int = 12, bank: int = 0) -> Reference:
    """Registered classes k0, k1, ... of `each` images: 3 directions of 12 matter, 4 are loud and the same for all."""
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(width, width)))[0]
    centres = 3 * random.normal(size=(classes, 3))

    def rows(kind: int, n: int) -> np.ndarray:
        found = 0.3 * random.normal(size=(n, width))
        found[:, :3] += centres[kind]
        found[:, 3:7] += 6 * random.normal(size=(n, 4))
        return (found @ turn).astype(np.float32)

    labels = {
        f"k{kind}": [Inputs(ids=np.arange(each) + 100 * (kind + 1), vectors=rows(kind, each))]
        for kind in range(classes)
    }
    normal = [Inputs(ids=np.arange(bank), vectors=rows(0, bank))] if bank else []
    return Reference(bank=normal, keys=np.arange(bank, dtype=np.uint64), labels=labels)


def changed(reference: Reference, label: str) -> Reference:
    """The same with other images of one class."""
    (inputs,) = reference.labels[label]
    other = [Inputs(ids=inputs.ids, vectors=inputs.vectors[:, ::-1].copy() + 1)]
    return Reference(bank=reference.bank, keys=reference.keys, labels={**reference.labels, label: other})
