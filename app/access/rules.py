"""What a request takes: which scope, on which collection. Whatever is not named here takes `admin`.

Below a collection, GET takes `read`, the POSTs that only compute take `read`, and everything else takes `write`; a new
path there needs no line here.
"""

from dataclasses import dataclass

from app.access.caller import Scope

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
# The same on every installation of this version, or nothing but a sign of life.
PUBLIC = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/favicon.ico"})
PUBLIC_FOLDER = "/static/"
# POST below a collection that changes nothing: the answer is computed from what was sent and what is stored.
COMPUTING = frozenset({("anomaly",), ("classify",), ("query",), ("groups", "anomaly"), ("explain",)})
COMPAT = ("compat", "lookoutvision", "2020-11-20", "projects")


@dataclass(frozen=True, slots=True)
class Need:
    """What a request takes. `scope` None: nothing; `everything`: a key that is not limited to some collections."""

    scope: Scope | None
    collection: str | None = None
    everything: bool = False


NOTHING = Need(None)
ADMIN = Need("admin")


def needed(method: str, path: str) -> Need:
    """What a request of this method to this path (percent signs decoded, as it is routed) takes."""
    if path in PUBLIC or path.startswith(PUBLIC_FOLDER):
        return NOTHING
    is_safe = method in SAFE
    match path.split("/")[1:]:
        case ["v1", "collections"] if is_safe:
            return Need("read")  # shows what the key sees
        case ["v1", "collections", collection, *rest]:
            computes = method == "POST" and tuple(rest) in COMPUTING
            return Need("read" if is_safe or computes else "write", collection)
        case ["v1", "scorers" | "backbones"] | ["v1", "scorers", _] if is_safe:
            return Need("read")
        case ["v1", "jobs"] | ["v1", "jobs", _] | ["v1", "jobs", _, "events"] if is_safe:
            return Need("read")  # the job's collection is looked at there
        case ["v1", "jobs", _, "cancel"] if method == "POST":
            return Need("write")
        case ["metrics"] if is_safe:
            return Need("read", everything=True)
        case [*start, collection, "models", _, "detect"] if tuple(start) == COMPAT and method == "POST":
            return Need("read", collection)
        case _:
            return ADMIN
