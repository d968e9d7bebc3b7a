"""Paths that are asked most often take a shorter way to their endpoint.

FastAPI finds out anew for each request what an endpoint needs, which takes longer than many a search.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.dependencies import Parts, parts_asked, parts_of
from app.names import valid_name

Endpoint = Callable[[str, Request, Parts], Awaitable[Response]]


class QuickRoute(APIRoute):
    """A path with a collection's name `c` as its one parameter, whose endpoint reads the request itself.

    The endpoint is given name, request and parts at once. It is declared as any other, and stands in the document of
    the interface as any other. One that depends on more is refused when it is declared, since it would not get it.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request. Raises TypeError: the endpoint needs something else as well."""
        needs = [one.call for one in self.dependant.dependencies]
        other = [self.dependant.query_params, self.dependant.header_params, self.dependant.cookie_params]
        if needs != [parts_asked] or any(other) or self.body_field is not None:
            raise TypeError(f"The endpoint of {self.path} must take `c`, `request` and parts alone.")
        endpoint: Endpoint = self.endpoint
        usual = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                name = valid_name(request.path_params["c"])
            except ValueError:
                return await usual(request)  # which says what is wrong with it
            return await endpoint(name, request, parts_of(request))

        return handle
