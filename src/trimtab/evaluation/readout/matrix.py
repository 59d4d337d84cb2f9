"""Training corpus × unseen corpus × layer: does a direction tell apart what it was not made from?

A direction is fitted on one corpus and read, as it is, on every other; on its own corpus it is fitted on halves and
read on the other half. It is called a readout only where it holds off its own data: on every unseen corpus the lower
bound of its AUC is above one half, and the AUC above what random directions and all controls reach there. The layer is
chosen on the training corpus alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.data.contrast import Contrast
from trimtab.engines.base import Engine
from trimtab.errors import InputError, Unsupported
from trimtab.evaluation.readout.controls import CONTROLS, control_scores
from trimtab.evaluation.scorers.corpus import side_groups, text_of
from trimtab.evaluation.statistics import auc
from trimtab.evidence import STREAMED_NEEDS, Evidence
from trimtab.extraction.method import Method
from trimtab.recipes.reading import read
from trimtab.sites import Site

RESAMPLES, LEVEL = 1000, 0.95
#: Directions drawn at random for comparison.
DRAWS = 100


@dataclass(frozen=True, eq=False)
class Corpus:
    """One contrast as states: `rows[site]` [n + m, width], positives first; texts and groups line up with them."""

    name: str
    rows: Mapping[Site, np.ndarray]
    positives: int
    texts: tuple[str, ...]
    groups: tuple[str, ...]
    paired: bool

    @property
    def sides(self) -> tuple[Sequence[str], Sequence[str]]:
        """Positive and negative texts."""
        return self.texts[: self.positives], self.texts[self.positives :]

    def fit(self, method: Method, site: Site, keep: np.ndarray | None = None) -> np.ndarray:
        """Unit row of the method on the rows that `keep` [n + m] marks (None: all)."""
        rows = self.rows[site].astype(np.float64)
        keep = np.ones(len(rows), bool) if keep is None else keep
        positive, negative = (
            rows[: self.positives][keep[: self.positives]],
            rows[self.positives :][keep[self.positives :]],
        )
        paired = self.paired and len(positive) == len(negative)
        evidence = Evidence.from_rows(site, positive, negative, method.wanted, paired)
        return method.fit(evidence, self.name).unit.astype(np.float64)


@dataclass(frozen=True)
class Entry:
    """One cell: AUC with its interval over groups, the 95 % quantile of random directions and the controls' AUC there;
    `holds` says whether all of them are beaten. On its own corpus (`own`) nothing holds by itself."""

    train: str
    unseen: str
    site: Site
    auc: float
    low: float
    high: float
    random_high: float
    controls: Mapping[str, float]
    groups: int
    own: bool

    @property
    def holds(self) -> bool:
        """Above one half with its lower bound, and above everything that knows nothing of the concept."""
        return self.low > 0.5 and self.auc > max(self.random_high, *self.controls.values())


@dataclass(frozen=True)
class Verdict:
    """A training corpus's layer (best on its own halves) and whether it is a readout on all unseen corpora."""

    train: str
    site: Site
    readout: bool
    fails_on: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Matrix:
    """All entries, and a verdict per training corpus."""

    entries: tuple[Entry, ...]
    verdicts: tuple[Verdict, ...]


def states(
    engine: Engine, named: Mapping[str, Contrast], sites: Sequence[Site], pooling: str | None = None
) -> list[Corpus]:
    """Every corpus read at every site, each text once."""
    found = []
    for name, contrast in named.items():
        reading = read(engine, contrast, pooling)
        rows = engine.pool([*reading.positive, *reading.negative], sites, reading.pooling)
        items = [*contrast.positive, *contrast.negative]
        groups = [*side_groups(contrast, True), *side_groups(contrast, False)]
        found.append(
            Corpus(
                name, rows, len(contrast.positive), tuple(map(text_of, items)), tuple(groups), contrast.paired
            )
        )
    return found


