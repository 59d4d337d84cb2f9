"""The OpenAPI document: what is true of all routes is put in here, and not written at each of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from pydantic import TypeAdapter

from trimtab.server import answers, schemas

REF = "#/components/schemas/"
#: Shown beside the routes that stream them.
CHUNKS = (answers.ChatCompletionChunk, answers.TextCompletionChunk)
ERRORS = {
    "400": "The request is wrong; the message says what and where.",
    "401": "The key is wrong or missing.",
    "404": "There is no such thing.",
    "408": "The body did not arrive in time.",
    "413": "The body is longer than the operator allows.",
    "500": "The engine failed; there is no answer.",
    "503": "The server is full or shutting down; the same request may be sent again.",
    "504": "The request took longer than the operator allows.",
}
RETRY = {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer", "minimum": 0}}}


def ok(form: type[Any], description: str = "It is done.") -> dict[int | str, dict[str, Any]]:
    """The good answer of a route."""
    return {200: {"model": form, "description": description}}


#: Without a type: it is text as a whole and an object by event, and tools differ in which of them they check.
EVENTS = "text/event-stream"


def other(media: str, description: str) -> dict[int | str, dict[str, Any]]:
    """The good answer of a route that is no JSON."""
    schema: dict[str, Any] = {"type": "string"} | ({} if media.startswith("text/") else {"format": "binary"})
    if media == EVENTS:
        schema = {}
    return {200: {"description": description, "content": {media: {"schema": schema}}}}


def streamed(form: type[Any], chunk: type[Any]) -> dict[int | str, dict[str, Any]]:
    """A whole answer, or with `stream` server-sent events; the header names what was applied."""
    told = f"`data: ` and a {chunk.__name__} for each event, then `data: [DONE]`"
    header = {"description": "fingerprint of the plan that was applied", "schema": schemas.TEXT}
    return {
        200: {
            "model": form,
            "description": "The answer.",
            "content": {EVENTS: {"schema": {"description": told}}},
            "headers": {"X-Trimtab-Fingerprint": header},
        }
    }


def finish(
    app: Any, ours: Callable[[str], bool], key: bool, more: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Complete the document that `app` writes: errors and the key on every path that is `ours`, and `more`."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        found: dict[str, Any] = original()
        _forms(found)
        for path, methods in found.get("paths", {}).items():
            if ours(path):
                for operation in methods.values():
                    _complete(path, operation, key)
        if key:
            scheme = {"type": "http", "scheme": "bearer"}
            found["components"].setdefault("securitySchemes", {})["bearer"] = scheme
        if more is not None:
            more(found)
        _share(found, found["components"]["schemas"])
        return found

    app.openapi = openapi


def _forms(found: dict[str, Any]) -> None:
    """The forms that no route names by itself."""
    forms = found.setdefault("components", {}).setdefault("schemas", {})
    _, extra = TypeAdapter.json_schemas(
        [(m.__name__, "validation", TypeAdapter(m)) for m in (answers.Error, *CHUNKS)],
        ref_template=REF + "{model}",
    )
    for name, schema in extra["$defs"].items():
        forms.setdefault(name, schema)


def _share(node: Any, forms: dict[str, Any]) -> None:
    """Every schema with a name of ours stands among the components, once; elsewhere it is referred to."""
    for key, part in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if not isinstance(part, (dict, list)):
            continue
        name = part.pop(schemas.COMPONENT, None) if isinstance(part, dict) else None
        if name is not None:
            node[key] = {"$ref": REF + name}
            if name in forms:
                continue
            forms[name] = part
        _share(part, forms)


def _complete(path: str, operation: dict[str, Any], key: bool) -> None:
    told = operation.setdefault("responses", {})
    told.pop("422", None)  # what FastAPI says of itself; a malformed body is 400 here
    codes = ["503"] if path.startswith("/v1") or path == "/health" else []
    if "requestBody" in operation:
        codes += ["400", "408", "413", "500", "504"]
    if operation.get("parameters"):
        codes.append("400")
    if key and path.startswith("/v1"):
        codes.append("401")
        operation["security"] = [{"bearer": []}]
    content = {"application/json": {"schema": {"$ref": REF + "Error"}}}
    for code in [*codes, *(c for c in told if c in ERRORS)]:
        if path == "/health":  # no error: the same form, which says "closed"
            continue
        told[code] = {"description": ERRORS[code], "content": content}
        if code == "503":
            told[code]["headers"] = RETRY


def with_fields(found: dict[str, Any]) -> None:
    """Our fields in the forms of vLLM's requests and answers, which take them and do not describe them."""
    forms = found.get("components", {}).get("schemas", {})
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        forms.get(name, {}).get("properties", {}).update(deepcopy(schemas.FIELDS))
    applied = {"$ref": REF + "Applied"}
    for name in ("ChatCompletionResponse", "CompletionResponse"):
        if name in forms:
            forms[name].setdefault("properties", {})["steering_applied"] = schemas.either(
                applied, {"type": "array", "items": applied}
            )
