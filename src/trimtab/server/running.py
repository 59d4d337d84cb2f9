"""One request on an engine of ours: its events put into OpenAI's forms, with readings, captures and the receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.engines.base import Engine
from trimtab.engines.requests import CaptureSpec, Event, Request, Sample
from trimtab.server.batching import Batcher
from trimtab.server.bodies import Body, ChatBody
from trimtab.server.counter import Counter, Order
from trimtab.server.feed import Feed
from trimtab.server.joint import Joint
from trimtab.server.receipts import applied
from trimtab.server.replies import Form
from trimtab.sites import Site


@dataclass(eq=False)
class Progress:
    """One sample so far."""

    events: list[Event] = field(default_factory=list)
    begun: bool = False
    sample: Sample | None = None


class Run:
    """`states` says whether the answer states what was applied: for requests with fields of ours, or a default plan."""

    def __init__(
        self, engine: Engine, batcher: Batcher, counter: Counter, body: Body, order: Order, states: bool
    ) -> None:
        self.engine, self.batcher, self.counter = engine, batcher, counter
        self.body, self.order, self.states = body, order, states
        length = len(order.prompt)
        context = engine.info.context_length
        self.sampling = body.sampling(1024 if context is None else context - length)
        self.form = Form(engine.info.id, isinstance(body, ChatBody), body.wants_logprobs)
        self.samples = [Progress() for _ in range(self.sampling.n)]
        self.reserved = 0
        self.feed: Feed | None = None
        self.joint = self._joint()

    def _joint(self) -> Joint | None:
        """What is read of this request; of an answer that reads before the edits, nothing goes to the feed."""
        feed, selection = self.counter.feed, self.order.selection
        if feed is None or not feed.watched or (selection is not None and selection.readout.at != "after"):
            return self.order.joint()
        self.feed = feed
        return self.order.joint(feed.readout)

    async def _events(self) -> AsyncIterator[Event]:
        """The engine's events; room for captures is promised before, and given back after."""
        order, capture = self.order, None
        if order.layers:
            rows = order.rows(len(order.prompt) + self.sampling.max_tokens - 1)
            size = rows * len(order.layers) * self.engine.info.hidden_size * 4 * self.sampling.n
            self.counter.captures.reserve(size)
            self.reserved = size
            positions = {"ranges": [list(r) for r in order.ranges]}
            capture = CaptureSpec(tuple(Site(n) for n in order.layers), positions, order.at)
        readout = None if self.joint is None else self.joint.readout
        request = Request(order.prompt, order.plan, self.sampling, capture, readout, monitor=order.ruling)
        stream = self.batcher.stream(request)
        try:
            async for event in stream:
                progress = self.samples[event.index]
                if event.token is not None:
                    progress.events.append(event)
                if event.sample is not None:
                    progress.sample = event.sample
                self._feed(event)
                yield event
        finally:
            self.counter.captures.release(self.reserved)
            for index, progress in enumerate(self.samples):
                if self.feed is not None and progress.sample is None:
                    self.feed.end(self.form.id, index, "abandoned")
            await stream.aclose()  # type: ignore[attr-defined]

    def _feed(self, event: Event) -> None:
        """Tell those who watch."""
        feed, index, ruling = self.feed, event.index, self.order.ruling
        if feed is None or self.joint is None:
            return
        if event.token is not None and event.reading is not None:
            position = len(self.order.prompt) - 2 + len(self.samples[index].events)
            feed.token(self.form.id, index, position, self.joint.part(-1, event.reading))
            for firing in [] if ruling is None else ruling.fired(index, position):
                feed.rule(self.form.id, index, firing)
        if event.sample is not None:
            feed.end(self.form.id, index, event.sample.finish)

    async def whole(self) -> dict[str, Any]:
        """The whole answer."""
        prompt = await self._prompt_readout()
        async for _ in self._events():
            pass
        done = [(p.sample.text, p.events, p.sample.finish) for p in self.samples if p.sample is not None]
        answer = self.form.whole(done, len(self.order.prompt))
        for i, (choice, progress) in enumerate(zip(answer["choices"], self.samples, strict=True)):
            choice.update(prompt)
            choice.update(self._readout(progress, progress.events, 0, whole=True))
            choice.update(self._capture(progress))
            choice.update(self._fired(i, progress.events, 0))
        return {**answer, **self._receipt()}

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """The answer in pieces: one for every token, with its reading, also where its text is held back."""
        prompt = await self._prompt_readout()
        usage = bool(self.body.stream_options and self.body.stream_options.include_usage)
        announced = not self.form.chat
        open_samples = self.sampling.n
        events = self._events()
        try:
            async for event in events:
                if not announced:
                    announced = True
                    for index in range(self.sampling.n):
                        yield self.form.announce(index)
                progress = self.samples[event.index]
                tokens = [event] if event.token is not None else []
                finish = None if event.sample is None else event.sample.finish
                open_samples -= event.sample is not None
                chunk = self.form.chunk(event.index, event.text, tokens, finish)
                choice = chunk["choices"][0]
                if tokens and len(progress.events) == 1:
                    choice.update(prompt)
                choice.update(
                    self._readout(progress, tokens, len(progress.events) - len(tokens), whole=False)
                )
                choice.update(self._fired(event.index, tokens, len(progress.events) - len(tokens)))
                if finish is not None:
                    choice.update(self._capture(progress))
                    if not open_samples and not usage:
                        chunk.update(self._receipt())
                yield chunk
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        if usage:
            generated = sum(len(p.events) for p in self.samples)
            yield {**self.form.usage(len(self.order.prompt), generated), **self._receipt()}

    # --- parts ------------------------------------------------------------------------------------------------

    async def _prompt_readout(self) -> dict[str, Any]:
        """The prompt's own states, read in a pass of their own."""
        selection = self.order.selection
        if selection is None or not selection.field.prompt:
            return {}
        readout = selection.readout
        (found,) = await asyncio.to_thread(
            self.engine.capture, [self.order.prompt], readout.sites, at=readout.at, plan=self.order.plan
        )
        scores = np.stack([readout.apply(s, found[s]) for s in readout.sites], axis=1)
        return {"prompt_readout": selection.prompt_part(list(scores))}

    def _readout(self, progress: Progress, events: list[Event], first: int, whole: bool) -> dict[str, Any]:
        selection = self.order.selection
        if selection is None or self.joint is None:
            return {}
        rows = [self.joint.part(0, e.reading) for e in events if e.reading is not None]
        found = selection.part(rows, first, len(self.order.prompt), begun=progress.begun, whole=whole)
        progress.begun = progress.begun or bool(found)
        return {"readout": found} if found else {}

    def _capture(self, progress: Progress) -> dict[str, Any]:
        sample = progress.sample
        if sample is None or sample.capture is None:
            return {}
        about = {"stream": "resid_post", "at": self.order.at, "fingerprint": self.order.plan.fingerprint}
        states = {s.layer: v for s, v in sample.capture.values.items()}
        return {"capture": self.counter.captures.put(states, sample.capture.positions, about)}

    def _fired(self, index: int, events: list[Event], first: int) -> dict[str, Any]:
        """What fired on the states that emitted these tokens, the first of which is generated token `first`."""
        ruling = self.order.ruling
        if ruling is None:
            return {}
        position = len(self.order.prompt) - 1 + first
        fired = [f for i in range(len(events)) for f in ruling.fired(index, position + i)]
        return {"rules": fired} if fired else {}

    def _receipt(self) -> dict[str, Any]:
        """What was applied, a list where rules gave the samples different plans; and everything that fired."""
        length, ruling = len(self.order.prompt), self.order.ruling
        processed = [length + max(0, len(p.events) - 1) for p in self.samples]
        if not self.states and ruling is None:
            return {}
        if ruling is None:
            return {"steering_applied": applied(self.order.plan, processed)}
        plans = [ruling.plan_of(i) for i in range(len(self.samples))]
        if len({p.fingerprint for p in plans}) == 1:
            stated: Any = applied(plans[0], processed)
        else:
            stated = [applied(p, [n]) for p, n in zip(plans, processed, strict=True)]
        return {"steering_applied": stated, "rules": ruling.report()}
