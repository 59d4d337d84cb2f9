"""The server's app before the tiny reference model, and how tests ask it."""

from __future__ import annotations

import json
from typing import Any

import pytest

TestClient = pytest.importorskip(
    "fastapi.testclient", reason="the server needs fastapi: pip install 'trimtab[serve]'"
).TestClient
MESSAGES = [{"role": "user", "content": "I feel"}]
PLAN = {"placements": [{"op": "add", "vector": "joy", "amount": -6.0, "layers": [1]}]}


def build(*args: Any, **kwargs: Any) -> Any:
    from trimtab.server import app

    return app.build(*args, **kwargs)


def text(**more: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "prompt": "I feel",
        "max_tokens": 8,
        "temperature": 0,
        "ignore_eos": True,
        **more,
    }


def chat(**more: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "messages": MESSAGES,
        "max_tokens": 8,
        "temperature": 0,
        "ignore_eos": True,
        **more,
    }


def ask(client: Any, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/chat/completions" if "messages" in body else "/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client: Any, body: dict[str, Any]) -> list[dict[str, Any]]:
    route = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    answer = client.post(route, json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
