"""Run items under conditions and keep one row per sample: the ground that every evaluation stands on.

All conditions of all items run in shared batches, each row with its own plan. A row holds what is needed to score
it again without a model: item, condition, plan fingerprint, dose, scale, seed, model and revision, the raw text (or
the log-probabilities of given continuations, or the readings), and the scores.

Rows are cut into parts once, over everything that is asked for, and a part that is not finished runs whole. So a
run that was killed ends with the rows of an unbroken one: no number depends on what happened to be batched beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from trimtab.engines.base import Engine
from trimtab.engines.requests import Request, Sample, Sampling, ScoreRequest
from trimtab.errors import InputError
from trimtab.evaluation.conditions import Condition, check_conditions
from trimtab.evaluation.continuation import (
    Begun,
    check_limit,
    from_where,
    go_on,
    longer_row,
    warn_of_mixed_limits,
)
from trimtab.evaluation.items import Item, check_items
from trimtab.evaluation.limits import repeated
from trimtab.evaluation.scorers.scorer import Scorer
from trimtab.plans import EMPTY
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.records import unit_key
from trimtab.resolved import ResolvedPlan

#: Samples of one part: what runs together, and what a kill can lose.
PART = 512
Record = dict[str, Any]
Advance = Callable[[int], None]


class Ledger(Protocol):
    """Where finished rows are kept: a run folder, or `Memory`."""

    @property
    def done(self) -> Mapping[str, Record]: ...
    def finish(self, unit: Any, record: Mapping[str, Any]) -> None: ...


class Memory:
    """Rows kept in memory only."""

    def __init__(self) -> None:
        self.done: dict[str, Record] = {}

    def finish(self, unit: Any, record: Mapping[str, Any]) -> None:
        key = unit_key(unit)
        self.done[key] = {"key": key, **record}


@dataclass(frozen=True, eq=False)
class _Unit:
    """One (condition, item): `n` rows."""

    condition: Condition
    item: Item
    prompt: Prompt
    plan: ResolvedPlan
    seed: int
    n: int
    key: Record

    @property
    def keys(self) -> list[Record]:
        """What identifies each row."""
        return [{**self.key, "sample": j} for j in range(self.n)]


def measure(
    engine: Engine,
    items: Sequence[Item],
    conditions: Sequence[Condition],
    concepts: Sequence[str],
    scores: Sequence[Scorer],
    *,
    sampling: Sampling | None = None,
    readout: Readout | None = None,
    seed: int = 0,
    ledger: Ledger | None = None,
    part: int = PART,
    plain_loss: bool = False,
    continue_to: int | None = None,
    advance: Advance | None = None,
) -> list[Record]:
    """Rows of every (condition, item, sample), scored for every concept; finished ones come from the ledger.

    Where every score reads continuations nothing is generated. `readout` is read at each generated token and its
    mean kept. `plain_loss` also keeps how likely the plain model finds each text (`evaluation.fluency`), which costs
    a pass. Replies that `sampling.max_tokens` cut go on to `continue_to` tokens in all: their rows keep their keys and
    both limits. `advance(rows)` counts rows, kept ones too.
    """
    ledger = ledger or Memory()
    needs = {s.needs for s in scores}
    if not scores:
        raise InputError("an evaluation needs at least one score")
    forced = needs == {"continuations"}
    if "continuations" in needs and not all(i.continuations for i in items):
        raise InputError(
            'a score over continuations needs "continuations" in every item; see docs/evaluation.md'
        )
    sampling = replace(sampling or Sampling(), n=1 if forced else (sampling or Sampling()).n)
    receipt = {
        "scores": sorted(s.name for s in scores),
        "concepts": list(concepts),
        "sampling": None if forced else _recipe(sampling),
        **({"plain_loss": True} if plain_loss else {}),
    }
    units = list(_units(engine, check_items(items), check_conditions(conditions), sampling.n, seed, receipt))
    if continue_to is not None and forced:
        raise InputError("nothing is generated for these scores, so that no reply can go on")
    check_limit(continue_to, sampling, [u.prompt for u in units], engine.info.context_length)
    found: list[Record] = []
    for batch in _parts(units, part):
        if not all(unit_key(k) in ledger.done for u in batch for k in u.keys):
            rows = _run(engine, batch, sampling, readout, needs, plain_loss)
            _score(rows, scores, concepts)
            for unit, row in zip((k for u in batch for k in u.keys), rows, strict=True):
                if unit_key(unit) not in ledger.done:
                    ledger.finish(unit, row)
        if continue_to is not None:
            longer = _go_on(engine, batch, ledger, sampling, continue_to, readout, plain_loss)
            _score([row for _, row in longer], scores, concepts)
            for unit, row in longer:
                ledger.finish(unit, row)
        found += [ledger.done[unit_key(k)] for u in batch for k in u.keys]
        if advance is not None:
            advance(sum(u.n for u in batch))
    warn_of_mixed_limits(found)
    return found


def _score(rows: Sequence[Record], scores: Sequence[Scorer], concepts: Sequence[str]) -> None:
    for score in scores if rows else ():
        for concept in concepts:
            for row, value in zip(rows, score.values(rows, concept), strict=True):
                row["scores"].setdefault(score.name, {})[concept] = float(value)


def _recipe(sampling: Sampling) -> Record:
    return {
        k: getattr(sampling, k) for k in ("max_tokens", "temperature", "top_p", "top_k", "stop", "ignore_eos")
    }


def _units(
    engine: Engine,
    items: Sequence[Item],
    conditions: Sequence[Condition],
    n: int,
    seed: int,
    receipt: Record,
) -> Iterator[_Unit]:
    """Items outside, conditions inside: rows of one prompt stand together and can share its prefill."""
    for item in items:
        # Conditions differ by what they do, not by luck: they share the item's seed.
        own = (seed * 1_000_003 + zlib.crc32(item.id.encode())) % (1 << 31)
        prompts: dict[str | None, Prompt] = {}
        for condition in conditions:
            if condition.system not in prompts:
                prompts[condition.system] = item.encode(engine, condition.system)
            prompt = prompts[condition.system]
            plan = EMPTY if condition.plan is None else engine.resolve(condition.plan, prompt)
            key = {
                "item": item.id,
                "tokens": unit_key(list(prompt.tokens)),
                "continuations": {k: list(v) for k, v in item.continuations.items()},
                "condition": condition.name,
                "kind": condition.kind,
                "fingerprint": plan.fingerprint,
                "seed": own,
                "model": engine.info.id,
                "revision": engine.info.revision,
                **receipt,
            }
            yield _Unit(condition, item, prompt, plan, own, n, key)


def _parts(units: Sequence[_Unit], size: int) -> Iterator[list[_Unit]]:
    batch: list[_Unit] = []
    for unit in units:
        if batch and sum(u.n for u in batch) + unit.n > size:
            yield batch
            batch = []
        batch.append(unit)
    if batch:
        yield batch


def _run(
    engine: Engine,
    batch: Sequence[_Unit],
    sampling: Sampling,
    readout: Readout | None,
    needs: set[str],
    plain_loss: bool,
) -> list[Record]:
    """Rows of one part, without scores."""
    rows = [_about(engine, u, j) for u in batch for j in range(u.n)]
    if needs != {"continuations"}:
        requests = [Request(u.prompt, u.plan, replace(sampling, seed=u.seed), readout=readout) for u in batch]
        samples = [s for c in engine.generate(requests) for s in c.samples]
        for row, sample in zip(rows, samples, strict=True):
            row |= _said(sample, sampling.max_tokens)
        if plain_loss:
            prompts = [u.prompt for u in batch for _ in range(u.n)]
            _add_plain_loss(engine, rows, prompts, [s.tokens for s in samples])
    if "continuations" in needs:
        for unit, logprobs in zip(batch, _continued(engine, batch), strict=True):
            for row in rows:
                if row["item"] == unit.item.id and row["condition"] == unit.condition.name:
                    row["continuations"] = logprobs
    return rows


def _go_on(
    engine: Engine,
    batch: Sequence[_Unit],
    ledger: Ledger,
    sampling: Sampling,
    limit: int,
    readout: Readout | None,
    plain_loss: bool,
) -> list[tuple[Record, Record]]:
    """(unit, row) of the part's replies that were cut and have not gone on yet, without scores."""
    found = []
    for u in batch:
        for j, unit in enumerate(u.keys):
            row = ledger.done[unit_key(unit)]
            tokens = from_where(row, limit)
            if tokens is not None:
                found.append((unit, row, Begun(u.prompt, u.plan, tokens, u.seed, j)))
    if all(row["limits"][-1] == limit for _, row, _ in found):
        return []
    whole = go_on(engine, [b for _, _, b in found], sampling, limit, readout)
    rows = [longer_row(row, w, limit) for (_, row, _), w in zip(found, whole, strict=True)]
    if plain_loss:
        _add_plain_loss(engine, rows, [b.prompt for _, _, b in found], [w.tokens for w in whole])
    return [
        (unit, row)
        for (unit, old, _), row in zip(found, rows, strict=True)
        if old["limits"][-1] != limit  # the others stand in the ledger, and ran as batchmates
    ]


