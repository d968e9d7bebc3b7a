"""Banks of vectors for the tests of fitted methods, and what every fitted scorer must hold."""

import json

import numpy as np

from models.contract import FittedState, Inputs, Reference


def inputs_of(vectors) -> Inputs:
    vectors = np.asarray(vectors, dtype=np.float32)
    return Inputs(ids=np.arange(len(vectors)), vectors=vectors)


def keys_of(n: int) -> np.ndarray:
    return (np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)


def bank_of(vectors, *, labels=None, groups=()) -> Reference:
    """A bank in batches of 64, ids 100, 101, ..."""
    vectors = np.asarray(vectors, dtype=np.float32)
    ids = 100 + np.arange(len(vectors))
    batches = [Inputs(ids=ids[i : i + 64], vectors=vectors[i : i + 64]) for i in range(0, len(vectors), 64)]
    classes = {name: [inputs_of(rows)] for name, rows in (labels or {}).items()}
    return Reference(bank=batches, keys=keys_of(len(vectors)), groups=groups, labels=classes)


def through_json(state: FittedState) -> FittedState:
    """A state as it comes back from storage."""
    for name, array in state.arrays.items():
        assert isinstance(array, np.ndarray), name
        assert array.dtype != object, name
    return FittedState(
        arrays={name: array.copy() for name, array in state.arrays.items()},
        values=json.loads(json.dumps(dict(state.values), allow_nan=False)),
    )


def assert_scores_hold(method, scorer, inputs: Inputs) -> None:
    """Scores are float32 and finite, the same alone and in any order, and the same from a restored scorer."""
    together = scorer.score(inputs)
    parts = {"image": together.image, **together.terms, **together.probabilities}
    for name, values in parts.items():
        assert values.dtype == np.float32, name
        assert values.shape[0] == len(inputs), name
        assert np.isfinite(values).all(), name
    turned = np.random.default_rng(0).permutation(len(inputs))
    again = scorer.score(Inputs(ids=inputs.ids[turned], vectors=inputs.vectors[turned]))
    restored = method.restore(through_json(scorer.export())).score(inputs)
    for name in parts:
        fields = [{"image": one.image, **one.terms, **one.probabilities}[name] for one in (again, restored)]
        assert fields[0].tobytes() == parts[name][turned].tobytes(), name
        assert fields[1].tobytes() == parts[name].tobytes(), name
    for number in range(min(5, len(inputs))):
        alone = scorer.score(Inputs(ids=inputs.ids[[number]], vectors=inputs.vectors[[number]]))
        for name in parts:
            field = {"image": alone.image, **alone.terms, **alone.probabilities}[name]
            assert field.tobytes() == parts[name][[number]].tobytes(), name
