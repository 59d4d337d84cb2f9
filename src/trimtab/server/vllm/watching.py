"""All traffic for those who watch: a request that asked for nothing is read beside what vLLM does with it, on whatever
route it came."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from trimtab.errors import TrimtabError
from trimtab.plans import SteeringPlan
from trimtab.server.vllm.admission import Admission
from trimtab.server.vllm.door import Door
from trimtab.server.wire import Fields

log = logging.getLogger("trimtab.server")


def tokens_of(prompt: Any) -> list[int] | None:
    """The tokens of a rendered prompt; None for one that has none, such as embeddings or a stream of inputs."""
    found = prompt.get("prompt_token_ids") if isinstance(prompt, Mapping) else None
    return list(found) if found else None


async def watched(
    door: Door, tokens: list[int], params: Any, id: str, outputs: Callable[[Any], AsyncGenerator[Any]]
) -> AsyncGenerator[Any]:
    """The outputs of a plain request, read for the feed. Who watches must not stop anybody: where there is no room for
    it, the request runs unwatched."""
    admission = Admission(door, Fields(steering=SteeringPlan(())))
    mine = copy.copy(params)
    try:
        try:
            await admission.prepare([tokens])
            admission.board(mine)
            stream = admission.follow(outputs(mine), id)
        except TrimtabError as error:
            log.warning("a request runs unwatched: %s", error)
            stream = outputs(params)
        async with contextlib.aclosing(stream):
            async for output in stream:
                yield output
    finally:
        admission.close()
