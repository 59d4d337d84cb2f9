"""A request that somebody hands to vLLM himself, with a plan, a capture or a readout in its sampling parameters.

What vLLM gives back knows nothing of these; `completion` puts it together with what the workers told.
"""

from __future__ import annotations

import asyncio
import copy
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.engines.exactness import rows_of
from trimtab.engines.requests import Completion, Receipt, Request, Sample
from trimtab.engines.vllm.boarding import Order, board, check_ended, distrust, reading_of
from trimtab.engines.vllm.ledger import Record
from trimtab.engines.vllm.ticket import KEY
from trimtab.errors import InputError, SteeringLost
from trimtab.prompts import Prompt
from trimtab.readouts import Readings
from trimtab.resolved import ResolvedPlan

if TYPE_CHECKING:
    from trimtab.engines.vllm.engine import VllmEngine


class Passenger:
    """`prompt` and `params` are what `LLM.generate` or `AsyncLLM.generate` must be given, both of them. `completion`
    ends it; so does `close`, or letting go, for a request that was aborted."""

    params: Any

    def __init__(self, engine: VllmEngine, request: Request, params: Any) -> None:
        assert isinstance(request.prompt, Prompt) and isinstance(request.plan, ResolvedPlan)
        self.engine, self.request, self._open = engine, request, True
        self.params = copy.copy(params)
        if self.params.logprobs is None:
            self.params.logprobs = 0  # those of the chosen tokens
        self.order = Order.of(request.prompt, request.plan, {}, request.capture, request.readout)
        self._records: list[Record] = []
        key, held = engine.new_key(), list[tuple[str, ...]]()
        self._leave = weakref.finalize(self, _leave, engine.ledger.close, engine.parted.append, key, held)
        self._leave.atexit = False
        if self.order.tells:
            total = len(request.prompt) + request.sampling.max_tokens
            self._records = engine.ledger.open_samples(key, total, self.params.n)
            try:
                board(engine, self.order, key, self.params, held)
            except BaseException:
                self.close()
                raise

    @property
    def prompt(self) -> Any:
        """The prompt, as vLLM takes tokens."""
        return {"prompt_token_ids": list(self.order.tokens)}

    def completion(self, output: Any) -> Completion:
        """The finished `RequestOutput` of vLLM as a completion of ours: with receipts, readings, and captures as
        handles. Raises `SteeringLost` where not every token of it was steered as asked."""
        if not self._open:
            raise InputError("this request has been completed, or closed")
        if not output.finished:
            raise InputError("vLLM is not done with this request: give its last output")
        if tuple(output.prompt_token_ids or ()) != self.order.tokens:
            self.close()
            raise SteeringLost("vLLM was given another prompt than the one that was boarded; give it .prompt")
        assert isinstance(self.request.prompt, Prompt)
        try:
            samples = tuple(self._sample(done) for done in output.outputs)
        except SteeringLost:
            distrust(self.engine)
            raise
        finally:
            self.close()
        return Completion(self.request.prompt, samples, self.request.id)

    async def acompletion(self, output: Any) -> Completion:
        """`completion` without blocking the event loop."""
        return await asyncio.to_thread(self.completion, output)

    def _sample(self, done: Any) -> Sample:
        check_ended(done)
        order, tokens = self.order, tuple(int(t) for t in done.token_ids)
        length = len(order.tokens)
        end, capture, readings = length + len(tokens) - 1, None, None
        if self._records:
            record = self._records[done.index]
            self.engine.ledger.wait(record, lambda: record.whole_to(end, length), "the receipt of a request")
            if order.sites:
                width = self.engine.info.hidden_size
                capture = record.handle(order.sites, rows_of(order.ranges, end), order.at, width)
            if order.readout is not None:
                at, readout = np.arange(length - 1, end), order.readout
                values = np.stack([reading_of(self.engine, record, readout, int(p)) for p in at])
                readings = Readings(values, at, readout.sites, readout.concepts, readout.z)
        chosen = [table[t].logprob for t, table in zip(tokens, done.logprobs, strict=True)]
        logprobs = np.array(chosen, dtype=np.float32)
        applied = Receipt.of(order.plan, end)
        return Sample(tokens, done.text, logprobs, done.finish_reason, applied, capture, readings)

    def close(self) -> None:
        """Let go of what the workers hold for it; more than once does no harm. Captures that were handed out stay."""
        self._open = False
        self._records = []
        self._leave()

    def __enter__(self) -> Passenger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _leave(
    close: Callable[[str], None],
    part: Callable[[tuple[str, ...]], None],
    key: str,
    held: list[tuple[str, ...]],
) -> None:
    """Perhaps from the garbage collector, in any thread: the workers are told when the next one boards."""
    close(key)
    for names in held:
        part(names)


def check(params: Any, context: int | None, prompt: int, whole: bool) -> int:
    """The most tokens that vLLM will generate for these parameters after a prompt of so many; refuses what would come
    back in pieces, unless vLLM gives `whole` outputs anyway, and what carries a ticket already."""
    kind = "FINAL_ONLY" if whole else params.output_kind.name
    if kind == "DELTA" or (kind == "CUMULATIVE" and params.n > 1):
        raise InputError(
            f"a completion is made of the whole last output, and output_kind={kind} gives parts of it: use "
            "RequestOutputKind.FINAL_ONLY"
        )
    if KEY in (params.extra_args or {}):
        raise InputError(f"extra_args[{KEY!r}] is there already: board parameters of your own, once")
    return params.max_tokens or max(1, (context or 0) - prompt)
