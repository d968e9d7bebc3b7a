"""Headers that every answer carries unless it has its own: what a browser may do with it. No other site gets any."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

DEFAULTS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
)
NOT_KEPT = (b"cache-control", b"no-store")  # data of whoever asked; images' bytes say otherwise themselves


class SecurityHeaders:
    """ASGI middleware: adds what is missing. The pages' own policy is in `app.page`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = (*DEFAULTS, NOT_KEPT) if scope["path"].startswith("/v1/") else DEFAULTS

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(one for one in wanted if one[0] not in given)]
            await send(message)

        await self.app(scope, receive, with_headers)
