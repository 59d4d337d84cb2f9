"""How the tests ask a real server, and what they make of its answers."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import numpy as np
from safetensors.numpy import load

from server.stock import vectors
from trimtab.sites import Site

FLAGS = [
    "--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "32", "--dtype", "float32", "--block-size", "32",
]  # fmt: skip
PLAN = {"placements": [{"op": "add", "vector": "happy", "dose": 1.0, "layers": [2]}]}
STACK = {
    "placements": [
        {"op": "add", "vector": "sad", "dose": 1.5, "layers": "1-3", "positions": "generated"},
        {"op": "ablate", "vector": "calm", "layers": "all"},
        {
            "op": "cap",
            "vector": "happy",
            "low": -1,
            "high": 1,
            "z": True,
            "layers": [4],
            "positions": {"role": "user"},
        },
    ]
}
MESSAGES = [{"role": "user", "content": "How was your day? Tell me about the garden and the old dog."}]
ALL = {"layers": "all"}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "embedded", "messages": MESSAGES, "max_tokens": 12, "temperature": 0, **more}


def text(**more: Any) -> dict[str, Any]:
    return {"model": "embedded", "prompt": "In the morning", "max_tokens": 12, "temperature": 0, **more}


def ask(http: httpx.Client, body: dict[str, Any], route: str | None = None) -> dict[str, Any]:
    route = route or ("/v1/chat/completions" if "messages" in body else "/v1/completions")
    answer = http.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def bare(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs between two equal requests."""
    return {k: v for k, v in answer.items() if k not in ("id", "created")}


def events(http: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    route = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    with http.stream("POST", route, json={**body, "stream": True}) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(chunks: list[dict[str, Any]], index: int = 0) -> dict[str, Any]:
    """The readings of a stream put together, checked to follow one another."""
    found: dict[str, Any] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index and "readout" in choice:
                more = choice["readout"]
                assert more["start"] == len(found.get("values", []))
                if found:
                    assert more["position"] == found["position"] + more["start"]
                found = {**more, **found, "values": found.get("values", []) + more["values"]}
    return found


def fetch(http: httpx.Client, capture: dict[str, Any]) -> dict[str, np.ndarray]:
    body = http.get(capture["url"])
    assert body.status_code == 200 and http.get(capture["url"]).status_code == 404
    return load(body.content)


def check_readings(readout: dict[str, Any], states: dict[str, np.ndarray], align: int = 0) -> None:
    """Readings are captures times the rows, at the positions that they state."""
    values, places = np.array(readout["values"]), states["positions"].tolist()
    for n, layer in enumerate(readout["layers"]):
        rows = np.stack([vectors().direction(c, Site(layer)).unit for c in readout["concepts"]])
        for t in range(len(values)):
            at = places.index(readout["position"] + t)
            want = states[f"layer_{layer}.states"][at] @ rows.T
            assert np.abs(values[t, n] - want).max() <= 1e-4 * max(1.0, np.abs(want).max())


def in_flight(http: httpx.Client) -> tuple[int, int]:
    """(requests with a program in the worker, prompts that the front end waits for); the next step tells the worker
    who is gone, so there must be one."""
    ask(http, text(max_tokens=1))
    counts = http.post("/collective_rpc", json={"method": "trimtab_counts"}).json()["results"][0]
    counts = json.loads(counts) if isinstance(counts, str) else counts
    line = next(
        x for x in http.get("/metrics").text.splitlines() if x.startswith("trimtab_prompts_in_flight")
    )
    return int(counts["programs"]), int(float(line.split()[-1]))


def settled(http: httpx.Client) -> tuple[int, int]:
    """What is in flight once everything has had the time to end."""
    until = time.monotonic() + 60
    while (found := in_flight(http)) != (0, 0) and time.monotonic() < until:
        time.sleep(0.1)
    return found
