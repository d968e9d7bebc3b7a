"""Names that endpoints use to receive what they need."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from app.access.caller import Caller
from app.access.gate import CALLER, Doorkeepers
from app.core import Core
from app.errors import Invalid
from app.health.checks import Checks
from app.idempotency import Key
from app.limits import Slots


def of_application(name: str) -> Callable[[Request], Any]:
    """A dependency: what the application holds under this name since it opened."""

    async def held(request: Request) -> Any:  # a plain function would run in a thread
        return getattr(request.app.state, name)

    return held


async def _caller(request: Request) -> Caller:
    caller: Caller = request.scope[CALLER]
    return caller


async def _key(
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
    if not isinstance(route, APIRoute) or reads_its_body(route):
        return
    known = {parameter.alias for parameter in route.dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise Invalid(f"`{name}`: is not a parameter of this path.", "invalid")


def reads_its_body(route: BaseRoute) -> bool:
    """Whether a path reads its own body, and says for itself what that holds."""
    return isinstance(route, APIRoute) and "requestBody" in (route.openapi_extra or {})


@dataclass(frozen=True, slots=True)
class Parts:
    """What the paths that are asked most often need; each dependency of its own would cost every request some time."""

    core: Core
    slots: Slots


def parts_of(request: Request) -> Parts:
    """What the application of a request holds."""
    state = request.app.state
    return Parts(state.core, state.slots)


async def parts_asked(request: Request) -> Parts:  # a plain function would run in a thread
    """The same, as a dependency."""
    return parts_of(request)


PartsDependency = Annotated[Parts, Depends(parts_asked)]
CoreDependency = Annotated[Core, Depends(of_application("core"))]
SlotsDependency = Annotated[Slots, Depends(of_application("slots"))]
ProbesDependency = Annotated[Slots, Depends(of_application("probes"))]  # they answer while the other slots are taken
ChecksDependency = Annotated[Checks, Depends(of_application("checks"))]
RefitsDependency = Annotated[Slots, Depends(of_application("refits"))]  # for fits that requests wait for
MappingDependency = Annotated[Slots, Depends(of_application("mapping"))]  # maps score one image hundreds of times
CallerDependency = Annotated[Caller, Depends(_caller)]  # for paths that show more than one collection
KeyDependency = Annotated[Key, Depends(_key)]  # for writes that may be repeated
DoorsDependency = Annotated[Doorkeepers, Depends(of_application("doors"))]
