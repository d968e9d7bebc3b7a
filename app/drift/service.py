"""How p-values of served answers are spread over time: still as those of normal images, or not."""

from datetime import datetime, timedelta
from typing import Any

from app.clock import shown
from app.collections.repository import require
from app.collections.settings import CollectionSettings
from app.core import Core
from app.drift import repository
from app.drift.counting import hour_of
from models.drift import (
    EDGES,
    IMAGES_MIN,
    Counted,
    Drift,
    drift_between,
    drift_from_calibration,
    nothing_counted,
)

HOUR = timedelta(hours=1)
WATCHED_HOURS = 24  # what /metrics tells of


def show_drift(
    core: Core, name: str, scorer: str, hours: int, level: float, rate: float | None, against: str
) -> dict[str, Any]:
    """What the p-values of a scorer's answers in the last hours say, and the numbers behind it.

    `drifted` is null while fewer than 30 images have been scored, in the window or before it. What this server has
    answered until now is counted; other servers' counts come some seconds later. Raises NotFound.
    """
    core.p_values.flush(core.database)
    until = hour_of(core.clock()) + HOUR
    since = until - hours * HOUR
    with core.database.read() as session:
        row = require(session, name)
        collection = CollectionSettings.model_validate(row.settings)
        found = repository.hours(session, row.id, scorer, since, until)
        earlier = repository.hours(session, row.id, scorer, since - hours * HOUR, since)
        scorers = list(repository.scorers(session, row.id))
    given, before = _together(found), _together(earlier)
    rate = collection.false_alarm_rate if rate is None else rate
    is_enough = given.n >= IMAGES_MIN and (against == "calibration" or before.n >= IMAGES_MIN)
    drift = None
    if is_enough:
        drift = drift_between(before, given, rate) if against == "before" else drift_from_calibration(given, rate)
    return {
        "collection": name,
        "scorer": scorer,
        "scorers": scorers,
        "since": shown(since),
        "until": shown(until),
        "against": against,
        "level": level,
        "n": given.n,
        "n_before": before.n,
        "n_needed": IMAGES_MIN,
        "calibration_n": given.calibration_n,
        "enough": is_enough,
        "drifted": None if drift is None else drift.p_value <= level,
        "direction": None if drift is None else _direction(drift),
        "p_value": None if drift is None else drift.p_value,
        "spread": None if drift is None else {"gap": drift.gap, "p_value": drift.gap_p_value},
        "alarms": None if drift is None else _alarms(drift),
        "histogram": {
            "edges": list(EDGES),
            "counts": given.counts.tolist(),
            "expected": _between_edges(given.expected.tolist()),
        },
        "hours": [_hour(at, one, rate if drift is None else drift.rate) for at, one in found],
    }


def watched(core: Core, collection_id: int, scorer: str) -> tuple[float, int] | None:
    """The p-value of the last day's drift from the calibration images, and of how many images; None of too few."""
    until = hour_of(core.clock()) + HOUR
    with core.database.read() as session:
        settings = repository.settings_of(session, collection_id)
        found = repository.hours(session, collection_id, scorer, until - WATCHED_HOURS * HOUR, until)
    given = _together(found)
    if settings is None or given.n < IMAGES_MIN:
        return None
    rate = CollectionSettings.model_validate(settings).false_alarm_rate
    return drift_from_calibration(given, rate).p_value, given.n


def _together(found: list[tuple[datetime, Counted]]) -> Counted:
    return sum((one for _, one in found), nothing_counted())


def _direction(drift: Drift) -> str:
    """Which way the images have gone: stranger than the normal ones, or more alike than they are among themselves."""
    is_by_alarms = drift.seen_p_value <= drift.gap_p_value and drift.seen > drift.expected
    return "stranger" if is_by_alarms or drift.gap > 0 else "more_alike"


def _alarms(drift: Drift) -> dict[str, Any]:
    return {"rate": drift.rate, "seen": drift.seen, "expected": drift.expected, "p_value": drift.seen_p_value}


def _between_edges(cumulative: list[float]) -> list[float]:
    return [after - before for before, after in zip([0.0, *cumulative], cumulative, strict=False)]


def _hour(at: datetime, one: Counted, rate: float) -> dict[str, Any]:
    edge = max((place for place, value in enumerate(EDGES) if value <= rate), default=0)
    return {
        "at": shown(at),
        "n": one.n,
        "alarms": one.up_to(edge),
        "expected": float(one.expected[edge]),
        "calibration_n": one.calibration_n,
    }