def _about(engine: Engine, unit: _Unit, sample: int) -> Record:
    """The columns that do not depend on what the model says."""
    c, sources = unit.condition, [p.source for p in unit.plan.effective]
    scale = [s["scale_here"] for s in sources if "scale_here" in s]
    return {
        "item": unit.item.id,
        "question": unit.item.question,
        "sample": sample,
        "condition": c.name,
        "kind": c.kind,
        "concept": c.concept,
        "axes": dict(c.axes),
        "system": c.system,
        "fingerprint": unit.plan.fingerprint,
        "dose": c.dose,
        "scale": float(np.sum(scale)) if scale else (0.0 if not sources else None),
        "seed": unit.seed,
        "model": engine.info.id,
        "revision": engine.info.revision,
        "scores": {},
    }


def _said(sample: Sample, limit: int) -> Record:
    """What a generated row keeps; `cut` says that it was ended by the token limit, and goes on from its `ids`."""
    found: Record = {
        "text": sample.text,
        "tokens": len(sample.tokens),
        "cut": sample.finish == "length",
        "finite": bool(np.isfinite(sample.logprobs).all()),
        "limits": [limit],
    }
    if sample.finish == "length":
        found["ids"] = list(sample.tokens)
    if sample.readings is not None:
        means = sample.readings.values.mean((0, 1))
        found["readings"] = {c: float(v) for c, v in zip(sample.readings.concepts, means, strict=True)}
    return found


