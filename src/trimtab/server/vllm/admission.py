"""One HTTP request: from its fields, before anything runs, to what came back of every sample.

vLLM renders its prompts, then makes sampling parameters, then generates. `prepare` stands between the first two, where
tokens and messages are known and a bad request can still be refused; `board` writes the ticket; `follow` passes an
output on only when the workers have reported every token of it, so that no token of a lost request ever goes out.

A whole answer that is watched, or under rules, is followed token by token all the same, and handed on when it is whole.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.engines.exactness import rows_of
from trimtab.engines.vllm.judge import VERDICT, Clause
from trimtab.engines.vllm.ticket import KEY, Ticket, plan_json
from trimtab.errors import InputError, SteeringLost, TrimtabError
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.server.counter import Order
from trimtab.server.feed import Feed
from trimtab.server.joint import Joint
from trimtab.server.vllm import judging
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
    stopped: bool = False
    finish: str = ""


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
    feed: Feed | None = None
    clauses: list[Clause] = field(default_factory=list)
    most: int = 0
    whole: bool = False
    id: str = ""

    @property
    def tells(self) -> bool:
        """Whether the workers have anything to do with it."""
        return self.order.tells or self.feed is not None

    def vectors(self) -> dict[str, np.ndarray]:
        """What the workers must hold for the plan, and for those that rules may switch on."""
        plans = [self.order.plan, *(c.plan for c in self.clauses if c.plan is not None)]
        return {name: array for plan in plans for name, array in plan.vectors.items()}

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
            feed, selection = self.door.counter.feed, order.selection
            # Of an answer that reads before the edits nothing goes to the feed.
            if feed is not None and feed.watched and (selection is None or selection.readout.at == "after"):
                journey.feed = feed
            journey.joint = order.joint() if journey.feed is None else order.joint(journey.feed.readout)
            if order.ruling is not None:
                journey.clauses = judging.clauses(order.ruling)
            if journey.tells:
                vectors = journey.vectors()
                journey.rows = self.door.take_rows(vectors)
                journey.held = await self.door.hold(self.door.shelf.hold, vectors)
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
        journey.parts, journey.most = [Part() for _ in range(params.n)], params.max_tokens or 0
        if not journey.tells:
            return
        kind = params.output_kind
        if kind.name == "FINAL_ONLY" and (journey.feed is not None or order.ruling is not None):
            params.output_kind, journey.whole = type(kind).CUMULATIVE, True
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
            judging.told(journey.clauses),
            last,
        )
        params.extra_args = {**(params.extra_args or {}), KEY: ticket.to_text()}
        # A cached token is not computed, so its state is not seen; the last one of a prompt always is.
        if reads_prompt or (order.layers and any(a < last for a, _ in order.ranges)):
            params.skip_reading_prefix_cache = True

    def fingerprints(self) -> str:
        """For the header: the plan's fingerprint; several prompts may have several."""
        return ", ".join(dict.fromkeys(j.order.plan.fingerprint for j in self.journeys)) or "plain"

    @property
    def ruled(self) -> bool:
        """Whether rules are in force, the operator's or its own."""
        return any(j.order.ruling is not None for j in self.journeys)

    # --- while it runs ----------------------------------------------------------------------------------------

    def follow(self, outputs: AsyncGenerator[Any], id: str = "") -> AsyncGenerator[Any]:
        """vLLM's outputs of the prompt that boarded last, each as soon as everything that belongs to it is there; `id`
        is what those who watch know it by."""
        journey = self.journeys[self._boarded - 1]
        journey.id = id
        return self._follow(journey, outputs)

    async def _follow(self, journey: Journey, outputs: AsyncGenerator[Any]) -> AsyncGenerator[Any]:
        last: dict[int, Any] = {}
        try:
            async for output in outputs:
                for done in output.outputs:
                    await self._arrive(journey, done)
                    last[done.index] = done
                if not journey.whole:
                    yield output
                elif all(p.finish for p in journey.parts):
                    output.outputs = [last[i] for i in sorted(last)]
                    yield output
        except SteeringLost:
            self.door.distrust()
            raise
        finally:
            for index, part in enumerate(journey.parts):
                if journey.feed is not None and not part.finish:
                    journey.feed.end(journey.id, index, "abandoned")
            await outputs.aclose()

    async def _arrive(self, journey: Journey, done: Any) -> None:
        samples, part = journey.samples, journey.parts[done.index]
        first, count = part.tokens, len(done.token_ids)
        part.tokens = count if journey.whole else first + count
        if samples is not None and part.tokens:  # a plan that does nothing has no ticket
            record = samples.records[done.index]
            end = len(journey.order.prompt) + part.tokens - 1
            await until(samples, lambda: record.whole_to(end, len(journey.order.prompt)), "a receipt")
            if journey.joint is not None and part.tokens > first:
                await self._read(journey, samples, done.index, first)
            if done.finish_reason is not None and journey.order.layers:
                part.capture = self._keep(journey, record, end)
        if done.finish_reason is None:
            return
        if part.stopped and part.tokens < journey.most and done.finish_reason == "length":
            done.finish_reason = "stop"  # a rule's end: see `trimtab.engines.vllm.stops`
        part.finish = done.finish_reason
        if journey.feed is not None:
            journey.feed.end(journey.id, done.index, part.finish)

    async def _read(self, journey: Journey, samples: Samples, index: int, first: int) -> None:
        """Readings of the states that emitted the tokens from `first` on."""
        selection, part, record = journey.order.selection, journey.parts[index], samples.records[index]
        joint, length = journey.joint, len(journey.order.prompt)
        assert joint is not None
        layers = [s.layer for s in joint.readout.sites] + ([VERDICT] if journey.clauses else [])
        wanted = range(length - 1 + first, length - 1 + part.tokens)
        if selection is not None and selection.field.prompt and first == 0:
            wanted = range(wanted.stop)

        def arrived(position: int) -> bool:
            # States of the prompt before its last one are read, and not judged.
            here = layers if position >= length - 1 or not journey.clauses else layers[:-1]
            return record.reading(here, position) is not None

        await until(samples, lambda: all(map(arrived, wanted)), "a reading")
        whole = [self._scores(joint.readout, record, p) for p in wanted]
        for position, row in zip(wanted, whole, strict=True):
            if position >= length - 1:
                self._judge(journey, record, index, position, row)
        if selection is None:
            return
        rows = [joint.part(0, row) for row in whole]
        if wanted.start < length - 1:
            # The last prompt token's own state is the one that emits the first token.
            part.prompt_rows = list(rows[:length])
            rows = rows[length - 1 :]
        part.waiting.append((first, rows))

    def _judge(self, journey: Journey, record: Any, index: int, position: int, row: np.ndarray) -> None:
        """What fires on a state, and who is told of it."""
        ruling, feed, joint, part = journey.order.ruling, journey.feed, journey.joint, journey.parts[index]
        fired: list[dict[str, Any]] = []
        if part.stopped:
            raise SteeringLost("a rule has ended the reply, and it went on; the output is withheld")
        if ruling is not None:
            verdict = ruling.see(index, position, row)
            part.stopped = verdict is not None and verdict.stop
            if journey.clauses:
                judging.agree(ruling, journey.clauses, index, position, record.read[VERDICT].pop(position))
            fired = ruling.fired(index, position)
            part.fired += fired
        if feed is not None and joint is not None:
            feed.token(journey.id, index, position, joint.part(-1, row))
            for firing in fired:
                feed.rule(journey.id, index, firing)

    def _scores(self, readout: Readout, record: Any, position: int) -> np.ndarray:
        """In float64, then cut, as the worker computes what it judges."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.stack(
                [
                    (record.read[s.layer].pop(position).astype(np.float64) - readout.offset[s])
                    / readout.scale[s]
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
