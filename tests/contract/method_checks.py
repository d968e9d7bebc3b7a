"""What every method promises, as checks that raise AssertionError; `CHECKS` names them."""

import hashlib
import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from models.contract import (
    BankCleaner,
    EmbeddingGiver,
    Explainer,
    FittedScorer,
    Give,
    GroupScorer,
    Inputs,
    PairAsker,
    Scores,
)
from models.errors import InputError, ParameterInvalid, StateError
from models.fitted_files import read_state, state_bytes
from tests.contract.method_world import CLEAN, DEFECT, DEFECTS, SIDE, Subject, picture, reference

BATCH_TOLERANCE = 1e-5  # of the spread of the scores: what a matrix product in another batch may round differently
THREADS = 8


def tolerance(subject: Subject) -> float | None:
    """What `repeatable` on the card allows, relative to the spread of scores; None: nothing is promised."""
    text = subject.card.repeatable
    if text == "bitwise":
        return 0.0
    if text.startswith("no"):
        assert len(text) > len("no (why)"), "`repeatable` is no without a reason"
        return None
    found = re.match(r"to (\S+)", text)
    assert found, f"`repeatable` must be bitwise, to <number>, or no with the reason; got {text!r}"
    return float(found[1])


def equal(first: np.ndarray, second: np.ndarray, allowed: float) -> bool:
    """Whether two rows of scores agree to so much of their spread."""
    if allowed == 0.0:
        return np.array_equal(first, second)
    spread = float(np.ptp(first)) or 1.0
    return bool(np.allclose(first, second, rtol=allowed, atol=allowed * spread))


def every_number(scores: Scores) -> dict[str, np.ndarray]:
    """All arrays of an answer."""
    found = {"image": scores.image, **{f"term {name}": one for name, one in scores.terms.items()}}
    if scores.pixels is not None:
        found["pixels"] = scores.pixels
    return {**found, **{f"probability {name}": one for name, one in scores.probabilities.items()}}


def all_pictures() -> list[np.ndarray]:
    return [*CLEAN[:4], *DEFECTS[:3]]


def batch_mates(subject: Subject) -> None:
    """1: an image scores the same alone, in a batch and in another order."""
    pictures = all_pictures()
    allowed = max(BATCH_TOLERANCE, tolerance(subject) or 0.0)
    together = every_number(subject.scorer.score(subject.inputs(pictures)))
    order = [3, 0, 6, 5, 1, 2, 4]
    shuffled = every_number(subject.scorer.score(subject.inputs([pictures[place] for place in order])))
    singly = [every_number(subject.scorer.score(subject.inputs([one]))) for one in pictures]
    for name, whole in together.items():
        alone = np.concatenate([one[name] for one in singly])
        assert equal(whole, alone, allowed), f"{name} alone differs from {name} in a batch"
        assert equal(whole[order], shuffled[name], allowed), f"{name} depends on the order"


def seeds(subject: Subject) -> None:
    """2: the same seed gives the same scorer; another one works too."""
    asked = subject.inputs(all_pictures())
    allowed = tolerance(subject)
    first = subject.scorer.score(asked).image
    if allowed is not None:
        assert equal(first, subject.fit().score(asked).image, allowed), "the same seed gives other scores"
    other = subject.fit(seed=2).score(asked).image
    assert np.isfinite(other).all() and other.shape == first.shape


def state_stays(subject: Subject) -> None:
    """3: scoring changes nothing in the scorer."""
    before = state_bytes(subject.card.name, subject.scorer.export())
    subject.scorer.score(subject.inputs(all_pictures()))
    assert state_bytes(subject.card.name, subject.scorer.export()) == before, "scoring changed the state"


