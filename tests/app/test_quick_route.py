"""app/quick_route.py: what would be left out on the shorter way is refused when it is declared."""

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel

from app.dependencies import KeyDependency, PartsDependency
from app.names import CollectionName
from app.quick_route import QuickRoute
from app.scoring.endpoints import score_images


class Asked(BaseModel):
    k: int


async def plain(c: CollectionName, request: Request, parts: PartsDependency) -> Response:
    return Response()


async def with_query(c: CollectionName, request: Request, parts: PartsDependency, k: int = 2) -> Response:
    return Response()


async def with_header(
    c: CollectionName, request: Request, parts: PartsDependency, given: Annotated[str, Header()] = ""
) -> Response:
    return Response()


async def with_key(c: CollectionName, request: Request, parts: PartsDependency, key: KeyDependency) -> Response:
    return Response()


async def with_body(c: CollectionName, request: Request, parts: PartsDependency, asked: Asked) -> Response:
    return Response()


@pytest.mark.parametrize("endpoint", [with_query, with_header, with_key, with_body])
def test_an_endpoint_that_needs_more_is_refused(endpoint: Any) -> None:
    with pytest.raises(TypeError, match="alone"):
        APIRouter(route_class=QuickRoute).add_api_route("/{c}", endpoint, methods=["POST"])


def test_so_is_one_whose_router_asks_for_more() -> None:
    router = APIRouter(route_class=QuickRoute, dependencies=[Depends(lambda: None)])
    with pytest.raises(TypeError, match="alone"):
        router.add_api_route("/{c}", plain, methods=["POST"])


@pytest.mark.parametrize("endpoint", [plain, score_images])
def test_one_that_needs_no_more_is_taken(endpoint: Any) -> None:
    router = APIRouter(route_class=QuickRoute)
    router.add_api_route("/{c}", endpoint, methods=["POST"])
    assert [route.path for route in router.routes] == ["/{c}"]
