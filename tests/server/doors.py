"""The parts of vLLM's door with nothing behind it: no vLLM, no model, and workers that say what a test lets them."""

from __future__ import annotations

import asyncio
import enum
import json
from types import SimpleNamespace
from typing import Any

import numpy as np

from server.stock import LAYERS, WIDTH, vectors
from trimtab.engines.vllm.judge import VERDICT
from trimtab.server.counter import Counter
from trimtab.server.settings import Settings
from trimtab.server.vllm.admission import Admission
from trimtab.server.vllm.door import Door
from trimtab.server.vllm.results import Results
from trimtab.sites import ModelInfo, Site

INFO = ModelInfo("embedded", LAYERS, WIDTH, {Site(n): WIDTH for n in range(LAYERS)})
PLAN = {"placements": [{"op": "add", "vector": "happy", "dose": 1.0, "layers": [2]}]}
PROMPT = (5, 6, 7, 8)


class Shelf:
    """What the workers hold, counted."""

    def __init__(self) -> None:
        self.held: list[str] = []

    def hold(self, arrays: Any) -> tuple[str, ...]:
        self.held += arrays
        return tuple(arrays)

    def hold_readout(self, readout: Any) -> str:
        self.held.append("readout")
        return "readout"

    def release(self, names: tuple[str, ...]) -> None:
        for name in names:
            self.held.remove(name)

    def forget(self) -> None:
        self.held.append("forgotten")


class Kind(enum.Enum):
    """vLLM's `RequestOutputKind`."""

    CUMULATIVE, DELTA, FINAL_ONLY = range(3)


def door(settings: Settings | None = None) -> Door:
    """A door that nobody stands behind: `report` speaks for the workers."""
    found = Door(SimpleNamespace())
    found.counter = Counter(INFO, settings or Settings())
    if settings is None:
        found.counter.library["feelings"] = vectors()
    found.results, found.shelf = Results(asyncio.get_running_loop()), Shelf()  # type: ignore[assignment]
    found.routes = True
    return found


def sampling(n: int = 1, kind: Kind = Kind.DELTA) -> Any:
    return SimpleNamespace(
        max_tokens=8, n=n, extra_args=None, skip_reading_prefix_cache=None, output_kind=kind
    )


async def admitted(d: Door, n: int = 1, kind: Kind = Kind.DELTA, **fields: Any) -> Admission:
    """A request with these fields, on board; `params` are its sampling parameters."""
    admission = Admission(d, d.counter.parse(fields))
    await admission.prepare([PROMPT])
    admission.params = sampling(n, kind)  # type: ignore[attr-defined]
    admission.board(admission.params)  # type: ignore[attr-defined]
    return admission


def output(index: int, tokens: list[int], finish: str | None = None) -> Any:
    return SimpleNamespace(outputs=[SimpleNamespace(index=index, token_ids=tokens, finish_reason=finish)])


async def given(*outputs: Any) -> Any:
    for each in outputs:
        yield each


def report(d: Door, key: str, start: int, count: int, id: str = "r", lost: str = "", **rows: Any) -> None:
    """As the workers report a step; `rows` are readings, layer_<i>_<position>=row, or verdict_<position>=row."""
    read = []
    for name, row in rows.items():
        layer, position = (int(x) for x in name.replace("verdict", f"verdict_{VERDICT}").split("_")[1:])
        read.append(((key, id, layer, "readout", ((position, position + 1),)), np.array([row], np.float32)))
    d.results._take([(key, id, start, count, lost)], read)


async def soon(task: asyncio.Task[Any]) -> bool:
    """Whether it is done after everything that can run has run."""
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


def event(**choice: Any) -> str:
    return (
        "data: "
        + json.dumps({"id": "x", "choices": [{"index": 0, "finish_reason": None, **choice}]})
        + "\n\n"
    )
