"""The REST reference as a page, made from the interface's own description."""

from collections.abc import Iterator
from typing import Any

VERBS = ("get", "put", "post", "patch", "delete")
HEAD = """# REST

Made from the service's own description, which it serves at `/openapi.json` and shows at `/docs`. All paths answer in
JSON unless it is said otherwise; errors are `application/problem+json` with a stable `code` and a sentence that says
what to do.
A path parameter `c` is the name of a collection.
"""


def rest_page(document: dict[str, Any]) -> str:
    """The page as Markdown: by tag, one heading for each operation, with parameters, body and answers."""
    by_tag: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for verb in VERBS:
            if verb in operations:
                operation = operations[verb]
                tag = (operation.get("tags") or ["other"])[0]
                by_tag.setdefault(tag, []).append("\n".join(_operation(verb, path, operation, document)))
    sections = [f"## {tag.capitalize()}\n\n" + "\n".join(texts) for tag, texts in by_tag.items()]
    return "\n".join([HEAD, *sections])


def _operation(verb: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    yield f"### `{verb.upper()} {path}`\n"
    yield _escaped(operation.get("description") or operation.get("summary", "")) + "\n"
    rows = [
        (one["name"], one["in"], _allowed(one.get("schema", {})), one.get("description", ""))
        for one in operation.get("parameters", [])
    ]
    content = operation.get("requestBody", {}).get("content", {})
    for kind, media in content.items():
        schema = _resolved(media.get("schema", {}), document)
        for name, field in schema.get("properties", {}).items():
            row = (name, "body", _allowed(field), field.get("description", ""))
            if all(known[0] != name for known in rows):
                rows.append(row)
        if not schema.get("properties"):
            rows.append(("the whole body", kind, "", "The bytes themselves."))
    if rows:
        yield "| parameter | where | allowed | what |\n|---|---|---|---|"
        for name, where, allowed, text in rows:
            yield f"| `{name}` | {where} | {allowed} | {_escaped(text)} |"
        yield ""
    told = [
        f"{status}: {_escaped(answer.get('description', ''))}"
        for status, answer in operation.get("responses", {}).items()
    ]
    if told:
        yield "Answers: " + "; ".join(one.rstrip(".") for one in told) + ".\n"


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference, or the one alternative beside null, stands for."""
    choices = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    if len(choices) == 1:
        schema = choices[0]
    if "$ref" in schema:
        found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def _allowed(schema: dict[str, Any]) -> str:
    """What a value may be, in few words."""
    choices = schema.get("anyOf", [schema])
    words = []
    for one in choices:
        if "enum" in one:
            words.append(", ".join(f"`{value}`" for value in one["enum"]))
        elif one.get("type") not in (None, "null"):
            low = one.get("minimum", one.get("exclusiveMinimum"))
            high = one.get("maximum", one.get("exclusiveMaximum"))
            bounds = "".join(f" {word} {value}" for word, value in (("from", low), ("to", high)) if value is not None)
            words.append(f"{one['type']}{bounds}")
    default = schema.get("default")
    if default not in (None, ""):
        words.append(f"default `{default}`")
    return "; ".join(words)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
