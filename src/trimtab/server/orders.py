"""What a remote engine asks of a served one: read from its bodies, checked against the model and the operator's limits.

Plans come resolved, with their vectors. A vector that the server's own files hold counts as named; any other is an
inline vector, which the operator allows or not.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.directions import content_hash
from trimtab.engines.base import CaptureItem, Engine
from trimtab.engines.remote.forms import readout_of, vectors_of
from trimtab.engines.remote.packing import Tensors
from trimtab.engines.requests import CaptureSpec, Request, Sampling
from trimtab.errors import InputError, TrimtabError
from trimtab.prompts import Prompt
from trimtab.resolved import ResolvedPlacement, ResolvedPlan
from trimtab.server.batching import GROUP
from trimtab.server.library import Library
from trimtab.server.settings import Settings
from trimtab.server.wire import MALFORMED
from trimtab.sites import Site

#: Bytes of a body, prompts in a call that captures or scores, samples of a request.
BODY_BYTES, CALL, SAMPLES = 64 << 20, 256, 64
ScoreItem = tuple[Prompt, int, ResolvedPlan, str]


@dataclass(frozen=True, eq=False)
class CaptureOrder:
    """States to return: of which items, where, and whether only their means."""

    items: tuple[CaptureItem, ...]
    sites: tuple[Site, ...]
    at: str
    mean: bool


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """What code raises that meets data of another shape is the sender's mistake."""
    try:
        yield
    except TrimtabError:
        raise
    except MALFORMED as error:
        raise InputError(f"the body is malformed: {type(error).__name__}: {error}") from error


