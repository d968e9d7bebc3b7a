"""Names that endpoints use to receive what they need."""

from typing import Annotated

from fastapi import Depends, Request

from app.core import Core
from app.limits import Slots


def _core(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


def _slots(request: Request) -> Slots:
    slots: Slots = request.app.state.slots
    return slots


CoreDependency = Annotated[Core, Depends(_core)]
SlotsDependency = Annotated[Slots, Depends(_slots)]
