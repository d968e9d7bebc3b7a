"""Every method keeps what the contract promises; each check is shown to fail on a method broken in just that way."""

import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from models.catalog import installed
from models.fitted_files import state_bytes
from tests.contract.broken_methods import ALSO_BROKEN, BROKEN, CARD, Sound
from tests.contract.method_checks import CHECKS, all_pictures
from tests.contract.method_world import Subject
from tests.third_party import METHODS, install

ROOT = Path(__file__).parents[2]
FITTED = [name for name in installed() if not installed()[name].live]
# Roles whose score need not rise with a defect: an embedding, for one, may come with any score.
SCORING = ("scorer", "classifier", "cleaner")


@cache
def subject(name: str) -> Subject:
    return Subject(installed()[name], installed().method(name))


def holds(check: str, one: Subject) -> None:
    if check in one.card.exceptions or (check == "planted_defect" and one.card.role not in SCORING):
        return
    CHECKS[check](one)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", FITTED)
def test_a_method_keeps_the_contract(name: str, check: str) -> None:
    holds(check, subject(name))


@pytest.mark.parametrize("name", [name for name in installed() if installed()[name].live])
def test_a_live_method_refuses_wrong_parameters(name: str) -> None:
    CHECKS["parameters"](subject(name))


@pytest.mark.parametrize("check", CHECKS)
def test_the_sound_method_passes(check: str) -> None:
    CHECKS[check](Subject(CARD, Sound))


@pytest.mark.parametrize(("check", "broken"), [*BROKEN.items(), *ALSO_BROKEN])
def test_each_check_catches_what_it_is_for(check: str, broken: Subject) -> None:
    with pytest.raises((AssertionError, ValueError)):
        CHECKS[check](broken)


def test_there_is_a_broken_method_for_each_check() -> None:
    assert set(BROKEN) == set(CHECKS) and len(CHECKS) == 12


RESTORE = """
import json, sys
import numpy as np
from models.catalog import installed
from models.fitted_files import read_state
from tests.contract.method_checks import all_pictures
from tests.contract.method_world import Subject
for name, sha256 in json.load(sys.stdin).items():
    one = Subject(installed()[name], installed().method(name))
    state = read_state(open(f"{sys.argv[1]}/{name}.state", "rb").read(), method=name, sha256=sha256)
    scores = one.method.restore(state).score(one.inputs(all_pictures())).image
    np.save(f"{sys.argv[1]}/{name}.npy", scores)
"""


def in_a_fresh_process(script: str, *arguments: str, given: str = "", path: str = "") -> str:
    """What a script prints in a process that has imported nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", script, *arguments],
        input=given,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{path}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_restored_in_a_fresh_process_scores_the_same(tmp_path: Path) -> None:
    hashes = {}
    for name in FITTED:
        data = state_bytes(name, subject(name).scorer.export())
        (tmp_path / f"{name}.state").write_bytes(data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    in_a_fresh_process(RESTORE, str(tmp_path), given=json.dumps(hashes))
    for name in FITTED:
        found = np.load(tmp_path / f"{name}.npy", allow_pickle=False)
        assert np.array_equal(found, subject(name).scorer.score(subject(name).inputs(all_pictures())).image), name


THIRD_PARTY = """
from models.catalog import installed
from tests.contract.method_checks import CHECKS
from tests.contract.method_world import Subject
for name in ("spread",):
    card = installed()[name]
    one = Subject(card, installed().method(name))
    for check in CHECKS.values():
        check(one)
    print(card.title)
print(sorted(installed()))
"""


def test_a_method_of_a_third_party_is_found_and_kept_to_the_same_contract(tmp_path: Path) -> None:
    told = in_a_fresh_process(THIRD_PARTY, path=str(install(tmp_path))).splitlines()
    assert told[0] == "A method of somebody else"
    assert set(METHODS) <= set(json.loads(told[1].replace("'", '"')))
    # Negative control: without the installation it is not there.
    assert not set(METHODS) & set(installed())
