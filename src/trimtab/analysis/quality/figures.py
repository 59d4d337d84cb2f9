"""Drawings of the report. Orange is what was measured, grey is chance, blue is the other side or sign; every mark has a
label, a dash or a shape beside its colour."""

from __future__ import annotations

import html
from collections.abc import Sequence

from trimtab.analysis.quality.findings import SiteQuality
from trimtab.analysis.quality.heads import Heads
from trimtab.analysis.quality.heldout import HeldOut
from trimtab.analysis.quality.spectrum import Spectrum
from trimtab.pages.drawing import LEFT, RIGHT, WIDTH, Axis, band, line, short, svg, text

#: Bars of a spectrum and of a head chart that have room.
BARS, HEADS = 10, 16


def layers_chart(rows: Sequence[SiteQuality]) -> str:
    """Held-out AUC with its interval, and split-half cosine (dashed), over the layers of one stream."""
    found = [(r.site.layer, r.held_out) for r in rows if r.held_out is not None]
    layers = [layer for layer, _ in found]
    x = Axis(min(layers), max(layers), LEFT + 10, WIDTH - RIGHT - 10)
    y = Axis(0, 1, 176, 14)
    parts = []
    for tick in (0, 0.5, 1):
        kind = "chance" if tick == 0.5 else "grid"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(text(LEFT - 6, y(tick) + 4, f"{tick:g}", "tick", "end"))
    parts.append(text(WIDTH - RIGHT, y(0.5) + 14, "AUC by chance", "chance-label", "end"))
    parts.append(band(x, y, [(n, h.auc.low, h.auc.high) for n, h in found], "band"))
    halves = [(x(r.site.layer), y(max(0.0, r.split_half.cosine))) for r in rows if r.split_half is not None]
    if len(halves) > 1:
        parts.append(line(halves, "half"))
    parts += [f'<rect class="half-dot" x="{a - 2.5}" y="{b - 2.5}" width="5" height="5"/>' for a, b in halves]
    parts.append(line([(x(n), y(h.auc.value)) for n, h in found], "curve"))
    for n, h in found:
        tip = f"layer {n}: AUC {h.auc.value:.2f} [{h.auc.low:.2f}, {h.auc.high:.2f}]"
        parts.append(
            f'<circle class="dot" cx="{x(n)}" cy="{y(h.auc.value)}" r="4"><title>{tip}</title></circle>'
        )
    step = max(1, len(layers) // 8)
    parts += [text(x(n), 194, str(n), "tick") for n in layers[::step]]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, 210, "layer", "tick"))
    best = max(found, key=lambda f: f[1].auc.value)
    return svg(214, f"held-out AUC over layers; highest {short(best[1].auc.value)} at layer {best[0]}", parts)


