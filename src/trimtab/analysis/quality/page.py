"""The report as one self-contained HTML file: verdicts first, then what they rest on, then every number."""

from __future__ import annotations

import html
from importlib.resources import files

from trimtab.analysis.quality import figures, heads, neurons, redundancy, triage
from trimtab.analysis.quality.findings import QualityReport, SiteQuality, Verdict
from trimtab.analysis.quality.influence import Influence
from trimtab.analysis.quality.table import cells, mark, missing
from trimtab.pages.document import document, table
from trimtab.pages.drawing import short


def page(report: QualityReport) -> str:
    """The whole document."""
    style = files("trimtab.analysis.quality").joinpath("quality.css").read_text(encoding="utf-8")
    parts = (_top(report), "<main>", _verdicts(report), _concepts(report), _together(report), _influence(report),
             _numbers(report), _missing(report), _method(), "</main>", _footer(report))  # fmt: skip
    return document(f"trimtab quality report: {', '.join(report.concepts)}", "\n".join(parts), style)


def _top(report: QualityReport) -> str:
    good = sum(v.words == triage.USE for v in report.verdicts)
    sites = len(report.rows) // len(report.concepts)
    count = len(report.concepts)
    many = "" if count == 1 else "s"
    verdict = f"{good} of {count} vector{many} can be used as {'it is' if count == 1 else 'they are'}"
    return f"""<header class="top">
<p class="eyebrow">trimtab quality report · model “{html.escape(report.model or "unknown")}” · method
{html.escape(report.method or "unknown")} · {count} concept{many} at {sites} {"site" if sites == 1 else "sites"} ·
seed {report.seed}</p>
<h1>Can these vectors be trusted?</h1>
<p class="lede">{verdict}. Each verdict rests on texts that the fit has not seen, and every figure stands beside what
chance alone would give.</p></header>"""


# --- verdicts ------------------------------------------------------------------------------------------


def _verdicts(report: QualityReport) -> str:
    cards = "".join(_card(v) for v in report.verdicts)
    head = (
        "concept",
        "held-out AUC",
        "pair accuracy",
        "split halves",
        "first PC",
        "dimensions",
        "R² on others",
        "÷ typical",
    )
    rows = [("", (html.escape(v.concept), *cells(report.judged(v.concept)))) for v in report.verdicts]
    caption = (
        "At the site of each verdict. AUC with its 95 % interval over groups; in round brackets what random labels "
        "give (for R², as many random directions)."
    )
    return f"""<section aria-labelledby="h-verdicts"><h2 id="h-verdicts">1 · Verdicts</h2>
<div class="verdicts">{cards}</div><p></p>{table(head, rows, caption)}</section>"""


def _card(verdict: Verdict) -> str:
    kind = {triage.USE: "use", triage.UNJUDGED: ""}.get(verdict.words, "mend")
    at = "" if verdict.site is None else f'<div class="soft small">judged at {verdict.site.key}</div>'
    reasons = "".join(f"<li>{html.escape(r)}</li>" for r in verdict.reasons)
    reasons += "".join(f'<li class="also">also: {html.escape(a)}</li>' for a in verdict.advice)
    return (
        f'<article class="verdict {kind}"><h3>{html.escape(verdict.concept)}</h3><span class="badge">'
        f"{mark(verdict)} {html.escape(verdict.words)}</span>{at}<ul>{reasons}</ul></article>"
    )


# --- one concept ---------------------------------------------------------------------------------------


def _concepts(report: QualityReport) -> str:
    parts = "".join(_concept(report, v) for v in report.verdicts)
    return f"""<section aria-labelledby="h-concepts"><h2 id="h-concepts">2 · What the verdicts rest on</h2>
<p>Over layers: held-out AUC with its interval (solid, circles) and the cosine between vectors of two halves of the data
(dashed, squares). The other pictures are at the site of the verdict: held-out projections of both sides, how the
variance of the differences is spread, and which attention heads write the direction.</p>{parts}</section>"""


