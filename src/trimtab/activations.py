"""Rows of hidden states with labels, the rules that choose tokens to read, and `Evidence`: what a method
asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from trimtab.directions import frozen
from trimtab.errors import InputError, UnknownName
from trimtab.prompts import Prompt
from trimtab.sites import Site

POSITIVE, NEGATIVE = "positive", "negative"

#: What a method may ask an engine to collect. `gram` is the second moment of paired differences, `cov` that
#: of each group about its mean; both stream. `rows` keeps every row. The rest wait for the methods that need
#: them.
NEEDS = frozenset({"mean", "gram", "cov", "rows", "tokens", "gradients", "logprobs", "weights"})
STREAMED_NEEDS = frozenset({"mean", "gram", "cov", "rows"})


# --- poolings: which tokens of a text are read (then averaged)


def _content(prompt: Prompt) -> np.ndarray:
    return np.array([i for i in range(1, len(prompt)) if i not in prompt.special], dtype=np.int64)


def _last(prompt: Prompt) -> np.ndarray:
    return np.array([len(prompt) - 1])


def _last_content(prompt: Prompt) -> np.ndarray:
    if prompt.spans:
        return np.array([prompt.spans[-1].end - 1])
    content = _content(prompt)
    return content[-1:] if len(content) else _last(prompt)


def _mean_role(role: str) -> Callable[[Prompt], np.ndarray]:
    def positions(prompt: Prompt) -> np.ndarray:
        ranges = prompt.role_ranges(role)
        found = [
            i for a, b in ranges for i in range(a, b or len(prompt)) if i not in prompt.special and i > 0
        ]
        return np.array(found, dtype=np.int64)

    return positions


_POOLINGS: Mapping[str, Callable[[Prompt], np.ndarray]] = {
    "last": _last,
    "prompt_last": _last,  # the last token of a rendered generation prompt; the data layer renders it so
    "last_content": _last_content,
    "mean_all": _content,
    "mean_system": _mean_role("system"),
    "mean_user": _mean_role("user"),
    "mean_assistant": _mean_role("assistant"),
}
#: Names of the poolings; `last_<n>` (mean of the last n tokens) exists for every n >= 1.
POOLINGS = (*_POOLINGS, "last_<n>")


def pool_positions(pooling: str, prompt: Prompt) -> np.ndarray:
    """Token positions that `pooling` reads in `prompt`, ascending; their states are averaged. Never empty."""
    if match := re.fullmatch(r"last_([1-9]\d*)", pooling):
        return np.arange(max(0, len(prompt) - int(match[1])), len(prompt))
    if pooling not in _POOLINGS:
        raise UnknownName.of("pooling", pooling, POOLINGS)
    found = _POOLINGS[pooling](prompt)
    if not len(found):
        shown = (prompt.text or str(prompt.tokens))[:60]
        raise InputError(
            f"pooling {pooling!r} finds no token to read in {shown!r}; use 'last', or longer texts"
        )
    return found


def check_pooling(pooling: str) -> str:
    """Refuse an unknown pooling before any model loads."""
    if pooling not in _POOLINGS and not re.fullmatch(r"last_[1-9]\d*", pooling):
        raise UnknownName.of("pooling", pooling, POOLINGS)
    return pooling


# --- evidence


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a method gets for one concept at one site. Arrays are float64 and keyed by group (positive,
    negative).

    `count, mean [width], var [width]` are always there; `factor` [k, width] satisfies factor.T @ factor =
    sum of d d^T over the paired differences d (need "gram"); `cov` [width, width] per group; `rows` [n,
    width].
    """

    site: Site
    count: Mapping[str, int]
    mean: Mapping[str, np.ndarray]
    var: Mapping[str, np.ndarray]
    paired: bool = False
    factor: np.ndarray | None = None
    cov: Mapping[str, np.ndarray] | None = None
    rows: Mapping[str, np.ndarray] | None = None
    needs: frozenset[str] = frozenset({"mean"})

    @property
    def width(self) -> int:
        """Width of the site."""
        return self.mean[POSITIVE].shape[0]

    @property
    def pairs(self) -> int:
        """Number of pairs; 0 where the groups are not paired."""
        return self.count[POSITIVE] if self.paired else 0

    def require(self, *needs: str) -> None:
        """Refuse to fit without what was asked for."""
        missing = sorted(set(needs) - self.needs)
        if missing:
            raise InputError(
                f"this evidence at {self.site} holds {sorted(self.needs)}, not {missing}: collect them"
            )

    @classmethod
    def from_rows(
        cls,
        site: Site,
        positive: np.ndarray,
        negative: np.ndarray,
        needs: Iterable[str] = STREAMED_NEEDS,
        paired: bool = True,
    ) -> Evidence:
        """From whole tables [n, width]; the same numbers as streaming them."""
        builder = EvidenceBuilder(site, needs, paired=paired)
        builder.add(np.asarray(positive), np.asarray(negative))
        return builder.finish()


