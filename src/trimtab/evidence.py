"""`Evidence`: what an extraction method asked for, per site and group, and the builder that streams it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trimtab.directions import frozen
from trimtab.errors import InputError, UnknownName
from trimtab.sites import Site

POSITIVE, NEGATIVE = "positive", "negative"

#: Differences that the reservoir of a folded second moment keeps: a share of them is known to .02.
RESERVOIR = 512

#: What a method may ask an engine to collect. `gram` is the second moment of paired differences, `cov` that
#: of each group about its mean; both stream. `rows` keeps every row. The rest wait for the methods that need
#: them.
NEEDS = frozenset({"mean", "gram", "cov", "rows", "tokens", "gradients", "logprobs", "weights"})
STREAMED_NEEDS = frozenset({"mean", "gram", "cov", "rows"})


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a method gets for one concept at one site. Arrays are float64 and keyed by group (positive,
    negative).

    `count, mean [width], var [width]` are always there. What a need adds, in the order of the comparison:
    `factor` [k, width] with factor.T @ factor = sum of d d^T over the paired differences d ("gram"; up to 2 *
    width pairs they are its rows, above that it is a triangle, and `reservoir` [512, width] holds a uniform draw of
    them); `cov`
    [width, width] per group; `rows` [n, width]; `tokens`, one [T, width] per text, of the tokens that its
    pooling could read; `gradients` [n, width] of an objective at the read position, with `loss_norms` [n], the
    squared norm of each row's gradient at the loss's own input; `logprobs` [n], nats per token; `weights`, the
    matrices [out, in] that write to or read from the site, by module name. `groups` names, for every row, what
    must stay together when rows are split; `scores` [n] are the judge's marks (NaN where a text has none).
    """

    site: Site
    count: Mapping[str, int]
    mean: Mapping[str, np.ndarray]
    var: Mapping[str, np.ndarray]
    paired: bool = False
    factor: np.ndarray | None = None
    reservoir: np.ndarray | None = None
    cov: Mapping[str, np.ndarray] | None = None
    rows: Mapping[str, np.ndarray] | None = None
    groups: Mapping[str, tuple[str, ...]] | None = None
    scores: Mapping[str, np.ndarray] | None = None
    tokens: Mapping[str, tuple[np.ndarray, ...]] | None = None
    gradients: Mapping[str, np.ndarray] | None = None
    loss_norms: Mapping[str, np.ndarray] | None = None
    logprobs: Mapping[str, np.ndarray] | None = None
    weights: Mapping[str, np.ndarray] | None = None
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
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> Evidence:
        """From whole tables [n, width]; the same numbers as streaming them."""
        builder = EvidenceBuilder(site, needs, paired=paired, groups=groups)
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
        with np.errstate(invalid="ignore"):
            mean = rows.mean(0, dtype=np.float64)
        if not np.isfinite(mean).all():  # one NaN or infinite number makes its column's sum so
            raise FloatingPointError
        centred = rows - mean
        scatter = centred.T @ centred if self.full else np.einsum("ij,ij->j", centred, centred)
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


@dataclass
class _Reservoir:
    """A uniform draw of at most `RESERVOIR` rows from a stream: those whose place has the smallest hash, so that the
    order in which rows come does not matter, and no seed is needed."""

    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    rows: np.ndarray | None = None

    def add(self, rows: np.ndarray, places: Sequence[int]) -> None:
        keys = _hashed(np.asarray(places, np.uint64))
        if len(self.keys) >= RESERVOIR:
            new = keys < self.keys[-1]
            rows, keys = rows[new], keys[new]
        if not len(keys):
            return
        merged = np.concatenate([self.keys, keys])
        order = np.argsort(merged)[:RESERVOIR]
        stacked = rows if self.rows is None else np.concatenate([self.rows, rows])
        self.keys, self.rows = merged[order], stacked[order]


def _hashed(places: np.ndarray) -> np.ndarray:
    """Distinct numbers without order [n] uint64 for distinct places (splitmix64)."""
    x = places + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class EvidenceBuilder:
    """Stream batches of rows into `Evidence`; memory stays at a few [width, width] arrays unless rows are
    asked for.
    """

    def __init__(
        self,
        site: Site,
        needs: Iterable[str],
        paired: bool,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
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
        self._groups = None if groups is None else {g: tuple(names) for g, names in groups.items()}
        self._rows: dict[str, list[np.ndarray]] = {POSITIVE: [], NEGATIVE: []}
        self._places: dict[str, list[int]] = {POSITIVE: [], NEGATIVE: []}
        self._factor: np.ndarray | None = None
        self._reservoir: _Reservoir | None = None

    def add(
        self,
        positive: np.ndarray,
        negative: np.ndarray,
        places: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        """One batch [n, width] per group; paired batches must line up row by row. `places` says which rows of
        the comparison these are, where they do not come in its order.
        """
        if self.paired and len(positive) != len(negative):
            raise InputError(f"{len(positive)} positive and {len(negative)} negative rows are not pairs")
        batch = {POSITIVE: np.asarray(positive), NEGATIVE: np.asarray(negative)}
        for group, rows in batch.items():
            try:
                self._moments[group].add(rows)
            except FloatingPointError:
                raise InputError(
                    f"activations at {self.site} hold NaN or infinite numbers; try --dtype float32"
                ) from None
            if "rows" in self.needs and len(rows):
                self._rows[group].append(np.array(rows, np.float64))
            if self.needs & {"rows", "gram"} and len(rows):
                given = None if places is None else places[0 if group == POSITIVE else 1]
                start = len(self._places[group])
                self._places[group] += range(start, start + len(rows)) if given is None else given
        if "gram" in self.needs and len(positive):
            self._grow(np.subtract(batch[POSITIVE], batch[NEGATIVE], dtype=np.float64))

    def _grow(self, differences: np.ndarray) -> None:
        """Stack the differences, and fold them into a triangular factor once there are more than 2 * width of
        them; from then on the reservoir holds what is left of them.
        """
        stacked = differences if self._factor is None else np.concatenate([self._factor, differences])
        places = self._places[POSITIVE]
        if self._reservoir is not None:
            self._reservoir.add(differences, places[-len(differences) :])
        if len(stacked) > 2 * stacked.shape[1]:
            if self._reservoir is None:
                self._reservoir = _Reservoir()
                self._reservoir.add(stacked, places)
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
            factor=None if self._factor is None else self._ordered_factor(self._factor),
            reservoir=None if self._reservoir is None else frozen(self._reservoir.rows, "float64"),
            cov={g: frozen(c, "float64") for g, c in cov.items()} if full else None,
            rows={g: self._ordered(g) for g in self._rows} if "rows" in self.needs else None,
            groups=self._groups,
            needs=self.needs,
        )

    def _ordered_factor(self, factor: np.ndarray) -> np.ndarray:
        """Differences in the comparison's order, or the triangle that they were folded into."""
        whole = self._reservoir is None
        return frozen(factor[np.argsort(self._places[POSITIVE])] if whole else factor, "float64")

    def _ordered(self, group: str) -> np.ndarray:
        """The group's rows in the comparison's order, however they came."""
        return frozen(np.concatenate(self._rows[group])[np.argsort(self._places[group])], "float64")
