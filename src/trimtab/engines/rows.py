"""One sample of one request while it runs: its tokens, its text, its captures and readings, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trimtab.engines.exactness import rows_of
from trimtab.engines.requests import Capture, Event, Receipt, Request, Sample
from trimtab.engines.tokens import Detokenizer, PromptEncoder, StopText
from trimtab.prompts import Prompt, Range, in_ranges, resolve_positions
from trimtab.readouts import Readings
from trimtab.resolved import ResolvedPlan
from trimtab.sites import Site


class Row:
    """A sample in a batch. Its state at position T + s - 1 (T prompt tokens) emitted token s."""

    def __init__(
        self,
        request: int,
        index: int,
        spec: Request,
        encoder: PromptEncoder,
        ends: frozenset[int],
        stream: bool,
        widths: Mapping[Site, int],
    ) -> None:
        assert isinstance(spec.prompt, Prompt) and isinstance(spec.plan, ResolvedPlan)
        self.request, self.index, self.spec, self.encoder = request, index, spec, encoder
        self._widths = widths
        self.prompt, self.plan = spec.prompt, spec.plan
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.finish: str | None = None
        self._ends = frozenset() if spec.sampling.ignore_eos else ends
        # Text is only decoded token by token where somebody sees it or a stop string waits in it.
        watch = stream or bool(spec.sampling.stop)
        self._spout = Detokenizer(encoder) if watch else None
        self._stop = StopText(spec.sampling.stop)
        self._text = ""
        self._ranges: tuple[Range, ...] = ()
        self.states: dict[Site, list[np.ndarray]] = {}
        #: What was captured, where an engine keeps it elsewhere than in `states`.
        self.handle: Capture | None = None
        if spec.capture is not None:
            self._ranges = resolve_positions(spec.capture.positions, self.prompt)
            self.states = {s: [] for s in spec.capture.sites}
        self.readings: list[np.ndarray] = []

    def captures(self, position: int) -> bool:
        """Whether the state at an absolute position was asked for."""
        return in_ranges(position, self._ranges)

    def prompt_rows(self) -> np.ndarray:
        """Positions [n], int64, of the prompt whose states were asked for."""
        return rows_of(self._ranges, len(self.prompt))

    def advance(self, token: int, logprob: float, reading: np.ndarray | None) -> Event | None:
        """Take the next token; the event, if text is watched. Sets `finish` when this was the last token."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if reading is not None:
            self.readings.append(reading)
        piece = ""
        if self._spout is not None and token not in self._ends:
            piece = self._stop.push(self._spout.push(token))
            self._text += piece
        if token in self._ends or self._stop.stopped:
            self.finish = "stop"
        elif len(self.tokens) >= self.spec.sampling.max_tokens:
            self.finish = "length"
        self._heed(reading)
        if self._spout is None:
            return None
        return Event(self.request, self.index, token, piece, logprob, reading)

    def _heed(self, reading: np.ndarray | None) -> None:
        """What the monitor makes of the state that emitted the last token; the batch sees a changed `plan`."""
        monitor = self.spec.monitor
        if monitor is None or reading is None:
            return
        verdict = monitor.see(self.index, len(self.prompt) + len(self.tokens) - 2, reading)
        if verdict is not None:
            self.plan = verdict.plan or self.plan
            self.finish = self.finish or ("stop" if verdict.stop else None)

    def close(self) -> Event:
        """The last event, with the finished sample and the text that was held back."""
        assert self.finish is not None
        tail = ""
        if self._spout is not None:
            tail = self._stop.push(self._spout.finish()) + self._stop.finish()
            self._text += tail
        else:
            whole = self.tokens[:-1] if self.tokens[-1] in self._ends else self.tokens
            self._text = self.encoder.decode(whole)
        first, processed = len(self.prompt), len(self.prompt) + len(self.tokens) - 1
        sample = Sample(
            tokens=tuple(self.tokens),
            text=self._text,
            logprobs=np.array(self.logprobs, dtype=np.float32),
            finish=self.finish,
            applied=Receipt.of(self.plan, processed),
            capture=self._captured(processed),
            readings=self._read(first - 1),
        )
        return Event(self.request, self.index, text=tail, sample=sample)

    def _captured(self, processed: int) -> Capture | None:
        spec = self.spec.capture
        if spec is None or self.handle is not None:
            return self.handle
        positions = rows_of(self._ranges, processed)
        values = {s: _concatenate(parts, self._widths[s]) for s, parts in self.states.items()}
        for site, rows in values.items():
            if len(rows) != len(positions):
                raise RuntimeError(f"captured {len(rows)} states at {site}, expected {len(positions)}")
        return Capture(values, positions, spec.at)

    def _read(self, first: int) -> Readings | None:
        readout = self.spec.readout
        if readout is None:
            return None
        positions = np.arange(first, first + len(self.readings))
        return Readings(np.stack(self.readings), positions, readout.sites, readout.concepts, readout.z)


def _concatenate(parts: Sequence[np.ndarray], width: int) -> np.ndarray:
    none = np.empty((0, width), np.float32)
    return np.concatenate([p if p.ndim == 2 else p[None] for p in parts]) if parts else none
