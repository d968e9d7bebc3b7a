"""Which images have a class, and classes that are kept apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contract import Inputs, Reference
from models.errors import FitRefused
from models.similarity.labelled import classes_apart, labelled_images


@given(st.integers(2, 60), st.floats(0.1, 0.9), st.integers(2, 10))
def test_no_class_has_two_parts(count, test_share, folds):
    apart = classes_apart(count, test_share=test_share, folds=folds)
    validating = [one for fold in apart.folds for one in fold]
    assert len(set(validating)) == len(validating)
    assert sorted((*apart.test, *apart.development)) == list(range(count))
    if apart.folds:
        assert sorted(validating) == list(apart.development)
    for place, fold in enumerate(apart.folds):
        learnt = apart.learnt(place)
        assert len(fold) >= 2 and len(learnt) >= 2
        assert not {*learnt} & {*fold} and not {*learnt} & {*apart.test}
    assert len(apart.test) != 1, "one class alone is always nearest to itself"


@pytest.mark.parametrize(("count", "tested", "folds"), [(3, 0, 0), (4, 2, 0), (6, 3, 0), (8, 4, 2), (16, 8, 4)])
def test_few_classes_are_chosen_by_less(count, tested, folds):
    apart = classes_apart(count, test_share=0.5, folds=4)
    assert (len(apart.test), len(apart.folds)) == (tested, folds)


def inputs(first: int, vectors, labels=()) -> list[Inputs]:
    rows = np.array(vectors, np.float32)
    return [Inputs(ids=np.arange(first, first + len(rows)), vectors=rows, labels=labels)]


def test_labels_of_images_and_registered_classes_are_one():
    reference = Reference(
        bank=inputs(0, [[0, 1], [0, 2], [0, 3]], ["a", None, "b"]),
        keys=np.arange(3, dtype=np.uint64),
        labels={"a": inputs(10, [[1, 1], [1, 2]])},
        anomalous=inputs(20, [[2, 1], [2, 2]], ["b", "lonely"]),
    )
    found = labelled_images(reference, method="m")
    of = {name: found.vectors[found.classes == place].tolist() for place, name in enumerate(found.names)}
    assert of == {"a": [[0, 1], [1, 1], [1, 2]], "b": [[0, 3], [2, 1]]}


def test_one_class_is_refused():
    reference = Reference(bank=(), keys=np.zeros(0, np.uint64), labels={"a": inputs(0, [[1, 1], [1, 2]])})
    with pytest.raises(FitRefused, match=r"two or more classes.*got 1\."):
        labelled_images(reference, method="m")
