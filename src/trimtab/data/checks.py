"""What can be wrong with a corpus that loads: checks on texts alone, each with its threshold.

None of them needs a model. They find what a direction could pick up instead of its concept: length, a phrase of
the template, the name of the concept, another concept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trimtab.data.contrast import Contrast, key_of, shown
from trimtab.data.words import ngrams, sides, words_of

SEVERITIES = ("error", "warning", "note")
#: Fewer positive texts than this leave a direction to chance.
FEW = 8
#: AUC of the number of words between the classes, as a distance from chance (0.5).
LENGTH_AUC = 0.2
#: Balanced accuracy of "holds this phrase" between the classes.
LEAK = 0.95
#: Cosine between two concepts' weighted word counts.
ALIKE = 0.8
#: Share of a concept's texts that name it.
NAMED = 0.5
LONGEST_PHRASE = 5
#: Texts per side that the search for phrases looks at, spread evenly; shared out when concepts are many.
SAMPLE = 400
ALL_SAMPLES = 20_000


@dataclass(frozen=True)
class Finding:
    """One thing about a corpus: how bad, which check, which concept (None: the whole corpus), in words."""

    severity: str
    check: str
    message: str
    concept: str | None = None


def check_concept(contrast: Contrast, by_design: bool, sample: int = SAMPLE) -> Iterator[Finding]:
    """Findings about one concept. `by_design`: the layout puts the concept's name or an instruction into every
    text (a recipe, a role), so that what separates the classes by a phrase is only noted.
    """
    name = contrast.concept
    positive, negative = sides(contrast)
    if len(set(positive)) < FEW:
        yield Finding(
            "warning", "few", f"{len(set(positive))} distinct positive texts; write at least {FEW}", name
        )
    yield from _repeats(contrast)
    auc = length_auc([len(t.split()) for t in positive], [len(t.split()) for t in negative])
    if abs(auc - 0.5) >= LENGTH_AUC:
        longer = "positive" if auc > 0.5 else "negative"
        yield Finding(
            "warning",
            "length",
            f"the number of words alone tells the classes apart: AUC {max(auc, 1 - auc):.2f} (from "
            f"{0.5 + LENGTH_AUC:.2f}), {longer} texts are longer; match their lengths",
            name,
        )
    if (leak := phrase_leak(_spread(positive, sample), _spread(negative, sample))) is not None:
        phrase, on, here, there = leak
        yield Finding(
            "note" if by_design else "warning",
            "leak",
            f"the phrase {phrase!r} alone tells the classes apart: in {here:.0%} of the {on} texts and {there:.0%} "
            "of the others" + (", as this layout means it to" if by_design else "; vary the wording"),
            name,
        )
    yield from _named(name, positive, by_design)


def length_auc(positive: Sequence[int], negative: Sequence[int]) -> float:
    """Chance that a positive is longer than a negative, ties counted half."""
    ordered = np.sort(np.asarray(negative))
    below = np.searchsorted(ordered, positive, side="left")
    upto = np.searchsorted(ordered, positive, side="right")
    return float((below + upto).mean() / 2 / len(ordered))


def phrase_leak(positive: Sequence[str], negative: Sequence[str]) -> tuple[str, str, float, float] | None:
    """(phrase, side that holds it, share there, share on the other side): the phrase of up to five words that
    separates the classes best, the longest of equals; None below `LEAK` or with fewer than four texts a side.
    """
    if min(len(positive), len(negative)) < 4:
        return None
    counts = [
        Counter(g for text in texts for g in set(ngrams(text, LONGEST_PHRASE)))
        for texts in (positive, negative)
    ]
    shares = {
        g: (counts[0][g] / len(positive), counts[1][g] / len(negative))
        for g in counts[0].keys() | counts[1].keys()
    }
    best = max(shares, key=lambda g: (abs(shares[g][0] - shares[g][1]), len(g), g), default=None)
    if best is None:
        return None
    here, there = shares[best]
    if (1 + abs(here - there)) / 2 < LEAK:
        return None
    side = "positive" if here > there else "negative"
    return " ".join(best), side, max(here, there), min(here, there)


def alike(contrasts: Sequence[Contrast]) -> Iterator[tuple[str, str, float]]:
    """Pairs of concepts whose words are alike, and their cosine.

    A concept is the TF-IDF of its positives less that of its negatives, so that what a recipe or a scenario puts
    into every text cancels. A concept is one document for the IDF.
    """
    counted = [[Counter(w for t in texts for w in words_of(t)) for texts in sides(c)] for c in contrasts]
    found_in = Counter(w for both in counted for w in both[0])
    idf = {w: math.log((1 + len(contrasts)) / (1 + n)) + 1 for w, n in found_in.items()}
    rows = [_weighted(both, idf) for both in counted]
    norms = [math.sqrt(sum(v * v for v in row.values())) for row in rows]
    for i, one in enumerate(rows):
        for j in range(i + 1, len(rows)):
            cosine = sum(v * rows[j].get(w, 0.0) for w, v in one.items()) / max(norms[i] * norms[j], 1e-12)
            if cosine >= ALIKE:
                yield contrasts[i].concept, contrasts[j].concept, cosine


def samples_for(concepts: int) -> int:
    """How many texts per side each concept's search for phrases may look at."""
    return max(50, min(SAMPLE, ALL_SAMPLES // max(concepts, 1)))


def _weighted(both: Sequence[Counter[str]], idf: dict[str, float]) -> dict[str, float]:
    totals = [max(sum(c.values()), 1) for c in both]
    return {
        w: (both[0][w] / totals[0] - both[1][w] / totals[1]) * idf.get(w, 1.0)
        for w in both[0].keys() | both[1].keys()
    }


def _repeats(contrast: Contrast) -> Iterator[Finding]:
    name = contrast.concept
    if contrast.paired:
        rows = [(key_of(p), key_of(n)) for p, n in zip(contrast.positive, contrast.negative)]
        repeated, what = len(rows) - len(set(rows)), "pairs"
    else:
        rows = [(key_of(i),) for i in (*contrast.positive, *contrast.negative)]
        repeated, what = len(rows) - len(set(rows)), "texts"
    if repeated:
        yield Finding("warning", "repeated", f"{repeated} repeated {what}; each counts twice", name)
    folded = {" ".join(words_of(t)) for t in sides(contrast)[0]} - {""}
    near = [i for i, t in zip(contrast.negative, sides(contrast)[1]) if " ".join(words_of(t)) in folded]
    if near:
        yield Finding(
            "warning",
            "both sides",
            f"{len(near)} texts differ across the classes only in case or punctuation, e.g. {shown(near[0])}",
            name,
        )


def _named(name: str, positive: Sequence[str], by_design: bool) -> Iterator[Finding]:
    label = words_of(name.replace("_", " ").replace("-", " "))
    if not label:
        return
    phrase = tuple(label)
    share = sum(phrase in set(ngrams(t, len(phrase))) for t in positive) / len(positive)
    if share > 0:
        severity = "warning" if share >= NAMED and not by_design else "note"
        yield Finding(severity, "label", f"{share:.0%} of its texts name the concept", name)


def _spread(texts: Sequence[str], most: int) -> list[str]:
    """At most so many texts, evenly spread."""
    step = max(1, math.ceil(len(texts) / most))
    return list(texts[::step])
