"""Finds the methods: their cards at once, their code when it is asked for.

A folder with a `card.toml` is the only declaration. Listing methods reads cards and imports nothing, so
that one method's heavy library is not paid for by those who never use it. Third parties declare an entry
point in the group `oddity.methods`, named like their method and pointing at the package that holds its card
and exports `METHOD`.

The catalogue is made once and does not change afterwards; there is nothing to register with later.
"""

import importlib
import importlib.util
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from models.contract import MethodCard, Params
from models.errors import CardInvalid, MethodIncomplete, MethodNameTaken, MethodUnknown

ENTRY_POINT_GROUP = "oddity.methods"
CARD_FILE = "card.toml"
_FOLDER = Path(__file__).parent / "methods"
_PACKAGE = "models.methods"


class Catalogue(Mapping[str, MethodCard]):
    """Cards by method name, in alphabetical order; the code behind each on demand."""

    def __init__(self, cards: Mapping[str, MethodCard], modules: Mapping[str, str]) -> None:
        self._cards = MappingProxyType(dict(sorted(cards.items())))
        self._modules = MappingProxyType(dict(modules))

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)

    def __contains__(self, name: object) -> bool:
        return name in self._cards

    def __getitem__(self, name: str) -> MethodCard:
        """The card of a method.

        Raises:
            MethodUnknown: no such method is installed; the sentence lists those that are.
        """
        if name not in self._cards:
            known = ", ".join(f"`{one}`" for one in self._cards)
            raise MethodUnknown(f"`scorer` must be one of {known or 'none, for none is installed'}; got {name!r}.")
        return self._cards[name]

    def method(self, name: str) -> type[Any]:
        """The class a method's package exports as `METHOD`, imported now if it was not yet.

        Raises:
            MethodUnknown: no such method is installed.
            MethodIncomplete: the package exports no `METHOD`, or one of another name or without `Params`.
        """
        self[name]
        module = self._modules[name]
        found = getattr(importlib.import_module(module), "METHOD", None)
        if not isinstance(found, type):
            raise MethodIncomplete(f"`METHOD` of package `{module}` must be a class; got {found!r}.")
        if getattr(found, "name", None) != name:
            raise MethodIncomplete(
                f"`METHOD.name` of package `{module}` must be {name!r}, as on its card; "
                f"got {getattr(found, 'name', None)!r}."
            )
        params = getattr(found, "Params", None)
        if not (isinstance(params, type) and issubclass(params, Params)):
            raise MethodIncomplete(
                f"`METHOD.Params` of package `{module}` must be a subclass of models.contract.Params; got {params!r}."
            )
        return found

    def params_schema(self, name: str) -> dict[str, Any]:
        """JSON Schema of a method's parameters: names, types, ranges, defaults, one sentence each.

        Raises:
            MethodUnknown, MethodIncomplete: as for `method`.
        """
        params: type[Params] = self.method(name).Params
        return params.model_json_schema()

    def describe(self, name: str) -> dict[str, Any]:
        """A card with its id and the schema of its parameters, as plain values that JSON can hold.

        Raises:
            MethodUnknown, MethodIncomplete: as for `method`.
        """
        card = self[name]
        plain = card.model_dump(mode="json", exclude={"name", "quick"})
        # JSON has no infinity; an open end is null.
        gives = {
            key: None if value in (float("inf"), float("-inf")) else value for key, value in plain["gives"].items()
        }
        return {"id": card.name, **plain, "gives": gives, "params": self.params_schema(name)}


@cache
def installed() -> Catalogue:
    """The methods of this repository and of third parties; read once."""
    return load_catalogue()


def load_catalogue(
    folder: Path = _FOLDER, package: str = _PACKAGE, third_party: Iterable[EntryPoint] | None = None
) -> Catalogue:
    """The catalogue of a folder of methods and of entry points.

    `third_party` is every installed entry point of the group unless it is given.

    Raises:
        CardInvalid: a card cannot be read, lacks a field, has an unknown one, or names another folder.
        MethodNameTaken: two methods carry one name.
    """
    cards: dict[str, MethodCard] = {}
    modules: dict[str, str] = {}
    places: dict[str, str] = {}

    def enter(card: MethodCard, module: str, place: str) -> None:
        if card.name in cards:
            raise MethodNameTaken(
                f"`name` of the card in {place} must be its own; got {card.name!r}, which {places[card.name]} carries."
            )
        cards[card.name], modules[card.name], places[card.name] = card, module, place

    for path in sorted(folder.glob(f"*/{CARD_FILE}")):
        enter(read_card(path, path.parent.name), f"{package}.{path.parent.name}", str(path.parent))
    for point in entry_points(group=ENTRY_POINT_GROUP) if third_party is None else third_party:
        path = _card_of(point)
        enter(read_card(path, point.name), point.module, f"{path.parent} (entry point {point.name!r})")
    return Catalogue(cards, modules)


def read_card(path: Path, expected_name: str) -> MethodCard:
    """The card in a file.

    Raises:
        CardInvalid: it is not TOML, lacks a field, has an unknown one, or carries another name than expected.
    """
    try:
        card = MethodCard.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CardInvalid(f"`{CARD_FILE}` of {path.parent} must be readable TOML; got: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CardInvalid(
            f"`{place}` of the card in {path.parent} must be as the contract says; got: {first['msg']}."
        ) from error
    if card.name != expected_name:
        raise CardInvalid(f"`name` of the card in {path.parent} must be {expected_name!r}; got {card.name!r}.")
    return card


def _card_of(point: EntryPoint) -> Path:
    # Finding a package's folder imports its parents, never the package itself.
    try:
        spec = importlib.util.find_spec(point.module)
    except ModuleNotFoundError as error:
        raise CardInvalid(
            f"Entry point {point.name!r} must point at an installed package; got {point.module!r}."
        ) from error
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise CardInvalid(f"Entry point {point.name!r} must point at a package with a card; got {point.module!r}.")
    return Path(folders[0]) / CARD_FILE
