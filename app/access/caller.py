"""Who a request is from, and what of the record that caller may see."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, or_, true
from sqlalchemy.orm import InstrumentedAttribute

Scope = Literal["read", "write", "admin"]
EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Caller:
    """A key, as far as it concerns what it may do; or whoever reaches a server that asks for none."""

    key_id: str | None
    name: str
    scopes: frozenset[str]
    collections: tuple[str, ...]  # names, or beginnings of names that end in `*`

    def may(self, scope: Scope) -> bool:
        """Whether it may do what takes this scope; `admin` may everything."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def sees_everything(self) -> bool:
        """Whether no collection is closed to it, also none that will be made."""
        return EVERYTHING in self.collections

    def sees(self, collection: str | None) -> bool:
        """Whether a collection of this name, there or not, is one of its own; None: something that has none."""
        if self.sees_everything:
            return True
        return collection is not None and any(
            collection.startswith(one[:-1]) if one.endswith(EVERYTHING) else collection == one
            for one in self.collections
        )

    def seen(self, name: InstrumentedAttribute[str] | ColumnElement[str]) -> ColumnElement[bool]:
        """The same as SQL. Not LIKE: SQLite's takes capital and small letters for equal."""
        if self.sees_everything:
            return true()
        beginnings = [one[:-1] for one in self.collections if one.endswith(EVERYTHING)]
        parts: list[Any] = [name.in_([one for one in self.collections if not one.endswith(EVERYTHING)])]
        parts += [func.substr(name, 1, len(one)) == one for one in beginnings]
        return or_(*parts)


# Where no key is asked for; and what has no key where one is.
ANYBODY = Caller(None, "", frozenset({"admin"}), (EVERYTHING,))
STRANGER = Caller(None, "", frozenset(), ())
# Of the request that is worked on, also in the threads that work on it; jobs and commands are nobody's request.
current: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)