def _concept(report: QualityReport, verdict: Verdict) -> str:
    row = report.judged(verdict.concept)
    stream = [r for r in report.of(verdict.concept) if r.site.stream == row.site.stream]
    drawn = []
    if len({r.site.layer for r in stream if r.held_out is not None}) > 1:
        drawn.append(_figure("over layers", f"{row.site.stream}", figures.layers_chart(stream)))
    if row.spectrum is not None:
        s = row.spectrum
        words = (
            f"{s.of}, uncentred, n = {s.n}, at most {s.limit} dimensions; 90 % in the first "
            f"{s.shape.k_signal_at_90pct} (filled), by chance {s.chance['k_signal_at_90pct'].mean:.1f}; p {short(s.p)}"
        )
        drawn.append(_figure("spectrum", words, figures.spectrum_chart(s)))
    if row.held_out is not None:
        h = row.held_out
        how = (
            f"{h.folds} folds of {h.groups} groups, refitted in each"
            if h.refitted
            else "read with the finished vector"
        )
        how += f"; AUC {h.auc.value:.2f}, random directions {h.random:.2f} on average, 95 % under {h.random_high:.2f}"
        drawn.append(_figure("held-out texts", how, figures.heldout_chart(h)))
    if row.heads is not None:
        k = row.heads
        what = (
            "share of what attention writes along the direction"
            if k.share is not None
            else "share of the raw norm"
        )
        top = f"; the top ten hold {short(k.concentration)}, {short(k.uniform)} if all were alike"
        words = what + (top if k.uniform < 1 else "")
        drawn.append(_figure(f"heads of layer {k.layer}", words, figures.heads_chart(k)))
    if not drawn:
        words = "No texts were given, so there is nothing to draw."
        return f'<h3>{html.escape(verdict.concept)}</h3><p class="soft">{words}</p>'
    return f'<h3>{html.escape(verdict.concept)}</h3><div class="quartet">{"".join(drawn)}</div>'


def _figure(title: str, words: str, drawing: str) -> str:
    caption = f'<b>{html.escape(title)}</b><br><span class="soft">{html.escape(words)}</span>'
    return f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>"


# --- concepts among themselves ---------------------------------------------------------------------------


def _together(report: QualityReport) -> str:
    if len(report.concepts) < 2 or report.rows[0].redundancy is None:
        return ""
    site = report.judged(report.concepts[0]).site
    rows = [report.at(c, site) for c in report.concepts]
    body = []
    for r in rows:
        assert r.redundancy is not None
        by = ", ".join(
            f"{b:+.2f} {html.escape(n)}".replace("-", "−", 1) for n, b in r.redundancy.contributors
        )
        note = "meaningless: more concepts than dimensions" if r.redundancy.meaningless else ""
        note = note or ("redundant" if r.redundancy.redundant else "")
        cluster = (
            ", ".join(map(html.escape, r.redundancy.cluster)) if len(r.redundancy.cluster) > 1 else "alone"
        )
        body.append(
            (
                "",
                (
                    html.escape(r.concept),
                    short(r.redundancy.r2),
                    short(r.redundancy.chance),
                    by,
                    cluster,
                    note,
                ),
            )
        )
    head = ("concept", "R² on the others", "chance", "largest coefficients", "cluster", "")
    caption = f"At {site.key}. Above {redundancy.REDUNDANT:g} a concept is a mixture of the others."
    map_ = figures.cosine_table(report.concepts, report.cosines[site.key])
    return f"""<section aria-labelledby="h-together"><h2 id="h-together">3 · Concepts among themselves</h2>
<p>Cosines between the vectors at {site.key}.</p>{map_}<p></p>
{table(head, body, caption, "wide")}</section>"""


# --- examples ------------------------------------------------------------------------------------------


def _influence(report: QualityReport) -> str:
    parts = [
        _examples(v.concept, row.influence)
        for v in report.verdicts
        if (row := report.judged(v.concept)).influence is not None
    ]
    if not parts:
        return ""
    return f"""<section aria-labelledby="h-examples"><h2 id="h-examples">4 · Which examples bend the vector</h2>
<p>How far the vector turns when one example is left out, beside the median example; its held-out margin in standard
deviations (negative is on the wrong side); and the held-out AUC of all others. To extract without some of them, give
their ids: <code>trimtab extract … --exclude ID,ID</code>, or a file with one id per line.</p>
{"".join(parts)}</section>"""


def _examples(concept: str, found: Influence | None) -> str:
    assert found is not None
    typical = found.typical
    rows = [
        (
            "",
            (
                f"<code>{html.escape(e.id)}</code>",
                f'<span class="quote">{html.escape(e.text)}</span>',
                f"{e.turn / typical:.1f} ×" if typical > 0 else f"{e.turn:.1e}",
                "–" if e.lead is None else f"{e.lead:+.1f}".replace("-", "−"),
                "–" if e.auc_without is None else f"{e.auc_without:.3f}",
            ),
        )
        for e in found.examples
    ]
    whole = "" if found.auc is None else f"; held-out AUC of all {found.auc:.3f}"
    caption = f"{html.escape(concept)}: {html.escape(found.how)}; the median turn is {typical:.1e}{whole}"
    head = ("id", "text", "turn ÷ median", "held-out margin", "AUC without it")
    made = table(head, rows, caption).replace('<td><span class="quote">', '<td class="quote"><span>')
    made = made.replace('<th scope="col">text<', '<th scope="col" class="quote">text<')
    return f"<p></p>{made}"