def matrix(corpora: Sequence[Corpus], method: Method, seed: int = 0) -> Matrix:
    """Every corpus as training corpus, against every corpus, at every site."""
    if len(corpora) < 2:
        raise InputError("a readout is judged on corpora that it was not made from: give at least two")
    beyond = sorted(method.wanted - STREAMED_NEEDS - {"rows"})
    if beyond:
        raise Unsupported(
            f"{method.name} needs {', '.join(beyond)}, which pooled states do not hold; use mean_diff"
        )
    sites = sorted(corpora[0].rows)
    controls = {(a.name, b.name): _control_aucs(a, b) for a in corpora for b in corpora}
    entries = [
        _entry(a, b, site, method, controls[a.name, b.name], seed)
        for a in corpora
        for b in corpora
        for site in sites
    ]
    return Matrix(tuple(entries), tuple(_verdict(a.name, entries) for a in corpora))


def _verdict(train: str, entries: Sequence[Entry]) -> Verdict:
    own = [e for e in entries if e.train == train and e.own]
    site = max(own, key=lambda e: (e.auc, -e.site.layer)).site
    others = [e for e in entries if e.train == train and not e.own and e.site == site]
    fails = tuple(e.unseen for e in others if not e.holds)
    return Verdict(train, site, not fails, fails)


def _entry(
    train: Corpus, unseen: Corpus, site: Site, method: Method, controls: Mapping[str, float], seed: int
) -> Entry:
    own = train is unseen
    scores = _own_scores(train, method, site, seed) if own else unseen.rows[site] @ train.fit(method, site)
    value, low, high = grouped_auc(scores, unseen.positives, unseen.groups, seed)
    return Entry(
        train.name,
        unseen.name,
        site,
        value,
        low,
        high,
        _random_high(train, unseen, site, seed),
        controls,
        len(set(unseen.groups)),
        own,
    )


def _own_scores(corpus: Corpus, method: Method, site: Site, seed: int) -> np.ndarray:
    """Projections of each half of the groups on the direction of the other half, centred within the half: directions of
    two halves have different zeros."""
    names = list(dict.fromkeys(corpus.groups))
    order = np.random.default_rng(seed).permutation(len(names))
    half = {names[i]: k % 2 for k, i in enumerate(order)}
    side = np.array([half[g] for g in corpus.groups])
    scores = np.zeros(len(side))
    for part in (0, 1):
        here = side == part
        for mask in (here, ~here):
            if not mask[: corpus.positives].any() or not mask[corpus.positives :].any():
                raise InputError(
                    f"{corpus.name!r} has too few groups to be split in halves with both sides in each"
                )
        rows = corpus.rows[site][here].astype(np.float64)
        projected = rows @ corpus.fit(method, site, ~here)
        at = np.flatnonzero(here)
        middle = (projected[at < corpus.positives].mean() + projected[at >= corpus.positives].mean()) / 2
        scores[here] = projected - middle
    return scores


def grouped_auc(
    scores: np.ndarray, positives: int, groups: Sequence[str], seed: int = 0, level: float = LEVEL
) -> tuple[float, float, float]:
    """AUC, and its interval from resampling groups: texts of one group go in and out together."""
    scores = np.asarray(scores, np.float64)
    p, q = scores[:positives][:, None], scores[positives:][None]
    better = (p > q) + 0.5 * (p == q)
    names = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    index = np.array([names[g] for g in groups])
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES
    )
    weights = draws[:, index].astype(np.float64)
    a, b = weights[:, :positives], weights[:, positives:]
    couples = a.sum(1) * b.sum(1)
    kept = couples > 0
    drawn = ((a @ better) * b).sum(1)[kept] / couples[kept]
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return float(better.mean()), float(low), float(high)


def _random_high(train: Corpus, unseen: Corpus, site: Site, seed: int) -> float:
    """What random directions reach on the unseen corpus, each given its sign on the training corpus."""
    rng = np.random.default_rng([seed, *site.rank])
    drawn = rng.standard_normal((train.rows[site].shape[1], DRAWS))
    there = train.rows[site] @ drawn
    sign = np.sign(there[: train.positives].mean(0) - there[train.positives :].mean(0))
    along = (unseen.rows[site] @ drawn) * sign
    reached = [auc(c[: unseen.positives], c[unseen.positives :]) for c in along.T]
    return float(np.quantile(reached, LEVEL))


def _control_aucs(train: Corpus, unseen: Corpus) -> dict[str, float]:
    scores = control_scores(train.sides, unseen.texts)
    return {n: auc(scores[n][: unseen.positives], scores[n][unseen.positives :]) for n in CONTROLS}