class Orders:
    """Reads the bodies for one engine."""

    def __init__(self, engine: Engine, library: Library, settings: Settings) -> None:
        self.engine, self.info, self.library, self.settings = engine, engine.info, library, settings
        self._rows: dict[str, tuple[Any, frozenset[str]]] = {}

    # --- whole bodies ---------------------------------------------------------------------------------------

    def generation(self, head: Mapping[str, Any], tensors: Tensors) -> list[Request]:
        """Requests, prepared by the engine: whatever it refuses is refused here."""
        with in_words():
            vectors = self._vectors(tensors)
            found = [self._request(r, vectors, tensors) for r in self._list(head, "requests", GROUP)]
            prepared = [self.engine.prepare(r) for r in found]
        self._room(sum(self._captured(r) for r in prepared))
        return prepared

    def capture(self, head: Mapping[str, Any], tensors: Tensors) -> CaptureOrder:
        """States of prompts."""
        with in_words():
            vectors = self._vectors(tensors)
            spec = CaptureSpec(tuple(Site.from_key(k) for k in head["sites"]), at=head["at"])
            width = sum(self.info.width(s) for s in spec.sites)
            items = tuple(self._item(i, vectors) for i in self._list(head, "items", CALL))
            mean = head["mean"]
            if not isinstance(mean, bool):
                raise InputError(f"mean is true or false, got {mean!r}")
        self._room(sum(4 * width * (1 if mean else len(i.positions)) for i in items))
        return CaptureOrder(items, spec.sites, spec.at, mean)

    def score(self, head: Mapping[str, Any], tensors: Tensors) -> list[ScoreItem]:
        """Log-probabilities of tokens."""
        with in_words():
            vectors = self._vectors(tensors)
            items = [self._scored(i, vectors) for i in self._list(head, "items", CALL)]
        rows = sum({"none": 0, "last": 1, "all": len(p)}[wanted] for p, _, _, wanted in items)
        self._room(4 * rows * (self.info.vocab_size or 1))
        return items

    # --- parts ----------------------------------------------------------------------------------------------

    def _list(self, head: Mapping[str, Any], name: str, most: int) -> list[Any]:
        found = head.get(name)
        if not isinstance(found, list) or not 1 <= len(found) <= most:
            raise InputError(f"{name} is a list of 1 to {most}")
        return found

    def tokens(self, given: Any) -> Prompt:
        """Token ids that the model has, within its context."""
        size = self.info.vocab_size
        if not isinstance(given, list) or any(type(t) is not int or t < 0 for t in given):
            raise InputError("tokens is a list of token ids")
        if size is not None and (over := [t for t in given if t >= size]):
            raise InputError(f"token {over[0]} does not exist: the vocabulary has {size}")
        prompt = Prompt(tuple(given))
        self.engine._check_length(len(prompt))
        return prompt

    def _vectors(self, tensors: Tensors) -> dict[str, np.ndarray]:
        """Vectors by hash; those that no file of the server holds only where the operator allows it."""
        found = vectors_of(tensors)
        if not self.settings.inline:
            strange = len(found.keys() - self._held())
            if strange:
                raise InputError(
                    f"{strange} of the plan's {len(found)} vectors are in no vector file of this server: load their "
                    "file (GET /v1/vectors, POST /v1/vectors/load), or let the operator allow inline vectors "
                    "(TRIMTAB_ALLOW_INLINE=1, trimtab serve --allow-inline)"
                )
        return found

    def _held(self) -> set[str]:
        """Hashes of all rows of the loaded files."""
        files = dict(self.library)
        self._rows = {
            n: self._rows[n] if n in self._rows and self._rows[n][0] is v else (v, _hashes(v))
            for n, v in files.items()
        }
        return {h for _, hashes in self._rows.values() for h in hashes}

    def _plan(self, form: Mapping[str, Any], vectors: Mapping[str, np.ndarray]) -> ResolvedPlan:
        most = self.settings.max_placements * self.info.n_layers
        placements = form["placements"]
        if not isinstance(placements, list) or len(placements) > most:
            raise InputError(f"a resolved plan is a list of at most {most} placements on this server")
        if not isinstance(form.get("fingerprint"), str):
            raise InputError("a plan comes with its fingerprint")
        plan = ResolvedPlan.from_json(form, vectors)
        size = len(json.dumps(placements)) + sum(v.nbytes for v in plan.vectors.values())
        if size > self.settings.max_plan_bytes:
            raise InputError(
                f"a plan has {size} bytes with its vectors, and this server takes {self.settings.max_plan_bytes}"
            )
        plan.check_model(self.info)
        for p in plan.placements:
            _check_placement(p)
        self.engine._check_plan(plan)
        return plan

    def _request(self, form: Any, vectors: Mapping[str, np.ndarray], tensors: Tensors) -> Request:
        sampling = _sampling(form["sampling"])
        capture = readout = None
        if "capture" in form:
            asked = form["capture"]
            sites = tuple(Site.from_key(k) for k in asked["sites"])
            capture = CaptureSpec(sites, {"ranges": asked["ranges"]}, asked["at"])
        if "readout" in form:
            readout = readout_of(form["readout"], tensors)
        return Request(
            self.tokens(form["tokens"]), self._plan(form["plan"], vectors), sampling, capture, readout
        )

    def _captured(self, request: Request) -> int:
        """Bytes that a request may capture at most."""
        if request.capture is None:
            return 0
        assert isinstance(request.prompt, Prompt)
        rows = request.sampling.n * (len(request.prompt) + request.sampling.max_tokens)
        return 4 * rows * sum(self.info.width(s) for s in request.capture.sites)

    def _item(self, form: Any, vectors: Mapping[str, np.ndarray]) -> CaptureItem:
        prompt, rows = self.tokens(form["tokens"]), form["positions"]
        if not rows or not all(type(p) is int for p in rows) or sorted(set(rows)) != rows:
            raise InputError("positions are ascending positions of tokens, at least one")
        if rows[0] < 0 or rows[-1] >= len(prompt):
            raise InputError(f"position {rows[-1]} lies outside a prompt of {len(prompt)} tokens")
        return CaptureItem(prompt, np.array(rows, np.int64), self._plan(form["plan"], vectors))

    def _scored(self, form: Any, vectors: Mapping[str, np.ndarray]) -> ScoreItem:
        prompt, first, wanted = self.tokens(form["tokens"]), form["first"], form["logprobs"]
        if type(first) is not int or not 1 <= first <= len(prompt) or wanted not in ("none", "last", "all"):
            raise InputError("first is the place of the first scored token, logprobs one of none, last, all")
        return (prompt, first, self._plan(form["plan"], vectors), wanted)

    def _room(self, size: int) -> None:
        if size > self.settings.max_capture_bytes:
            raise InputError(
                f"the answer may take {size} bytes, and this server takes {self.settings.max_capture_bytes} a request: "
                "ask for fewer layers, positions or prompts at once"
            )


