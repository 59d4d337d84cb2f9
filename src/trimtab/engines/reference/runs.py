"""One sample of one request while it runs: what it chose, let out, and what was captured and read of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trimtab.engines.exactness import rows_of
from trimtab.engines.reference import words
from trimtab.engines.reference.forward import Track, View
from trimtab.engines.reference.sampling import Spout, choose, generator
from trimtab.engines.requests import Capture, Event, Receipt, Request, Sample
from trimtab.prompts import Prompt, in_ranges, resolve_positions
from trimtab.readouts import Readings
from trimtab.resolved import ResolvedPlan


@dataclass
class Run:
    """One sample of one request while it runs."""

    request: int
    index: int
    spec: Request
    track: Track
    spout: Spout
    random: np.random.Generator
    views: set[View]
    states: list[dict[View, np.ndarray]] = field(default_factory=list)
    readings: list[np.ndarray] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    tail: str = ""

    @classmethod
    def of(cls, request: int, index: int, spec: Request) -> Run:
        assert isinstance(spec.prompt, Prompt) and isinstance(spec.plan, ResolvedPlan)
        views: set[View] = set()
        if spec.capture is not None:
            views |= {(s, spec.capture.at) for s in spec.capture.sites}
        if spec.readout is not None:
            views |= {(s, spec.readout.at) for s in spec.readout.sites}
        track = Track(list(spec.prompt.tokens), spec.plan)
        spout = Spout(words.to_bytes, spec.sampling.stop)
        return cls(request, index, spec, track, spout, generator(spec.sampling, index), views)

    @property
    def prompt(self) -> Prompt:
        assert isinstance(self.spec.prompt, Prompt)
        return self.spec.prompt

    def keep(self, states: dict[View, np.ndarray], start: int) -> None:
        """Store what is captured of the tokens processed from `start` on, and the reading of the last."""
        capture, readout = self.spec.capture, self.spec.readout
        if capture is not None:
            ranges = resolve_positions(capture.positions, self.prompt)
            count = self.track.done - start
            rows = [i for i in range(count) if in_ranges(start + i, ranges)]
            self.states.append({(s, capture.at): states[s, capture.at][rows] for s in capture.sites})
        if readout is not None and self.track.done == len(self.track.tokens):
            values = [readout.apply(s, states[s, readout.at][-1]) for s in readout.sites]
            self.readings.append(np.stack(values))

    def advance(self, logprobs: np.ndarray) -> Event:
        """Choose the next token and say so."""
        sampling = self.spec.sampling
        token = choose(logprobs, sampling, self.random)
        self.track.tokens.append(token)
        self.logprobs.append(float(logprobs[token]))
        ended = token == words.END and not sampling.ignore_eos
        text = "" if token == words.END else self.spout.push(token)
        if ended or self.spout.stopped:
            self.finish = "stop"
        elif len(self.logprobs) == sampling.max_tokens:
            self.finish = "length"
        reading = self.readings[-1] if self.readings else None
        self._heed(reading)
        if self.finish is not None:
            self.tail = self.spout.close()
        return Event(self.request, self.index, token, text, self.logprobs[-1], reading)

    def _heed(self, reading: np.ndarray | None) -> None:
        """Do what the monitor makes of the state that emitted the last token: the next pass reads `track.plan`."""
        if self.spec.monitor is None or reading is None:
            return
        verdict = self.spec.monitor.see(self.index, len(self.track.tokens) - 2, reading)
        if verdict is not None:
            self.track.plan = verdict.plan or self.track.plan
            self.finish = self.finish or ("stop" if verdict.stop else None)

    def sample(self) -> Sample:
        """The finished sample."""
        first, processed = len(self.prompt), len(self.track.tokens) - 1
        assert self.finish is not None
        return Sample(
            tokens=tuple(self.track.tokens[first:]),
            text=self.spout.text,
            logprobs=np.array(self.logprobs, dtype=np.float32),
            finish=self.finish,
            applied=Receipt.of(self.track.plan, processed),
            capture=self._captured(processed),
            readings=self._read(first - 1),
        )

    def _captured(self, processed: int) -> Capture | None:
        capture = self.spec.capture
        if capture is None:
            return None
        positions = rows_of(resolve_positions(capture.positions, self.prompt), processed)
        values = {
            s: np.concatenate([k[s, capture.at] for k in self.states]).astype(np.float32)
            for s in capture.sites
        }
        return Capture(values, positions, capture.at)

    def _read(self, first: int) -> Readings | None:
        readout = self.spec.readout
        if readout is None:
            return None
        positions = np.arange(first, first + len(self.readings))
        return Readings(np.stack(self.readings), positions, readout.sites, readout.concepts, readout.z)
