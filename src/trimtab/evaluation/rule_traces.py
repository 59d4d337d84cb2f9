"""How well rules do on recorded readings: precision, recall and delay, with intervals, the reply being the unit.

A trace is one reply: `{"id", "layers", "concepts", "unit", "start", "values": [T][L][C], "truth": {rule: …}}`, where
`start` is the absolute position of the first state and a truth is true or false (should the rule fire in this reply),
or the position from which it should. The `readout` of a server's answer is a trace, too, once it has its truth: it says
`z` instead of a unit, and `position` instead of what `start` is here.

A firing before the position of its truth is a false alarm and a miss. Rules whose truth a trace does not give are not
judged on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from trimtab.data.reading import records_of
from trimtab.errors import InputError
from trimtab.rules import UNITS, Firing, Rule, Watch

KEYS = {"id", "layers", "concepts", "unit", "start", "values", "truth"}


@dataclass(frozen=True, eq=False)
class Trace:
    """Recorded readings `values` [T, L, C] of one reply, from the absolute position `start` on."""

    id: str
    layers: tuple[int, ...]
    concepts: tuple[str, ...]
    unit: str
    values: np.ndarray
    start: int
    truth: Mapping[str, bool | int]

    @classmethod
    def from_json(cls, record: Any) -> Trace:
        """From one record; null readings become NaN. Raises InputError that names the fault."""
        if not isinstance(record, Mapping):
            raise InputError(f"a trace is an object, got {record!r}")
        record = _of_a_server(record)
        missing = KEYS - {"id", "truth", "start"} - set(record)
        if missing:
            raise InputError(f"the trace lacks {', '.join(sorted(missing))}")
        layers, concepts = tuple(record["layers"]), tuple(record["concepts"])
        shape = (len(layers), len(concepts))
        try:
            values = np.array(record["values"], dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        if not record["values"]:
            values = np.empty((0, *shape))
        if values.shape[1:] != shape:
            raise InputError(
                f"the trace's values are not [tokens][{shape[0]} layers][{shape[1]} concepts] of numbers or null"
            )
        if record["unit"] not in UNITS:
            raise InputError(f"the trace's unit is one of {', '.join(UNITS)}, got {record['unit']!r}")
        truth = dict(record.get("truth") or {})
        for name, value in truth.items():
            if not isinstance(value, bool | int):
                raise InputError(f"the truth of {name!r} is true, false or a position, got {value!r}")
        return cls(
            str(record.get("id", "")),
            layers,
            concepts,
            record["unit"],
            values,
            int(record.get("start", 0)),
            truth,
        )

    def fire(self, rules: Sequence[Rule]) -> list[Firing]:
        """What the rules do on this reply."""
        watch = Watch(rules, self.layers, self.concepts, self.unit)
        return watch.see_all(range(self.start, self.start + len(self.values)), self.values)


def _of_a_server(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A readout as a server writes it, in the words of traces; in JSON and with all concepts of each token."""
    if "position" not in record:
        return record
    if record.get("encoding", "json") != "json" or "indices" in record:
        raise InputError(
            "a packed readout, or one of the highest concepts alone, is no trace: ask for all, as json"
        )
    found = {k: v for k, v in record.items() if k not in ("position", "z")} | {"start": record["position"]}
    return {"unit": "z" if record["z"] else "raw", **found} if isinstance(record.get("z"), bool) else found


def read_traces(path: Path) -> list[Trace]:
    """Traces of a JSONL file."""
    found = []
    for where, row in records_of(path):
        try:
            found.append(Trace.from_json(row))
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
    if not found:
        raise InputError(f"{path} holds no traces")
    return found


@dataclass(frozen=True)
class Rate:
    """`hits` of `n` with its Wilson 95 % interval; NaN where n is 0."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        if not self.n:
            return math.nan, math.nan
        z2, p = 1.959964**2, self.value
        middle = (p + z2 / (2 * self.n)) / (1 + z2 / self.n)
        half = math.sqrt(z2 * (p * (1 - p) / self.n + z2 / (4 * self.n**2))) / (1 + z2 / self.n)
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_json(self) -> dict[str, Any]:
        """`{value, low, high, n}`."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high, "n": self.n}


@dataclass(frozen=True)
class RuleScore:
    """One rule on the replies whose truth is known: `early` firings count against precision and recall both; `delay`
    is the median number of tokens between a true position and the first firing at or after it."""

    rule: str
    precision: Rate
    recall: Rate
    early: int
    delay: float | None
    replies: int

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        return {
            "rule": self.rule, "precision": self.precision.to_json(), "recall": self.recall.to_json(),
            "early": self.early, "delay": self.delay, "replies": self.replies,
        }  # fmt: skip


def score_rules(rules: Sequence[Rule], traces: Sequence[Trace]) -> list[RuleScore]:
    """One score per rule. Raises InputError for a rule that no trace gives the truth of, and for truths of unknown
    rules."""
    unknown = sorted({n for t in traces for n in t.truth} - {r.name for r in rules})
    if unknown:
        raise InputError(
            f"the traces give the truth of {', '.join(map(repr, unknown))}, and there is no such rule"
        )
    return [_score(rule, [t for t in traces if rule.name in t.truth]) for rule in rules]


def _score(rule: Rule, traces: Sequence[Trace]) -> RuleScore:
    if not traces:
        raise InputError(f"no trace says whether the rule {rule.name!r} should fire: give its truth")
    right = fired = due = early = 0
    delays: list[int] = []
    for trace in traces:
        truth = trace.truth[rule.name]
        at = [f.position for f in trace.fire([rule])]
        due += truth is not False
        fired += bool(at)
        if not at or truth is False:
            continue
        since = None if truth is True else int(truth)
        if since is not None and at[0] < since:
            early += 1
            continue
        right += 1
        if since is not None:
            delays.append(at[0] - since)
    delay = float(median(delays)) if delays else None
    return RuleScore(rule.name, Rate(right, fired), Rate(right, due), early, delay, len(traces))
