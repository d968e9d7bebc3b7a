"""Names that endpoints use to receive what they need."""

from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.routing import APIRoute

from app.access.caller import Caller
from app.access.gate import CALLER, Doorkeepers
from app.core import Core
from app.errors import Invalid
from app.health.checks import Checks
from app.idempotency import Key
from app.limits import Slots


def _core(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


def _slots(request: Request) -> Slots:
    slots: Slots = request.app.state.slots
    return slots


def _refits(request: Request) -> Slots:
    slots: Slots = request.app.state.refits
    return slots


def _probes(request: Request) -> Slots:
    slots: Slots = request.app.state.probes
    return slots


def _checks(request: Request) -> Checks:
    checks: Checks = request.app.state.checks
    return checks


def _mapping(request: Request) -> Slots:
    slots: Slots = request.app.state.mapping
    return slots


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope[CALLER]
    return caller


def _doors(request: Request) -> Doorkeepers:
    doors: Doorkeepers = request.app.state.doors
    return doors


def _key(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="A repeat under the same key gets the first answer."),
    ] = None,
) -> Key:
    path: str = request.scope["route"].path_format.format(**request.path_params)
    return Key(f"{request.method} {path}", idempotency_key)


def replayed(is_repeat: bool) -> dict[str, str]:
    """Headers that tell a caller whether this is the answer to an earlier request under the same key."""
    return {"Idempotent-Replayed": "true"} if is_repeat else {}


async def refuse_unknown_parameters(request: Request) -> None:
    """Refuse a query parameter that the path does not know: a misspelt filter must not answer as if it were none.

    Paths that read their own body check form fields and query together, and are left to do so.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or "requestBody" in (route.openapi_extra or {}):
        return
    known = {parameter.alias for parameter in route.dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise Invalid(f"`{name}`: is not a parameter of this path.", "invalid")


CoreDependency = Annotated[Core, Depends(_core)]
SlotsDependency = Annotated[Slots, Depends(_slots)]
ProbesDependency = Annotated[Slots, Depends(_probes)]  # answers to probes while every other slot is taken
ChecksDependency = Annotated[Checks, Depends(_checks)]
RefitsDependency = Annotated[Slots, Depends(_refits)]  # for fits that requests wait for
MappingDependency = Annotated[Slots, Depends(_mapping)]  # for maps, which score one image hundreds of times
CallerDependency = Annotated[Caller, Depends(_caller)]  # for paths that show more than one collection
KeyDependency = Annotated[Key, Depends(_key)]  # for writes that may be repeated
DoorsDependency = Annotated[Doorkeepers, Depends(_doors)]
