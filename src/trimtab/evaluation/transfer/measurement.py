"""One cell on every question: the forced log-ratio with its mass, NLL of the prompts and of fixed neutral texts, and
answers that the model writes itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from trimtab.data.neutral import neutral_texts
from trimtab.engines.base import Engine
from trimtab.engines.requests import Sampling, ScoreRequest
from trimtab.errors import InputError
from trimtab.evaluation.answers import FINAL, FIRST, find_answer, thinks, written
from trimtab.evaluation.continuation import Begun, check_limit, go_on
from trimtab.evaluation.log_ratio import MIN_MASS, Choice, forced
from trimtab.evaluation.transfer.asking import Asked, Asking
from trimtab.evaluation.transfer.cells import Cell
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt

#: Neutral texts whose NLL is measured: enough for a mean, few enough to cost little.
NEUTRAL = 16


@dataclass(frozen=True, eq=False)
class Measured:
    """`log_ratio, mass, prompt_nll` [rows] (nats; NLL per token), `neutral_nll` [texts] per token; `said` [rows] is
    "yes", "no" or None where free answers were asked for, with their mean length and the share cut at the token limit.
    `begun` holds the tokens of those that were cut, and `limits` every limit that they were given."""

    log_ratio: np.ndarray
    mass: np.ndarray
    prompt_nll: np.ndarray
    neutral_nll: np.ndarray
    fingerprint: str
    said: tuple[str | None, ...] | None = None
    texts: tuple[str, ...] = ()
    length: float | None = None
    cut: float | None = None
    begun: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    limits: tuple[int, ...] = ()

    @property
    def valid(self) -> np.ndarray:
        """Questions whose two answers hold at least half of the probability."""
        return self.mass >= MIN_MASS

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as a run keeps it."""
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()}
        return {**plain, "begun": {str(i): list(t) for i, t in self.begun.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Measured:
        """Read `to_json` back; null is NaN."""
        arrays = {
            k: np.array([np.nan if x is None else x for x in record[k]], dtype=np.float64)
            for k in ("log_ratio", "mass", "prompt_nll", "neutral_nll")
        }
        said = None if record["said"] is None else tuple(record["said"])
        rest = {k: record[k] for k in ("fingerprint", "length", "cut")}
        begun = {int(i): tuple(t) for i, t in record["begun"].items()}
        limits = tuple(record["limits"])
        return cls(**arrays, said=said, texts=tuple(record["texts"]), begun=begun, limits=limits, **rest)


@dataclass(frozen=True, eq=False)
class Bench:
    """What every cell is measured on: the same questions, slot, neutral texts and sampling."""

    engine: Engine
    rows: tuple[Asked, ...]
    asking: Asking
    choice: Choice
    neutral: tuple[Prompt, ...]
    free_tokens: int = 0
    seed: int = 0
    _prompts: dict[tuple[str | None, str], list[Prompt]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, engine: Engine, rows: Sequence[Asked], asking: Asking, *, free_tokens: int = 0, seed: int = 0
    ) -> Bench:
        """Encode what is fixed; `free_tokens` 0 asks for no free answers."""
        if not rows:
            raise InputError("there are no questions to ask")
        limit = engine.info.context_length
        texts = [engine.encode(t, bare=True) for t in neutral_texts()]
        fitting = [t for t in texts if len(t) > 1 and (limit is None or len(t) <= limit)][:NEUTRAL]
        if not fitting:
            raise InputError(f"no neutral text fits the context of {engine.info.id}, {limit} tokens")
        return cls(
            engine, tuple(rows), asking, asking.choice(engine, rows), tuple(fitting), free_tokens, seed
        )

    def _asked(self, system: str | None, how: str) -> list[Prompt]:
        """Encoded once for all cells that share a system message."""
        if (system, how) not in self._prompts:
            encode = self.asking.prompts if how == "slot" else self.asking.open_prompts
            self._prompts[system, how] = encode(self.engine, self.rows, system)
        return self._prompts[system, how]

    def asks_like(self, other: Bench) -> bool:
        """Whether another model gets the same tokens: the questions, the answers and the neutral texts."""
        mine, theirs = (b._asked(None, "slot") for b in (self, other))
        tokens = [
            [p.tokens for p in prompts] for prompts in ((*mine, *self.neutral), (*theirs, *other.neutral))
        ]
        return tokens[0] == tokens[1] and self.choice == other.choice

    def measure(self, cell: Cell) -> Measured:
        """All questions and neutral texts under one cell."""
        engine, n = self.engine, len(self.rows)
        prompts = self._asked(cell.system, "slot")
        plan = EMPTY if cell.plan is None else cell.plan
        found = forced(engine, prompts, [self.choice] * n, [plan] * n)
        neutral = engine.score([ScoreRequest(t, plan=plan) for t in self.neutral])
        free: dict[str, Any] = {}
        if self.free_tokens:
            asked = self._asked(cell.system, "open")
            done = written(
                engine,
                asked,
                [self.choice] * n,
                [plan] * n,
                pattern=self._pattern,
                sampling=self._sampling,
                ratios=False,
            )
            begun = {i: done.tokens[i] for i, f in enumerate(done.finish) if f == "length"}
            free = {
                "said": done.said,
                "texts": done.texts,
                "length": float(np.mean([len(t) for t in done.tokens])),
                "cut": len(begun) / n,
                "begun": begun,
                "limits": (self.free_tokens,),
            }
        return Measured(
            found.ratios.log_ratio,
            found.ratios.mass,
            found.prompt_nll,
            np.array([-float(np.mean(s.logprobs)) for s in neutral]),
            engine.resolve(plan, prompts[0]).fingerprint,
            **free,
        )

    @property
    def _pattern(self) -> re.Pattern[str]:
        return FINAL if re.search(r"final choice", self.asking.template, re.IGNORECASE) else FIRST

    @property
    def _sampling(self) -> Sampling:
        return Sampling(max_tokens=self.free_tokens, seed=self.seed)

    def check_limit(self, limit: int | None) -> None:
        """Refuse a limit to which free answers cannot go on, before anything is measured."""
        if limit is not None:
            if not self.free_tokens:
                raise InputError("--continue-to is for free answers, and none are asked for: give --free N")
            asked = self._asked(None, "open")
            check_limit(limit, self._sampling, asked, self.engine.info.context_length)

    def goes_on(self, found: Measured, limit: int | None) -> bool:
        """Whether free answers were cut at a smaller limit."""
        return limit is not None and bool(found.begun) and found.limits[-1] < limit

    def go_on(self, cell: Cell, found: Measured, limit: int) -> Measured:
        """The cell with its cut answers gone on to `limit` tokens in all; everything else stays as it is."""
        asked, rows = self._asked(cell.system, "open"), sorted(found.begun)
        plan = EMPTY if cell.plan is None else cell.plan
        begun = [
            Begun(asked[i], self.engine.resolve(plan, asked[i]), found.begun[i], self.seed) for i in rows
        ]
        whole = dict(zip(rows, go_on(self.engine, begun, self._sampling, limit), strict=True))
        texts, said = list(found.texts), list(found.said or ())
        for i, w in whole.items():
            texts[i] = self.engine.decode(w.tokens, special=True)
            answer = find_answer(texts[i], self._pattern, thinking=thinks(asked[i]))
            said[i] = None if answer is None else answer.said
        assert found.length is not None
        more = sum(len(w.tokens) - len(found.begun[i]) for i, w in whole.items())
        still = {i: w.tokens for i, w in whole.items() if w.finish == "length"}
        return replace(
            found,
            said=tuple(said),
            texts=tuple(texts),
            length=found.length + more / len(texts),
            cut=len(still) / len(texts),
            begun=still,
            limits=(*found.limits, limit),
        )
