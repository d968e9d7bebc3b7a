"""AutoIndex held in one of its states, at sizes a test can afford."""

from index import approximate, codes
from index.auto import AutoIndex, Plan

# Several blocks, waiting rows, groups without an allowed row, even with a few hundred rows.
SMALL_CODES = {"BLOCK_ROWS": 64, "UNCODED_MAX": 5, "ALLOWED_SHARE": 0.0}
# The structure answers whatever it can.
SMALL_STRUCTURES = {"ALLOWED_SHARE": 0.0, "ALLOWED_ROWS": 0, "LISTED_MAX": 1.0}


def small_codes(monkeypatch):
    for name, value in SMALL_CODES.items():
        monkeypatch.setattr(codes, name, value)


def small_structures(monkeypatch):
    for name, value in SMALL_STRUCTURES.items():
        monkeypatch.setattr(approximate, name, value)


class InState(AutoIndex):
    """Builds its structure as soon as it has the rows for it, and again where it is due."""

    recall = 0.0
    state = "flat"
    asked_exact = False

    def add(self, ids, vectors):
        super().add(ids, vectors)
        due = self._part is None or self._part.due(self)
        if due and len(self) >= (1 if self.state == "scan" else 40):
            self.adopt(self.build(Plan(self.state, "a test"), seed=0))

    def search(self, queries, k, *, allowed=None, exact=False):
        return super().search(queries, k, allowed=allowed, exact=exact or self.asked_exact)


def in_state(state, *, width, metric, exact=False):
    index = InState(width=width, metric=metric)
    index.state, index.asked_exact = state, exact
    return index