def inputs_stay(subject: Subject) -> None:
    """4: neither fit nor score writes into what it is given."""

    def arrays(inputs: Inputs) -> list[np.ndarray]:
        return [one for one in (inputs.ids, inputs.vectors, inputs.pixels, *inputs.maps.values()) if one is not None]

    asked, learnt = subject.inputs(all_pictures()), reference(subject.needs)
    given = [*arrays(asked), *(one for batch in learnt.bank for one in arrays(batch)), learnt.keys]
    before = [one.copy() for one in given]
    subject.method.fit(learnt, seed=1).score(asked)
    assert all(map(np.array_equal, before, given)), "an input was changed"


def threads(subject: Subject) -> None:
    """5: eight threads get what one gets."""
    asked = [subject.inputs([one]) for one in all_pictures()]
    expected = [subject.scorer.score(one).image for one in asked]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda one: subject.scorer.score(one).image, asked * THREADS))
    for place, one in enumerate(found):
        assert np.array_equal(one, expected[place % len(asked)]), "threads get other scores"


def restoring(subject: Subject) -> None:
    """6: what is restored from bytes scores the same; a fresh process is tried in one go for all methods."""
    asked = subject.inputs(all_pictures())
    again = restored(subject)
    for name, one in every_number(subject.scorer.score(asked)).items():
        assert np.array_equal(one, every_number(again.score(asked))[name]), f"{name} differs after restoring"
    assert again.method == subject.card.name


def restored(subject: Subject) -> FittedScorer:
    """The scorer after its state went through bytes."""
    data = state_bytes(subject.card.name, subject.scorer.export())
    state = read_state(data, method=subject.card.name, sha256=hashlib.sha256(data).hexdigest())
    again: FittedScorer = subject.method.restore(state)
    return again


def shapes(subject: Subject) -> None:
    """7: shapes, types, finite numbers, and the range on the card."""
    pictures = all_pictures()
    found = subject.scorer.score(subject.inputs(pictures))
    b = len(pictures)
    assert found.image.shape == (b,) and found.image.dtype == np.float32
    for name, one in every_number(found).items():
        assert len(one) == b and np.isfinite(one).all(), f"{name} must be finite, one for each image"
    gives = subject.card.gives
    assert gives.low <= found.image.min() and found.image.max() <= gives.high, "outside the range on the card"
    if found.pixels is not None:
        assert found.pixels.ndim == 3 and found.pixels.dtype == np.float32
    if found.probabilities:
        assert np.allclose(sum(found.probabilities.values()), 1.0, atol=1e-4), "probabilities must add up to 1"
    for lists in (found.boxes, found.relations, *found.tags.values()):
        assert len(lists) in (0, b)


