"""What to do with a concept, in words. The rules, in this order; the first that holds is the verdict:

1. **rewrite the data**: fewer than `MIN_GROUPS` groups; or the held-out AUC at the best site is under `MIN_AUC`, or its
   lower bound, corrected for having picked that site, is not above .5; or two halves of the data agree no better than
   halves with random labels do.
2. **suspect template**: one word or the length alone tells the sides apart, or the direction lies along a top principal
   component of neutral text (|cos| from `TEMPLATE_COSINE` on, and above three times chance).
3. **merge with X**: the other concepts explain more than `redundancy.REDUNDANT` of it, or one other's |cos| is above
   `SAME`; X is the nearest.
4. **use**.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.analysis.quality.findings import SiteQuality, Verdict
from trimtab.analysis.quality.heads import TOP
from trimtab.analysis.quality.shortcuts import Shortcuts

USE, REWRITE, TEMPLATE, MERGE, UNJUDGED = (
    "use",
    "rewrite the data",
    "suspect template",
    "merge with {}",
    "not judged",
)
MIN_GROUPS = 6
MIN_AUC = 0.7
TEMPLATE_COSINE = 0.6
SAME = 0.9
#: An example that turns the vector so many times as far as the median one is named.
OUTLIER = 10


def triage(rows: Sequence[SiteQuality], shortcuts: Shortcuts | None, baseline: str | None = None) -> Verdict:
    """The verdict on one concept from its rows at all sites. `baseline` names a method that looks at nothing."""
    row = best(rows)
    concept = rows[0].concept
    if baseline is not None:
        why = f"{baseline} is a baseline that does not look at the texts: compare others with it"
        return Verdict(concept, UNJUDGED, None if row is None else row.site, (why,))
    if row is None:
        why = next((r.missing["held_out"] for r in rows if "held_out" in r.missing), "nothing was held out")
        return Verdict(concept, UNJUDGED, None, (f"no held-out AUC: {why}",), _places(rows[-1]))
    for words, reasons in ((REWRITE, _weak(row)), (TEMPLATE, _template(row, shortcuts))):
        if reasons:  # where a bad vector comes from is no advice
            return Verdict(concept, words, row.site, tuple(reasons), _outlier(row))
    advice = (*_anyone(row), *_places(row), *_outlier(row))
    if reasons := _same(row):
        return Verdict(concept, _merge(row), row.site, tuple(reasons), advice)
    return Verdict(concept, USE, row.site, (_strength(row),), advice)


def best(rows: Sequence[SiteQuality]) -> SiteQuality | None:
    """The site with the highest held-out AUC; of equals, the one whose halves agree most."""
    judged = [r for r in rows if r.held_out is not None]

    def rank(r: SiteQuality) -> tuple[float, float]:
        return (r.auc or 0.0, r.split_half.cosine if r.split_half else -1.0)

    return max(judged, key=rank) if judged else None


def _strength(row: SiteQuality) -> str:
    assert row.held_out is not None
    area = row.held_out.auc
    how = "" if row.held_out.refitted else ", of the finished vector"
    return f"held-out AUC {area.value:.2f} [{area.low:.2f}, {area.high:.2f}] over {row.held_out.groups} groups{how}"


def _weak(row: SiteQuality) -> list[str]:
    held, half = row.held_out, row.split_half
    assert held is not None
    found = []
    if held.groups < MIN_GROUPS:
        found.append(f"only {held.groups} groups of texts; at least {MIN_GROUPS} are needed to judge")
    if held.auc.value < MIN_AUC:
        found.append(f"{_strength(row)}, under {MIN_AUC:g} at the best site")
    elif held.low_over_sites <= 0.5:
        found.append(f"{_strength(row)}: not distinguishable from chance once the best site has been picked")
    if half is not None and half.cosine <= half.chance_high:
        found.append(
            f"two halves of the data agree by cosine {half.cosine:.2f}; with random labels by up to "
            f"{half.chance_high:.2f}"
        )
    return found


def _template(row: SiteQuality, shortcuts: Shortcuts | None) -> list[str]:
    found = [] if shortcuts is None else list(shortcuts.found)
    if row.background is not None:
        cosine = max(row.background.cosines)
        if cosine >= TEMPLATE_COSINE and cosine > 3 * row.background.chance:
            which = row.background.cosines.index(cosine) + 1
            found.append(f"|cos| {cosine:.2f} with principal component {which} of neutral text")
    return found


def _merge(row: SiteQuality) -> str:
    return MERGE.format("another" if row.redundancy is None else row.redundancy.nearest)


def _same(row: SiteQuality) -> list[str]:
    r = row.redundancy
    if r is None or r.meaningless:
        return []
    found = []
    if r.redundant:
        by = ", ".join(f"{b:+.2f} {name}" for name, b in r.contributors[:3])
        found.append(f"the other concepts explain {r.r2:.0%} of it ({by}; chance {r.chance:.0%})")
    if abs(r.nearest_cosine) > SAME:
        found.append(f"cosine {r.nearest_cosine:+.2f} with {r.nearest}")
    return found


def _anyone(row: SiteQuality) -> tuple[str, ...]:
    """Where most directions would do, the AUC is no praise."""
    held = row.held_out
    if held is None or held.random_high < held.auc.low:
        return ()
    return (
        f"directions drawn at random reach AUC {held.random:.2f} on average here, and {held.random_high:.2f} one time "
        "in twenty: these states fill few dimensions",
    )


def _places(row: SiteQuality) -> tuple[str, ...]:
    """A head or a neuron that says the same more sparingly."""
    found = []
    if row.heads is not None and row.heads.concentrated:
        h, count = row.heads, len(row.heads.raw_norm)
        how = (
            f"the top {TOP} of {count} hold {h.concentration:.0%} of the difference, {h.uniform:.0%} if all were alike"
            if count > 2 * TOP
            else f"it writes {h.top_share:.0%}, {1 / count:.0%} if all were alike"
        )
        found.append(f"steer head {h.strongest} of layer {h.layer} ({how})")
    if row.neuron is not None and row.neuron.single:
        n = row.neuron
        found.append(
            f"neuron {n.index} of layer {row.site.layer} writes nearly this direction (cos {n.cosine:+.2f})"
        )
    for name, n in () if row.read_by is None else (("gate", row.read_by.gate), ("up", row.read_by.up)):
        if row.read_by is not None and n is not None and n.single:
            found.append(
                f"the {name} of neuron {n.index} of layer {row.read_by.layer} reads nearly this direction "
                f"(cos {n.cosine:+.2f})"
            )
    return tuple(found)


def _outlier(row: SiteQuality) -> tuple[str, ...]:
    """An example that bends the vector by itself."""
    if row.influence is None or not row.influence.examples or not row.influence.typical > 0:
        return ()
    first = row.influence.examples[0]
    times = first.turn / row.influence.typical
    return (f"{first.id} turns the vector {times:.0f} times as far as is typical",) if times > OUTLIER else ()
