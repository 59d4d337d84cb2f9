"""Replies that the token limit cut, gone on with from where they stopped.

A reply goes on from its own *tokens*: its text, tokenised again, could be other tokens. It keeps the plan that was
resolved for its prompt, so that generated tokens stay generated, and its own random numbers, so that what it becomes is
what one run with the larger limit gives (vLLM draws other numbers where it samples; see `Sampling.resumes`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trimtab.engines.base import Engine
from trimtab.engines.requests import Request, Sample, Sampling
from trimtab.errors import FormatError, InputError
from trimtab.prompts import Prompt
from trimtab.readouts import Readings, Readout
from trimtab.resolved import ResolvedPlan


@dataclass(frozen=True, eq=False)
class Begun:
    """A reply that was cut: `tokens` of sample `sample` after `prompt` under `plan`, which was resolved for it."""

    prompt: Prompt
    plan: ResolvedPlan
    tokens: tuple[int, ...]
    seed: int | None = None
    sample: int = 0


@dataclass(frozen=True, eq=False)
class Whole:
    """All `tokens` of the reply, their text, `finish` as of a `Sample`; `logprobs` and `readings` of the new ones."""

    tokens: tuple[int, ...]
    text: str
    finish: str
    logprobs: np.ndarray
    readings: Readings | None = None


def check_limit(
    limit: int | None, sampling: Sampling, prompts: Sequence[Prompt], context: int | None
) -> None:
    """Refuse a limit that is not larger than the first one, and one that the context has no room for."""
    if limit is None:
        return
    if limit <= sampling.max_tokens:
        raise InputError(
            f"replies of at most {sampling.max_tokens} tokens go on to a larger limit, got {limit}; it counts a whole "
            "reply"
        )
    longest = max(map(len, prompts), default=0)
    if context is not None and longest + limit > context:
        raise InputError(
            f"replies cannot go on to {limit} tokens: with the longest prompt ({longest}) that is more than the "
            f"context of {context}"
        )


def go_on(
    engine: Engine, begun: Sequence[Begun], sampling: Sampling, limit: int, readout: Readout | None = None
) -> list[Whole]:
    """Each reply until it ends or has `limit` tokens in all, in one call; `sampling` is that of the first part."""
    requests = []
    for b in begun:
        options = replace(
            sampling, n=1, seed=b.seed, max_tokens=limit - len(b.tokens), resumes=(b.sample, len(b.tokens))
        )
        longer = replace(b.prompt, tokens=b.prompt.tokens + b.tokens)
        requests.append(Request(longer, b.plan, options, readout=readout))
    done = engine.generate(requests) if requests else []
    return [_whole(engine, b, c.samples[0], sampling.stop) for b, c in zip(begun, done, strict=True)]


def _whole(engine: Engine, begun: Begun, sample: Sample, stop: Sequence[str]) -> Whole:
    tokens = begun.tokens + sample.tokens
    first = len(begun.tokens)
    for k in range(first + 1, len(tokens) + 1) if stop else ():
        # A stop string may begin before the cut and end behind it, where the engine did not look for it.
        so_far = engine.decode(tokens[:k])
        found = [i for s in stop if (i := so_far.find(s)) >= 0]
        if found:
            return _cut(sample, tokens[:k], so_far[: min(found)], k - first)
    return Whole(tokens, engine.decode(tokens), sample.finish, sample.logprobs, sample.readings)


def _cut(sample: Sample, tokens: tuple[int, ...], text: str, new: int) -> Whole:
    """The reply up to the token that completed a stop string."""
    read = sample.readings
    if read is not None:
        read = replace(read, values=read.values[:new], positions=read.positions[:new])
    return Whole(tokens, text, "stop", sample.logprobs[:new], read)


# --- rows of a run, which keep `ids` (tokens) where they were cut, and every limit that they were given (`limits`)


def from_where(row: Mapping[str, Any], limit: int) -> tuple[int, ...] | None:
    """The tokens from which a row goes on to `limit`, also where it has done so already; None where it never will.

    What runs together is then the same after any kill: rows that are done run again beside those that are not.
    """
    if "limits" not in row:
        raise FormatError(
            "this run keeps no tokens to go on from: it was made by an earlier version; use --fresh"
        )
    limits = row["limits"]
    if len(limits) > 1 and limits[-1] == limit:
        return tuple(row["ids"][: limits[-2]])
    return tuple(row["ids"]) if is_cut(row) and limits[-1] < limit else None


def is_cut(row: Mapping[str, Any]) -> bool:
    """Whether a row's reply was ended by the limit (rollouts say how it ended instead)."""
    return bool(row["cut"] if "cut" in row else row.get("finish") == "length")


def longer_row(row: Mapping[str, Any], whole: Whole, limit: int) -> dict[str, Any]:
    """The row with the whole reply, without scores; both limits stand in it."""
    found = {
        **row,
        "text": whole.text,
        "tokens": len(whole.tokens),
        "cut": whole.finish == "length",
        "finite": bool(row["finite"] and np.isfinite(whole.logprobs).all()),
        "limits": [*row["limits"], limit],
        "ids": list(whole.tokens),
        "scores": {},
    }
    if whole.readings is not None:
        old, means = len(whole.tokens) - len(whole.logprobs), whole.readings.values.mean((0, 1))
        for concept, mean in zip(whole.readings.concepts, means, strict=True):
            before = row["readings"][concept]
            sums = (np.nan if before is None else before) * old + float(mean) * len(whole.logprobs)
            found["readings"] = {**found["readings"], concept: sums / len(whole.tokens)}
    return found


def warn_of_mixed_limits(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say where some replies are cut at a limit beyond which others of the same run went on."""
    limited = [r for r in rows if "limits" in r]
    most = max((r["limits"][-1] for r in limited), default=0)
    behind = [r["limits"][-1] for r in limited if is_cut(r) and r["limits"][-1] < most]
    if behind:
        warnings.warn(
            f"{len(behind)} replies are cut at {max(behind)} tokens where others of this run went on to {most}: "
            f"they cannot be compared. The same command with --continue-to {most} goes on with those that it asks for",
            stacklevel=3,
        )
