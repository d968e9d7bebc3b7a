"""held_out.py: which images stay out of a fit, whatever their order, whole groups together."""

import numpy as np
import pytest

from index.errors import NotFinite, WidthMismatch
from models.contract import Inputs, Reference
from models.errors import BankTooSmall, ParameterInvalid
from models.held_out import bank_rows, split, stacked_vectors


def keys_of(n):
    return np.random.default_rng(n).integers(0, 2**63, n).astype(np.uint64)


def reference(vectors, groups=()):
    ids = np.arange(len(vectors))
    half = len(vectors) // 2
    bank = [Inputs(ids[:half], vectors=vectors[:half]), Inputs(ids[half:], vectors=vectors[half:])]
    return Reference(bank=bank, keys=keys_of(len(vectors)), groups=groups)


def test_a_share_is_held_out_and_every_row_is_used_once():
    parts = split(keys_of(50), share=0.2)
    assert parts.held_out.size == 10
    assert sorted([*parts.fit, *parts.held_out]) == list(range(50))
    assert split(keys_of(50), most=4).held_out.size == 4
    assert split(keys_of(2), share=0.0).held_out.size == 1


@pytest.mark.parametrize("groups", [(), [f"g{i // 5}" for i in range(60)], [None, "a", "b"] * 20])
def test_the_order_of_the_bank_has_no_say(groups):
    keys, turn = keys_of(60), np.random.default_rng(0).permutation(60)
    parts = split(keys, groups)
    turned = split(keys[turn], [groups[i] for i in turn] if groups else ())
    assert turn[turned.fit].tolist() == parts.fit.tolist()
    assert turn[turned.held_out].tolist() == parts.held_out.tolist()


def test_groups_stay_together():
    groups = [f"part{i // 4}" if i < 80 else None for i in range(100)]
    parts = split(keys_of(100), groups)
    named = {groups[i] for i in parts.fit} & {groups[i] for i in parts.held_out}
    assert named == {None}
    assert 8 <= parts.held_out.size <= 15
    alone = split(keys_of(100))  # negative control: without groups a part is torn apart
    assert {groups[i] for i in alone.fit} & {groups[i] for i in alone.held_out} > {None}


def test_large_groups_hold_out_the_smallest_and_one_group_is_torn_apart():
    assert split(keys_of(30), ["a"] * 17 + ["b"] * 13).held_out.size == 13
    assert split(keys_of(30), ["a"] * 30, share=0.1).held_out.size == 3


def test_vectors_come_in_the_order_of_the_keys():
    vectors = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    got = bank_rows(reference(vectors), method="x", bank_min=5)
    assert (np.diff(keys_of(20)[got.ids].astype(object)) > 0).all()
    assert (vectors[got.ids] == got.vectors).all()
    assert got.is_held_out.sum() == 3
    assert got.ids[got.is_held_out].tolist() == split(keys_of(20)).held_out.tolist()


def test_each_refusal_is_named():
    vectors = np.ones((20, 3), dtype=np.float32)
    with pytest.raises(BankTooSmall, match="The bank of method `x` must hold at least 21 normal images; got 20"):
        bank_rows(reference(vectors), method="x", bank_min=21)
    with pytest.raises(ParameterInvalid, match="`groups` must have one entry per image"):
        bank_rows(reference(vectors, ["a"]), method="x", bank_min=5)
    with pytest.raises(ParameterInvalid, match="`vectors` of the inputs of method `x` must be given"):
        stacked_vectors([Inputs(np.arange(2))], method="x")
    with pytest.raises(WidthMismatch):
        stacked_vectors([Inputs(np.arange(20), vectors=vectors)], method="x", width=4)
    with pytest.raises(NotFinite):
        stacked_vectors([Inputs(np.arange(20), vectors=vectors * np.nan)], method="x")
    assert stacked_vectors([], method="x", width=4).shape == (0, 4)
