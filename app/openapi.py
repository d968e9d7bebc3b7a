"""Hand-written OpenAPI parts for bodies that one reader dispatches on content type."""

from typing import Any

from app.access.rules import needed

REFUSALS = {
    "401": {"description": "No API key, or one that is unknown, revoked or expired; only where keys are asked for."},
    "403": {"description": "The key lacks the scope, or is not for this collection."},
    "429": {"description": "The key has made all the requests that it may make for now; see `Retry-After`."},
}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}


def images_body(**fields: str) -> dict[str, Any]:
    """The three ways to send images, with these further form fields (name -> what it is)."""
    properties: dict[str, Any] = {name: {"type": "string", "description": text} for name, text in fields.items()}
    files = {"type": "array", "items": {"type": "string", "format": "binary"}, "description": "Images, in order."}
    binary = {"schema": {"type": "string", "format": "binary"}}
    image = {
        "oneOf": [
            {"type": "string", "contentEncoding": "base64"},
            {
                "type": "object",
                "required": ["content"],
                "properties": {"content": {"type": "string", "contentEncoding": "base64"}},
            },
        ]
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": {"type": "object", "properties": {"files": files, **properties}}},
                "image/jpeg": binary,
                "image/png": binary,
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {"images": {"type": "array", "items": image}, **_any(fields)},
                    },
                    "example": {"images": ["<base64>"]},
                },
            },
        }
    }


def file_body(field: str, description: str, kinds: list[str], **fields: str) -> dict[str, Any]:
    """One large file, as a part of a form or as the whole body, with these further fields (name -> what it is)."""
    properties: dict[str, Any] = {name: {"type": "string", "description": text} for name, text in fields.items()}
    file = {"type": "string", "format": "binary", "description": description}
    form = {"schema": {"type": "object", "properties": {field: file, **properties}}}
    raw = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}
    document = {"schema": {"type": "object", "properties": _any(fields)}}
    content = {"multipart/form-data": form, **raw, "application/json": document}
    return {"requestBody": {"required": True, "content": content}}


def add_security(document: dict[str, Any]) -> None:
    """Say in the document of the interface where a key goes, which scope a path takes, and how it is refused."""
    document.setdefault("components", {})["securitySchemes"] = SCHEMES
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            need = needed(verb.upper(), path)
            if need.scope is None:
                continue
            # Bearer schemes have had scopes since OpenAPI 3.1.
            operation["security"] = [{name: [need.scope]} for name in SCHEMES]
            operation["responses"] = {**REFUSALS, **operation["responses"]}


def _any(fields: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text} for name, text in fields.items()}