def _sampling(form: Mapping[str, Any]) -> Sampling:
    """Whole numbers, texts and finite numbers only: what runs together must not fail together."""
    found = Sampling(**form)
    seed, whole = found.seed, (found.n, found.max_tokens, found.top_k)
    if any(type(x) is not int for x in whole) or found.n > SAMPLES or found.top_k < 0:
        raise InputError(f"n, max_tokens and top_k are whole numbers, n at most {SAMPLES}")
    if seed is not None and (type(seed) is not int or not 0 <= seed < 1 << 63):
        raise InputError(f"a seed is a whole number from 0 on, got {seed!r}")
    if not all(isinstance(s, str) for s in found.stop) or not isinstance(found.ignore_eos, bool):
        raise InputError("stop holds texts, and ignore_eos is true or false")
    if found.resumes is not None and any(type(x) is not int for x in found.resumes):
        raise InputError(f"resumes is a sample and a number of tokens, got {found.resumes!r}")
    if not math.isfinite(found.temperature):
        raise InputError(f"temperature is a finite number, got {found.temperature!r}")
    return found


def _check_placement(p: ResolvedPlacement) -> None:
    """Refuse positions and flags that no plan resolves to; coefficients check themselves."""
    if not all(isinstance(x, bool) for x in (p.relative, p.renormalise)):
        raise InputError(f"relative and renormalise of the placement at {p.site} are true or false")
    ends = [x for a, b in p.ranges for x in ((a,) if b is None else (a, b))]
    if any(type(x) is not int or x < 0 for x in ends) or any(b is not None and b <= a for a, b in p.ranges):
        raise InputError(f"the ranges of the placement at {p.site} are pairs of positions [start, end)")
    if p.table_start is not None and (type(p.table_start) is not int or p.table_start < 0):
        raise InputError(f"the table at {p.site} starts at a position, got {p.table_start!r}")
    if p.gate is not None and not (math.isfinite(p.gate.threshold) and p.gate.at in ("before", "after")):
        raise InputError(
            f"the gate of the placement at {p.site} has a finite threshold, and reads before or after"
        )


def _hashes(vectors: Any) -> frozenset[str]:
    return frozenset(content_hash(row) for table in vectors.tables.values() for row in table.vectors)


def run_capture(engine: Engine, order: CaptureOrder) -> Tensors:
    """States [n, width], or their means [width], as `<item>:<site>`."""
    with engine._lock:
        if order.mean and not any(i.plan for i in order.items) and order.at == "before":
            pooled = engine._pool(order.items, order.sites, None)
            return {f"{i}:{s.key}": pooled[s][i] for s in order.sites for i in range(len(order.items))}
        states = engine._capture(order.items, order.sites, order.at)
    return {
        f"{i}:{s.key}": found[s].mean(0) if order.mean else found[s]
        for i, found in enumerate(states)
        for s in order.sites
    }


def run_score(engine: Engine, items: Sequence[ScoreItem]) -> Tensors:
    """Log-probabilities as `<item>:logprobs`, and where they are wanted `<item>:distribution`."""
    with engine._lock:
        scores = engine._score(items)
    out: Tensors = {}
    for i, score in enumerate(scores):
        out[f"{i}:logprobs"] = np.asarray(score.logprobs, np.float32)
        if score.distribution is not None:
            out[f"{i}:distribution"] = np.asarray(score.distribution, np.float32)
    return out