def planted_defect(subject: Subject) -> None:
    """8: a planted defect scores above clean images, and the map is hotter where it lies."""
    clean = subject.scorer.score(subject.inputs(CLEAN))
    strange = subject.scorer.score(subject.inputs(DEFECTS))
    assert strange.image.mean() > clean.image.mean(), "a planted defect does not score higher"
    if strange.pixels is not None and clean.pixels is not None:
        rise = strange.pixels.mean(axis=0) - clean.pixels.mean(axis=0)
        high, wide = rise.shape
        inside = np.zeros((high, wide), bool)
        rows = slice(DEFECT[0] * high // SIDE, max(DEFECT[0] * high // SIDE + 1, DEFECT[1] * high // SIDE))
        columns = slice(DEFECT[0] * wide // SIDE, max(DEFECT[0] * wide // SIDE + 1, DEFECT[1] * wide // SIDE))
        inside[rows, columns] = True
        if not inside.all():
            assert rise[inside].mean() > rise[~inside].mean(), "the map is not hotter where the defect lies"


def parameters(subject: Subject) -> None:
    """9: every value out of its range is refused with the standard sentence."""
    kind, name = subject.kind.Params, subject.card.name
    schema = kind.model_json_schema()
    for field, described in schema.get("properties", {}).items():
        for wrong in wrong_values(described, schema):
            try:
                kind.parse(name, {field: wrong})
            except ParameterInvalid as error:
                pattern = rf"`{field}\b.*` of method `{name}` must be .+; got .+\."
                assert re.fullmatch(pattern, str(error), re.DOTALL), f"not the standard sentence: {error}"
            else:
                raise AssertionError(f"`{field}` takes {wrong!r}")
    try:
        kind.parse(name, {"no_such_parameter": 1})
    except ParameterInvalid as error:
        assert "is not one of its parameters" in str(error)
    else:
        raise AssertionError("a parameter of no such name is taken")
    kind.parse(name, subject.card.quick)


def wrong_values(described: dict[str, Any], schema: dict[str, Any]) -> list[Any]:
    """Values that this field must refuse."""
    if "$ref" in described:
        described = schema["$defs"][described["$ref"].rsplit("/", 1)[-1]]
    if "anyOf" in described:
        refused = [wrong_values(one, schema) for one in described["anyOf"] if one.get("type") != "null"]
        return [value for value in refused[0] if all(value in others for others in refused[1:])]
    if "enum" in described or "const" in described:
        return ["nothing of the kind"]
    kind = described.get("type")
    if kind in ("integer", "number"):
        ends = [key in described for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")]
        assert any(ends[:2]) and any(ends[2:]), "a number needs both ends of its range"
        low = described.get("minimum", described.get("exclusiveMinimum"))
        high = described.get("maximum", described.get("exclusiveMaximum"))
        found: list[Any] = [low - 1, high + 1, "text"]
        found += [described[key] for key in ("exclusiveMinimum", "exclusiveMaximum") if key in described]
        return found
    if kind == "boolean":
        return ["perhaps"]
    if kind == "array":
        return ["text", 1]
    return [[1]] if kind == "string" else []


def degenerate_banks(subject: Subject) -> None:
    """10: an empty bank, one image, images all alike: it works, or a named error says what is needed."""
    for bank in ([], [picture(0)], [picture(0)] * 12):
        try:
            scorer = subject.fit(bank=bank)
            found = scorer.score(subject.inputs(CLEAN[:2])).image
            assert np.isfinite(found).all(), "scores of a degenerate bank must be finite"
        except (InputError, StateError) as error:
            assert str(error).endswith(".") and len(str(error)) > 20, f"no sentence: {error}"


def global_state() -> list[Any]:
    """Everything global that a method could disturb."""
    return [
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        np.geterr(),
    ]


def global_state_stays(subject: Subject) -> None:
    """11: global chance and the settings of torch and numpy are as they were."""
    before = global_state()
    subject.fit().score(subject.inputs(CLEAN[:2]))
    assert global_state() == before, "something global was changed"


OFFERS = {
    Give.GROUP_SCORE: GroupScorer,
    Give.EMBEDDING: EmbeddingGiver,
    Give.CLEANED_BANK: BankCleaner,
    Give.EXPLANATION: Explainer,
    Give.NEXT_PAIR: PairAsker,
}


def card_claims(subject: Subject) -> None:
    """12: what the card says is what comes out; the needs on it are enough, since nothing else was given."""
    outputs = subject.card.gives.outputs
    found = subject.scorer.score(subject.inputs(all_pictures()))
    told = {
        Give.HEAT_MAP: found.pixels is not None,
        Give.CLASS_PROBABILITIES: bool(found.probabilities),
        Give.BOXES: bool(found.boxes),
        **{give: isinstance(subject.scorer, kind) for give, kind in OFFERS.items()},
    }
    for give, is_given in told.items():
        assert (give in outputs) == is_given, f"{give} on the card: {give in outputs}; in the answer: {is_given}"
    assert subject.scorer.method == subject.kind.name == subject.card.name
    assert set(subject.card.exceptions) <= set(CHECKS), "an exception from a check that there is not"
    tolerance(subject)


CHECKS = {
    one.__name__: one
    for one in (
        batch_mates,
        seeds,
        state_stays,
        inputs_stay,
        threads,
        restoring,
        shapes,
        planted_defect,
        parameters,
        degenerate_banks,
        global_state_stays,
        card_claims,
    )
}