# --- every number ----------------------------------------------------------------------------------------


def _numbers(report: QualityReport) -> str:
    head = ("concept, site", "held-out AUC", "pairs", "halves", "first PC", "dim.", "R²", "÷ typical", "neuron |cos|",
            "gate |cos|", "up |cos|", "head conc.", "neutral PCs |cos|")  # fmt: skip
    judged = {(v.concept, v.site) for v in report.verdicts}
    rows = [
        (
            "bestrow" if (r.concept, r.site) in judged else "",
            (f"{html.escape(r.concept)} {r.site.key}", *cells(r), *_model_cells(r)),
        )
        for r in report.rows
    ]
    caption = "Every concept at every site; tinted and bold where the verdict rests. In brackets: chance."
    return f"""<section aria-labelledby="h-numbers"><h2 id="h-numbers">5 · Every number</h2>
<details open><summary>{len(rows)} rows</summary>{table(head, rows, caption, "wide")}</details></section>"""


def _model_cells(row: SiteQuality) -> tuple[str, ...]:
    h, b, read = row.heads, row.background, row.read_by
    near = (row.neuron, None if read is None else read.gate, None if read is None else read.up)
    return (
        *("–" if n is None else f"{abs(n.cosine):.2f} ({n.chance:.2f}) #{n.index}" for n in near),
        "–" if h is None else f"{h.concentration:.2f} ({h.uniform:.2f})",
        "–" if b is None else " ".join(f"{c:.2f}" for c in b.cosines) + f" ({b.chance:.2f})",
    )


def _missing(report: QualityReport) -> str:
    lines = [*report.notes, *(f"Not measured: {line}" for line in missing(report))]
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"""<section aria-labelledby="h-missing"><h2 id="h-missing">6 · Notes, and what is missing</h2>
<ul class="plain">{items}</ul></section>"""


def _method() -> str:
    terms = (
        ("Held-out AUC", "The chance that a positive text outscores a negative one. The method that made the vector is "
         "fitted again without the fold's groups; only texts of one fold are compared; the interval resamples groups."),
        ("Split halves", "Mean cosine between vectors of two random halves of the groups."),
        ("First PC, dimensions", "Share of the largest eigenvalue of the differences, and (Σλ)² ÷ Σλ²: how many equal "
         "dimensions would be as spread. Few rows always look low-dimensional: compare with random labels."),
        ("R² on the others", f"Ridge regression (λ = {redundancy.RIDGE:g}) of the vector on those of the others; above "
         f"{redundancy.REDUNDANT:g} it is redundant."),
        ("Neuron", f"Largest |cos| with what one MLP neuron of the layer writes; above {neurons.ONE_NEURON:g} the "
         "vector is nearly that neuron. Gate and up: the same with what one neuron of the next MLP reads, the norm "
         "before it folded in."),
        ("Head concentration", f"Share of the ten strongest heads in the difference of head outputs. Above "
         f"{heads.CONCENTRATED:g} (with 20 heads or fewer: where one head alone writes as much) steering the head is "
         "suggested."),
        ("The rules", f"Rewrite the data: fewer than {triage.MIN_GROUPS} groups, AUC under {triage.MIN_AUC:g} or not "
         "above chance at the best site, or halves that agree no better than with random labels. Suspect template: a "
         f"word or length alone tells the sides apart, or |cos| from {triage.TEMPLATE_COSINE:g} with a neutral "
         f"principal component. Merge: R² above {redundancy.REDUNDANT:g} or |cos| above {triage.SAME:g} with another. "
         "Else: use."),
    )  # fmt: skip
    items = "".join(f"<dt>{html.escape(t)}</dt><dd>{html.escape(d)}</dd>" for t, d in terms)
    return f"""<section aria-labelledby="h-how"><h2 id="h-how">7 · How it was measured</h2>
<dl class="terms">{items}</dl></section>"""


def _footer(report: QualityReport) -> str:
    return f"<footer>Vectors <code>{report.vectors_hash}</code>. The JSON beside this page holds every number.</footer>"