@dataclass
class _Moments:
    """Streaming count, mean and scatter (Chan's update), float64."""

    full: bool
    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scatter: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, rows: np.ndarray) -> None:
        n = len(rows)
        if not n:
            return
        mean = rows.mean(0)
        centred = rows - mean
        scatter = centred.T @ centred if self.full else (centred**2).sum(0)
        if not self.count:
            self.count, self.mean, self.scatter = n, mean, scatter
            return
        total, delta = self.count + n, mean - self.mean
        weight = self.count * n / total
        self.scatter = self.scatter + scatter + weight * (np.outer(delta, delta) if self.full else delta**2)
        self.mean = self.mean + delta * (n / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        return self.scatter / max(1, self.count - 1)


class EvidenceBuilder:
    """Stream batches of rows into `Evidence`; memory stays at a few [width, width] arrays unless rows are
    asked for.
    """

    def __init__(self, site: Site, needs: Iterable[str], paired: bool) -> None:
        self.site, self.paired, self.needs = site, paired, frozenset(needs) | {"mean"}
        unknown = self.needs - NEEDS
        if unknown:
            raise UnknownName.of("need", sorted(unknown)[0], NEEDS)
        if self.needs - STREAMED_NEEDS:
            raise InputError(
                f"rows alone cannot give {sorted(self.needs - STREAMED_NEEDS)}: the engine must collect them"
            )
        if "gram" in self.needs and not paired:
            raise InputError("the second moment of differences needs pairs; this corpus is not paired")
        self._moments = {g: _Moments("cov" in self.needs) for g in (POSITIVE, NEGATIVE)}
        self._rows: dict[str, list[np.ndarray]] = {POSITIVE: [], NEGATIVE: []}
        self._factor: np.ndarray | None = None

    def add(self, positive: np.ndarray, negative: np.ndarray) -> None:
        """One batch [n, width] per group; paired batches must line up row by row."""
        if self.paired and len(positive) != len(negative):
            raise InputError(f"{len(positive)} positive and {len(negative)} negative rows are not pairs")
        batch = {POSITIVE: np.asarray(positive, np.float64), NEGATIVE: np.asarray(negative, np.float64)}
        for group, rows in batch.items():
            if not np.isfinite(rows).all():
                raise InputError(
                    f"activations at {self.site} hold NaN or infinite numbers; try --dtype float32"
                )
            self._moments[group].add(rows)
            if "rows" in self.needs and len(rows):
                self._rows[group].append(np.array(rows))
        if "gram" in self.needs and len(positive):
            self._grow(batch[POSITIVE] - batch[NEGATIVE])

    def _grow(self, differences: np.ndarray) -> None:
        """Stack the differences, and fold them into a triangular factor once there are more than 2 * width of
        them.
        """
        stacked = differences if self._factor is None else np.concatenate([self._factor, differences])
        if len(stacked) > 2 * stacked.shape[1]:
            stacked = np.asarray(np.linalg.qr(stacked, mode="r"))
        self._factor = stacked

    def finish(self) -> Evidence:
        """The evidence; both groups must have rows."""
        for group, moments in self._moments.items():
            if not moments.count:
                raise InputError(f"no {group} rows at {self.site}: a direction needs both sides")
        full = "cov" in self.needs
        cov = {g: m.covariance for g, m in self._moments.items()}
        return Evidence(
            site=self.site,
            count={g: m.count for g, m in self._moments.items()},
            mean={g: frozen(m.mean, "float64") for g, m in self._moments.items()},
            var={g: frozen(np.diag(c) if full else c, "float64") for g, c in cov.items()},
            paired=self.paired,
            factor=None if self._factor is None else frozen(self._factor, "float64"),
            cov={g: frozen(c, "float64") for g, c in cov.items()} if full else None,
            rows={g: frozen(np.concatenate(r), "float64") for g, r in self._rows.items()}
            if "rows" in self.needs
            else None,
            needs=self.needs,
        )


@dataclass(frozen=True, eq=False)
class Activations:
    """Rows [n, width] at one site with where they came from: a label, a group (pair or scenario), text and
    position.
    """

    site: Site
    rows: np.ndarray
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    texts: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", frozen(self.rows))
        for name in ("labels", "groups", "texts", "positions"):
            column = getattr(self, name)
            if len(column) != len(self.rows) and (column or name in ("labels", "groups")):
                raise InputError(f"{len(self.rows)} rows but {len(column)} {name}")

    def of(self, label: str) -> np.ndarray:
        """Rows with a label."""
        return self.rows[[i for i, name in enumerate(self.labels) if name == label]]

    def evidence(
        self, concept: str, negative: str, needs: Iterable[str] = STREAMED_NEEDS, paired: bool = False
    ) -> Evidence:
        """Evidence for `concept` against `negative`; paired rows are matched by group."""
        if not paired:
            needs = frozenset(needs) - {"gram"}
            return Evidence.from_rows(self.site, self.of(concept), self.of(negative), needs, paired=False)
        side = {
            label: {
                g: self.rows[i]
                for i, (g, name) in enumerate(zip(self.groups, self.labels, strict=True))
                if name == label
            }
            for label in (concept, negative)
        }
        if side[concept].keys() != side[negative].keys():
            odd = sorted(side[concept].keys() ^ side[negative].keys())
            raise InputError(f"groups {odd[:5]} have only one side; pairs need both")
        order = list(side[concept])
        pick = {label: np.stack([rows[g] for g in order]) for label, rows in side.items()}
        return Evidence.from_rows(self.site, pick[concept], pick[negative], needs, paired=True)
