"""One HTTP request: from its fields, before anything runs, to what came back of every sample.

vLLM renders its prompts, then makes sampling parameters, then generates. `prepare` stands between the first two, where
tokens and messages are known and a bad request can still be refused; `board` writes the ticket; `follow` passes an
output on only when the workers have reported every token of it, so that no token of a lost request ever goes out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.engines.exactness import rows_of
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json
from trimtab.errors import InputError, SteeringLost, TrimtabError
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.server.counter import Order
from trimtab.server.joint import Joint
from trimtab.server.vllm.door import Door
from trimtab.server.vllm.results import Samples, until
from trimtab.server.wire import Fields

#: The admission that the running task belongs to.
CURRENT: ContextVar[Admission | None] = ContextVar("trimtab_admission", default=None)


@dataclass(eq=False)
class Part:
    """One sample: how many tokens came, readings that wait for their chunk, and what was captured."""

    tokens: int = 0
    waiting: list[tuple[int, list[np.ndarray]]] = field(default_factory=list)
    prompt_rows: list[np.ndarray] | None = None
    capture: dict[str, Any] | None = None
    begun: bool = False
    fired: list[dict[str, Any]] = field(default_factory=list)


@dataclass(eq=False)
class Journey:
    """One prompt of a request and its samples."""

    order: Order
    key: str
    rows: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    readout: str | None = None
    joint: Joint | None = None
    samples: Samples | None = None
    parts: list[Part] = field(default_factory=list)
    reserved: int = 0

    def processed(self) -> list[int]:
        """Tokens of each sample that went through the model: all but the last one."""
        return [len(self.order.prompt) + max(0, p.tokens - 1) for p in self.parts]


class Admission:
    """What a request wants done; `close` it, always."""

    def __init__(self, door: Door, fields: Fields) -> None:
        self.door, self.fields = door, fields
        self.journeys: list[Journey] = []
        self._boarded = 0
        self._open = True

    # --- before it runs ---------------------------------------------------------------------------------------

    async def prepare(self, prompts: Sequence[Sequence[int] | None], messages: Any = None) -> None:
        """Resolve everything for the rendered prompts, and see that the workers hold what is needed."""
        orders = [self.door.counter.order(self.fields, self._prompt(p, messages)) for p in prompts]
        for order in orders:
            journey = Journey(order, self.door.new_key())
            self.journeys.append(journey)
            if order.tells:
                journey.rows = self.door.take_rows(order.plan.vectors)
                journey.held = await self.door.hold(self.door.shelf.hold, order.plan.vectors)
            journey.joint = order.joint()
            if journey.joint is not None:
                journey.readout = await self.door.hold(self.door.shelf.hold_readout, journey.joint.readout)

    def _prompt(self, tokens: Sequence[int] | None, messages: Any) -> Prompt:
        if not tokens:
            raise InputError("steering, readout and capture need a prompt of tokens, not of embeddings")
        prompt = Prompt(tuple(tokens))
        if not self.door.counter.needs_roles(self.fields):
            return prompt
        if messages is None:
            raise InputError("positions by role need messages: use /v1/chat/completions, or give ranges")
        try:
            known = self.door.encoder.messages([dict(m) for m in messages])
        except (TrimtabError, LookupError, TypeError, AttributeError):
            known = None
        if known is None or known.tokens != prompt.tokens or known.spans is None:
            raise InputError(
                "positions by role: this request is rendered in a way in which messages cannot be located; give "
                "ranges"
            )
        return known

    def board(self, params: Any) -> None:
        """Write the next prompt's ticket into its sampling parameters."""
        journey = self.journeys[self._boarded]
        self._boarded += 1
        order, total = journey.order, len(journey.order.prompt) + (params.max_tokens or 0)
        journey.parts = [Part() for _ in range(params.n)]
        if not order.tells:
            return
        if order.layers:
            size = order.rows(total - 1) * len(order.layers) * self.door.counter.info.hidden_size * 4
            self.door.counter.captures.reserve(size * params.n)
            journey.reserved = size * params.n
        journey.samples = self.door.results.open(journey.key, params.n, total)
        last, selection = len(order.prompt) - 1, order.selection
        reads_prompt = selection is not None and selection.field.prompt
        ticket = Ticket(
            journey.key,
            self.door.epoch,
            plan_json(order.plan),
            order.plan.first_position(),
            order.layers,
            order.ranges,
            order.at,
            journey.readout,
            "after" if journey.joint is None else journey.joint.readout.at,
            0 if reads_prompt else last,
        )
        params.extra_args = {**(params.extra_args or {}), KEY: ticket.to_text()}
        # A cached token is not computed, so its state is not seen; the last one of a prompt always is.
        if reads_prompt or (order.layers and any(a < last for a, _ in order.ranges)):
            params.skip_reading_prefix_cache = True

    def fingerprints(self) -> str:
        """For the header: the plan's fingerprint; several prompts may have several."""
        return ", ".join(dict.fromkeys(j.order.plan.fingerprint for j in self.journeys)) or "plain"

    # --- while it runs ----------------------------------------------------------------------------------------

    def follow(self, outputs: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
        """vLLM's outputs of the prompt that boarded last, each as soon as everything that belongs to it is there."""
        return self._follow(self.journeys[self._boarded - 1], outputs)

    async def _follow(self, journey: Journey, outputs: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
        try:
            async for output in outputs:
                for done in output.outputs:
                    await self._arrive(journey, done)
                yield output
        except SteeringLost:
            self.door.distrust()
            raise
        finally:
            await outputs.aclose()

    async def _arrive(self, journey: Journey, done: Any) -> None:
        samples, part = journey.samples, journey.parts[done.index]
        first, part.tokens = part.tokens, part.tokens + len(done.token_ids)
        if samples is None or not part.tokens:  # a plan that does nothing has no ticket
            return
        record = samples.records[done.index]
        end = len(journey.order.prompt) + part.tokens - 1
        await until(samples, lambda: _whole(record.passed[:end], len(journey.order.prompt)), "a receipt")
        if journey.joint is not None and part.tokens > first:
            await self._read(journey, samples, done.index, first)
        if done.finish_reason is not None and journey.order.layers:
            part.capture = self._keep(journey, record, end)

    async def _read(self, journey: Journey, samples: Samples, index: int, first: int) -> None:
        """Readings of the states that emitted the tokens from `first` on."""
        selection, part, record = journey.order.selection, journey.parts[index], samples.records[index]
        joint, ruling = journey.joint, journey.order.ruling
        assert joint is not None
        layers, length = [s.layer for s in joint.readout.sites], len(journey.order.prompt)
        wanted = range(length - 1 + first, length - 1 + part.tokens)
        if selection is not None and selection.field.prompt and first == 0:
            wanted = range(wanted.stop)
        await until(samples, lambda: all(record.reading(layers, p) is not None for p in wanted), "a reading")
        whole = [self._scores(joint.readout, record, p) for p in wanted]
        for position, row in zip(wanted, whole, strict=True):
            if ruling is not None and position >= length - 1:
                ruling.see(index, position, row)
                part.fired += ruling.fired(index, position)
        if selection is None:
            return
        rows = [joint.part(0, row) for row in whole]
        if wanted.start < length - 1:
            # The last prompt token's own state is the one that emits the first token.
            part.prompt_rows = list(rows[:length])
            rows = rows[length - 1 :]
        part.waiting.append((first, rows))

    def _scores(self, readout: Readout, record: Any, position: int) -> np.ndarray:
        return np.stack(
            [
                (record.read[s.layer].pop(position) - readout.offset[s]) / readout.scale[s]
                for s in readout.sites
            ]
        ).astype(np.float32)

    def _keep(self, journey: Journey, record: Any, end: int) -> dict[str, Any]:
        order = journey.order
        positions = rows_of(order.ranges, end)
        if len(positions):
            states: Mapping[int, np.ndarray] = {n: record.rows(n, positions) for n in order.layers}
        else:
            width = self.door.counter.info.hidden_size
            states = {n: np.zeros((0, width), np.float32) for n in order.layers}
        about = {"stream": "resid_post", "at": order.at, "fingerprint": order.plan.fingerprint}
        return self.door.counter.captures.put(states, positions, about)

    # --- after it ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of what was held; more than once does no harm."""
        if not self._open:
            return
        self._open = False
        for journey in self.journeys:
            if journey.samples is not None:
                self.door.results.close(journey.key)
            self.door.give_rows(journey.rows)
            self.door.release((*journey.held, *([journey.readout] if journey.readout else [])))
            if journey.reserved:
                self.door.counter.captures.release(journey.reserved)


def _whole(passed: np.ndarray, length: int) -> bool:
    """Whether every position from the first computed one on was reported; what lies before it came from the cache.

    The last token of a prompt is always computed.
    """
    first = int(passed.argmax())
    return bool(passed[first:].all()) and first < length