def _add_plain_loss(
    engine: Engine, rows: Sequence[Record], prompts: Sequence[Prompt], texts: Sequence[tuple[int, ...]]
) -> None:
    """`plain_nll`, nats per token of the text under the plain model, and `repeated`, its share of repeated trigrams."""
    scored = engine.score([ScoreRequest(p, t, EMPTY) for p, t in zip(prompts, texts, strict=True)])
    for row, text, score in zip(rows, texts, scored, strict=True):
        row["plain_nll"], row["repeated"] = -float(score.logprobs.mean()), repeated(text)


def _continued(engine: Engine, batch: Sequence[_Unit]) -> list[Record]:
    """Per unit: label -> [[sum of log-probabilities, tokens], …] of its continuations under its plan."""
    wanted = [
        (u, label, text) for u in batch for label, texts in u.item.continuations.items() for text in texts
    ]
    scored = iter(engine.score([ScoreRequest(u.prompt, text, u.plan) for u, _, text in wanted]))
    return [
        {
            label: [[s.total, len(s.tokens)] for s in (next(scored) for _ in texts)]
            for label, texts in u.item.continuations.items()
        }
        for u in batch
    ]


# --- reading rows


def by_condition(rows: Sequence[Record]) -> dict[str, list[Record]]:
    """Rows of each condition, in order."""
    found: dict[str, list[Record]] = {}
    for row in rows:
        found.setdefault(row["condition"], []).append(row)
    return found


def item_scores(rows: Sequence[Record], score: str, concept: str) -> np.ndarray:
    """Mean score of each item [items] of one condition's rows, items by name; NaN where a row has no number."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        value = row["scores"][score][concept]
        groups.setdefault(row["item"], []).append(float("nan") if value is None else value)
    return np.array([np.mean(groups[i]) for i in sorted(groups)])
