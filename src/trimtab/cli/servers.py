"""A URL where other verbs have a model: the client of a server, and its errors in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from trimtab.errors import FormatError, InputError, TrimtabError, Unsupported

if TYPE_CHECKING:
    import httpx

#: Seconds without a byte after which a server counts as gone: a long prompt is silent for a while.
SILENCE = 120.0
#: Addresses that only this machine reaches.
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def is_url(text: str) -> bool:
    """Whether MODEL is a server rather than a model."""
    return text.startswith(("http://", "https://"))


def connect(url: str, key: str | None, transport: Any = None) -> httpx.Client:
    """A client of the server at `url`, with or without /v1 at its end."""
    try:
        import httpx
    except ImportError as error:
        raise Unsupported("talking to a server needs httpx: pip install 'trimtab[serve]'") from error
    if "," in url:
        raise InputError(f"this talks to one server, got {url}; several addresses are for --engine remote")
    base = url.rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    here = urlsplit(base).hostname in LOOPBACK  # no proxy reaches this machine's own ports
    return httpx.Client(
        base_url=base, headers=headers, timeout=SILENCE, transport=transport, trust_env=not here
    )


def asked(client: httpx.Client, method: str, path: str, **more: Any) -> Any:
    """JSON of a route; what went wrong in words."""
    import httpx

    try:
        answer = client.request(method, path, **more)
    except httpx.HTTPError as error:
        raise TrimtabError(f"{client.base_url} does not answer: {error}") from error
    if answer.status_code != 200:
        raise server_error(answer.status_code, answer.text, path)
    try:
        return answer.json()
    except ValueError as error:
        raise FormatError(f"{client.base_url}{path} did not answer in JSON") from error


def server_error(status: int, text: str, path: str) -> TrimtabError:
    """An answer that is none, from its status and body."""
    try:
        said = str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        said = text[:300] or "no reason given"
    kind = InputError if status < 500 else TrimtabError
    return kind(f"the server refused {path} ({status}): {said}")
