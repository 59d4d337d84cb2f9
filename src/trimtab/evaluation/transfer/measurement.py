"""One cell on every question: the forced log-ratio with its mass, NLL of the prompts and of fixed neutral texts, and
answers that the model writes itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trimtab.data.neutral import neutral_texts
from trimtab.engines.base import Engine
from trimtab.engines.requests import Sampling, ScoreRequest
from trimtab.errors import InputError
from trimtab.evaluation.answers import FINAL, FIRST, find_answer, thinks, written
from trimtab.evaluation.continuation import Begun, check_limit, from_where, go_on
from trimtab.evaluation.log_ratio import MIN_MASS, Choice, forced
from trimtab.evaluation.transfer.asking import Asked, Asking
from trimtab.evaluation.transfer.cells import Cell
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt

#: Neutral texts whose NLL is measured: enough for a mean, few enough to cost little.
NEUTRAL = 16


@dataclass(frozen=True)
class Reply:
    """A free answer: its text with special tokens, what it says ("yes", "no" or None), how many tokens it has, whether
    the last of the `limits` that it was given cut it, and its tokens where one of them did."""

    text: str
    said: str | None
    tokens: int
    cut: bool
    limits: tuple[int, ...]
    ids: tuple[int, ...] = ()

    def before(self, limit: int) -> tuple[int, ...] | None:
        """The tokens from which it goes on to `limit`, also where it has done so already; None where it never will."""
        row = {"limits": self.limits, "ids": self.ids, "cut": self.cut}
        return from_where(row, limit)


@dataclass(frozen=True, eq=False)
class Measured:
    """`log_ratio, mass, prompt_nll` [rows] (nats; NLL per token), `neutral_nll` [texts] per token, and the free answers
    [rows] where some were asked for; `fingerprint` is that of the first row's plan."""

    log_ratio: np.ndarray
    mass: np.ndarray
    prompt_nll: np.ndarray
    neutral_nll: np.ndarray
    fingerprint: str
    replies: tuple[Reply, ...] = ()

    @property
    def valid(self) -> np.ndarray:
        """Questions whose two answers hold at least half of the probability."""
        return self.mass >= MIN_MASS

    @property
    def said(self) -> tuple[str | None, ...] | None:
        """What every free answer says; None where none were asked for."""
        return tuple(r.said for r in self.replies) or None

    @property
    def length(self) -> float | None:
        """Mean length of the free answers, in tokens."""
        return float(np.mean([r.tokens for r in self.replies])) if self.replies else None

    @property
    def cut(self) -> float | None:
        """Share of them that the token limit cut."""
        return float(np.mean([r.cut for r in self.replies])) if self.replies else None

    def subset(self, keep: np.ndarray) -> Measured:
        """The questions where `keep` [rows] holds."""
        columns = {k: getattr(self, k)[keep] for k in ("log_ratio", "mass", "prompt_nll")}
        replies = tuple(self.replies[i] for i in np.flatnonzero(keep)) if self.replies else ()
        return replace(self, **columns, replies=replies)


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

    def asked(self, cell: Cell) -> list[Prompt]:
        """Every question up to its answer slot, as the cell asks it."""
        return self._asked(cell.system, "slot")

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
        return Measured(
            found.ratios.log_ratio,
            found.ratios.mass,
            found.prompt_nll,
            np.array([-float(np.mean(s.logprobs)) for s in neutral]),
            engine.resolve(plan, prompts[0]).fingerprint,
            self._replies(cell) if self.free_tokens else (),
        )

    def _replies(self, cell: Cell) -> tuple[Reply, ...]:
        asked, n = self._asked(cell.system, "open"), len(self.rows)
        plan = EMPTY if cell.plan is None else cell.plan
        done = written(
            self.engine, asked, [self.choice] * n, [plan] * n,
            pattern=self._pattern, sampling=self._sampling, ratios=False,
        )  # fmt: skip
        whole = zip(done.texts, done.said, done.tokens, done.finish, strict=True)
        return tuple(
            Reply(text, said, len(ids), end == "length", (self.free_tokens,), ids if end == "length" else ())
            for text, said, ids, end in whole
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
        """Whether some free answers were cut at a smaller limit."""
        return limit is not None and any(r.cut and r.limits[-1] < limit for r in found.replies)

    def go_on(self, cell: Cell, found: Measured, limit: int) -> Measured:
        """The cell with its cut answers gone on to `limit` tokens in all; everything else stays as it is. Those that
        have gone on already run again beside the others, so that a kill changes nothing."""
        asked, replies = self._asked(cell.system, "open"), list(found.replies)
        plan = EMPTY if cell.plan is None else cell.plan
        begun = {i: tokens for i, r in enumerate(replies) if (tokens := r.before(limit)) is not None}
        parts = [Begun(asked[i], self.engine.resolve(plan, asked[i]), t, self.seed) for i, t in begun.items()]
        for i, whole in zip(begun, go_on(self.engine, parts, self._sampling, limit), strict=True):
            text = self.engine.decode(whole.tokens, special=True)
            answer = find_answer(text, self._pattern, thinking=thinks(asked[i]))
            old = replies[i].limits
            replies[i] = Reply(
                text, None if answer is None else answer.said, len(whole.tokens), whole.finish == "length",
                old if old[-1] == limit else (*old, limit), whole.tokens,
            )  # fmt: skip
        return replace(found, replies=tuple(replies))
