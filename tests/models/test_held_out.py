"""held_out.py: which images stay out of a fit, whatever their order, whole groups together."""

import numpy as np
import pytest

from index.errors import NotFinite, WidthMismatch
from models.contract import Inputs, Reference
from models.errors import BankTooSmall, ParameterInvalid
from models.held_out import bank_vectors, split, stacked_vectors


def keys_of(n):
    return np.random.default_rng(n).integers(0, 2**63, n).astype(np.uint64)


def reference(vectors, groups=()):
    ids = np.arange(len(vectors))
    half = len(vectors) // 2
    bank = [Inputs(ids[:half], vectors=vectors[:half]), Inputs(ids[half:], vectors=vectors[half:])]
    return Reference(bank=bank, keys=keys_of(len(vectors)), groups=groups)


def test_a_fifth_is_held_out_and_every_row_is_used_once():
    parts = split(keys_of(50))
    assert parts.calibration.size == 10
    assert sorted([*parts.fit, *parts.calibration]) == list(range(50))
    assert split(keys_of(50), most=4).calibration.size == 4


@pytest.mark.parametrize("groups", [(), [f"g{i // 5}" for i in range(60)], [None, "a", "b"] * 20])
def test_the_order_of_the_bank_has_no_say(groups):
    keys, turn = keys_of(60), np.random.default_rng(0).permutation(60)
    parts = split(keys, groups)
    turned = split(keys[turn], [groups[i] for i in turn] if groups else ())
    assert turn[turned.fit].tolist() == parts.fit.tolist()
    assert turn[turned.calibration].tolist() == parts.calibration.tolist()


def test_groups_stay_together():
    groups = [f"part{i // 4}" if i < 80 else None for i in range(100)]
    parts = split(keys_of(100), groups)
    named = {groups[i] for i in parts.fit} & {groups[i] for i in parts.calibration}
    assert named == {None}
    assert 10 <= parts.calibration.size <= 20
    alone = split(keys_of(100))  # negative control: without groups a part is torn apart
    assert {groups[i] for i in alone.fit} & {groups[i] for i in alone.calibration} > {None}


def test_large_groups_hold_out_the_smallest_and_one_group_none():
    assert split(keys_of(30), ["a"] * 17 + ["b"] * 13).calibration.size == 13
    assert split(keys_of(30), ["a"] * 30).calibration.size == 0


def test_vectors_come_in_the_order_of_the_keys():
    vectors = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    got = bank_vectors(reference(vectors), method="x", bank_min=5)
    assert (np.diff(keys_of(20)[got.fit_ids].astype(object)) > 0).all()
    assert (vectors[got.fit_ids] == got.fit).all()
    assert (vectors[got.calibration_ids] == got.calibration).all()
    assert got.calibration.shape == (4, 3)


def test_each_refusal_is_named():
    vectors = np.ones((20, 3), dtype=np.float32)
    with pytest.raises(BankTooSmall, match="at least 21 normal images, not all of one group; got 20"):
        bank_vectors(reference(vectors), method="x", bank_min=21)
    with pytest.raises(BankTooSmall, match="not all of one group"):
        bank_vectors(reference(vectors, ["a"] * 20), method="x", bank_min=5)
    with pytest.raises(ParameterInvalid, match="`groups` must have one entry per image"):
        bank_vectors(reference(vectors, ["a"]), method="x", bank_min=5)
    with pytest.raises(ParameterInvalid, match="`vectors` of the inputs of method `x` must be given"):
        stacked_vectors([Inputs(np.arange(2))], method="x")
    with pytest.raises(WidthMismatch):
        stacked_vectors([Inputs(np.arange(20), vectors=vectors)], method="x", width=4)
    with pytest.raises(NotFinite):
        stacked_vectors([Inputs(np.arange(20), vectors=vectors * np.nan)], method="x")
    assert stacked_vectors([], method="x", width=4).shape == (0, 4)