def spectrum_chart(s: Spectrum) -> str:
    """Shares of the largest eigenvalues as bars, and what the first is by chance as a dashed line."""
    total = s.eigenvalues[0] / s.shape.first_pc_ratio if s.shape.first_pc_ratio else 1.0
    shares = [v / total for v in s.eigenvalues[:BARS]]
    chance = s.chance["first_pc_ratio"]
    top = max(0.1, shares[0], chance.high) * 1.1
    y = Axis(0, top, 136, 16)
    width, at = (WIDTH - LEFT - RIGHT) / BARS, y(chance.mean)
    parts = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="136" y2="136"/>']
    for i, share in enumerate(shares):
        left = LEFT + i * width + 4
        kind = "fill-warm" if i < s.shape.k_signal_at_90pct else "fill-null"
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{y(share)}" width="{width - 8:.1f}" height="{136 - y(share):.1f}">'
            f"<title>component {i + 1}: {share:.1%}</title></rect>"
        )
        if share >= 0.005:
            parts.append(text(left + (width - 8) / 2, y(share) - 4, short(share), "bar-label"))
        parts.append(text(left + (width - 8) / 2, 151, str(i + 1), "tick"))
    parts.insert(1, f'<line class="chance" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
    parts.append(
        text(WIDTH - RIGHT, at - 5, f"first component by chance {short(chance.mean)}", "chance-label", "end")
    )
    return svg(158, f"shares of variance; the first holds {short(s.shape.first_pc_ratio)}", parts)


def heldout_chart(h: HeldOut) -> str:
    """Held-out projections of both sides as boxes: 5, 25, 50, 75 and 95 %."""
    low, high = min(h.positive[0], h.negative[0]), max(h.positive[-1], h.negative[-1])
    room = 0.05 * (high - low) or 1.0
    x = Axis(low - room, high + room, LEFT + 44, WIDTH - RIGHT)
    parts = []
    for at, (name, q, kind) in zip(
        (24, 60), (("positive", h.positive, "warm"), ("negative", h.negative, "cool"))
    ):
        parts.append(text(LEFT + 36, at + 4, name, "tick", "end"))
        parts.append(f'<line class="whisker {kind}" x1="{x(q[0])}" x2="{x(q[4])}" y1="{at}" y2="{at}"/>')
        parts.append(
            f'<rect class="fill-{kind}" x="{x(q[1])}" y="{at - 9}" width="{max(1.0, x(q[3]) - x(q[1])):.1f}" '
            f'height="18">'
            f"<title>{name}: median {q[2]:+.2f}, middle half {q[1]:+.2f} to {q[3]:+.2f}</title></rect>"
        )
        parts.append(f'<line class="median" x1="{x(q[2])}" x2="{x(q[2])}" y1="{at - 9}" y2="{at + 9}"/>')
    parts.append(
        text((LEFT + 44 + WIDTH - RIGHT) / 2, 92, "held-out projection, in standard deviations", "tick")
    )
    return svg(98, f"held-out projections; AUC {short(h.auc.value)}", parts)


def heads_chart(h: Heads) -> str:
    """Share of each head in what its layer's attention writes along the direction (else in the raw norm), largest
    first."""
    values = list(h.share) if h.share is not None else [v / sum(h.raw_norm) for v in h.raw_norm]
    order = sorted(range(len(values)), key=lambda i: -abs(values[i]))[:HEADS]
    top = max(abs(values[i]) for i in order) * 1.15
    down = any(values[i] < 0 for i in order)
    y = Axis(-top if down else 0, top, 136, 12)
    width = (WIDTH - LEFT - RIGHT) / max(8, len(order))
    uniform = 1 / len(values)
    parts = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(0)}" y2="{y(0)}"/>']
    for place, i in enumerate(order):
        v, left = values[i], LEFT + place * width + 3
        a, b = sorted((y(v), y(0)))
        kind = "fill-warm" if v >= 0 else "fill-cool"
        parts.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{a}" width="{width - 6:.1f}" height="{max(0.5, b - a):.1f}">'
            f"<title>head {i}: {v:+.1%}</title></rect>"
        )
        at = a - 4 if v >= 0 else b + 12
        parts.append(text(left + (width - 6) / 2, at, short(v), "bar-label"))
        parts.append(text(left + (width - 6) / 2, 164, str(i), "tick"))
    at = y(uniform)
    parts.insert(1, f'<line class="chance" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
    parts.append(text(WIDTH - RIGHT, at - 5, f"all alike {short(uniform)}", "chance-label", "end"))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, 179, "head", "tick"))
    return svg(184, f"shares of heads; the strongest is head {h.strongest}", parts)


def cosine_table(names: Sequence[str], cosines: Sequence[Sequence[float]]) -> str:
    """Cosines between concepts: tinted orange for +, blue for −, with the number in every cell."""
    head = "".join(f'<th scope="col">{html.escape(n)}</th>' for n in names)
    rows = ""
    for name, values in zip(names, cosines):
        cells = "".join(
            f'<td class="{"w" if v >= 0 else "c"}" style="--a:{min(100, round(abs(v) * 70))}%">{v:+.2f}</td>'.replace(
                ">-", ">−"
            )
            for v in values
        )
        rows += f'<tr><th scope="row">{html.escape(name)}</th>{cells}</tr>'
    return f'<div class="scroll heat"><table><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
