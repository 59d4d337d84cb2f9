"""What `trimtab watch` shows: the recent mean of every concept over all traffic, at one layer at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trimtab.errors import FormatError, UnknownName

#: Readings over which a bar is a mean, and how far a bar reaches, in standard deviations.
RECENT, REACH = 64, 4.0
#: Cells of a bar, half of them on either side of zero.
CELLS = 40


@dataclass(eq=False)
class Board:
    """Takes the feed's events. Concepts keep the order of their file, whatever they read."""

    layers: list[int]
    concepts: list[str]
    z: bool
    at: int
    """Index of the layer that is shown."""
    rows: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=RECENT))
    total: np.ndarray = field(init=False)
    count: np.ndarray = field(init=False)
    tokens: int = 0
    dropped: int = 0
    under_way: dict[tuple[str, int], int] = field(default_factory=dict)
    finished: list[dict[str, Any]] = field(default_factory=list)
    rules: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=5))
    times: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    def __post_init__(self) -> None:
        self.total = np.zeros((len(self.layers), len(self.concepts)))
        self.count = np.zeros_like(self.total)

    @classmethod
    def of(cls, head: Mapping[str, Any], layer: int | None = None) -> Board:
        """A board for what the feed says of itself."""
        if head.get("event") != "head":
            raise FormatError(f"the feed does not begin with its head, but with {head.get('event')!r}")
        layers = list(head["layers"])
        layer = head["default_layer"] if layer is None else layer
        if layer not in layers:
            raise UnknownName.of("layer of the feed", str(layer), list(map(str, layers)))
        return cls(layers, list(head["concepts"]), bool(head["z"]), layers.index(layer))

    def take(self, event: Mapping[str, Any]) -> None:
        """One event of the feed."""
        kind = event["event"]
        sample = (event.get("request", ""), event.get("index", 0))
        if kind == "token":
            row = np.array([[np.nan if v is None else v for v in line] for line in event["values"]])
            if row.shape != self.total.shape:
                raise FormatError(f"the feed sent readings {row.shape}, after a head for {self.total.shape}")
            read = np.isfinite(row)
            self.total += np.where(read, row, 0)
            self.count += read
            self.rows.append(row)
            self.tokens += 1
            self.times.append(time.monotonic())
            self.under_way[sample] = self.under_way.get(sample, 0) + 1
        elif kind == "end":
            tokens = self.under_way.pop(sample, 0)
            self.finished.append({**event, "tokens": tokens})
        elif kind == "rule":
            self.rules.append(dict(event))
        elif kind == "dropped":
            self.dropped += event["count"]

    def turn(self, steps: int) -> None:
        """Show another layer; at the last one it stops."""
        self.at = min(max(self.at + steps, 0), len(self.layers) - 1)

    def recent(self) -> np.ndarray:
        """Means [L, C] over the last readings; NaN where there are none."""
        if not self.rows:
            return np.full_like(self.total, np.nan)
        table = np.stack(self.rows)
        read = np.isfinite(table)
        with np.errstate(invalid="ignore"):
            return np.where(read, table, 0).sum(0) / np.where(read.any(0), read.sum(0), np.nan)

    def mean(self) -> np.ndarray:
        """Means [L, C] over everything that was seen."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.count > 0, self.total / self.count, np.nan)

    def speed(self) -> float:
        """Tokens a second, over the last ten seconds."""
        now = time.monotonic()
        return sum(now - t < 10 for t in self.times) / 10

    def record(self) -> dict[str, Any]:
        """What was seen, for `--json`."""
        mean, recent = self.mean(), self.recent()

        def named(table: np.ndarray) -> dict[str, dict[str, float]]:
            return {
                str(n): dict(zip(self.concepts, row, strict=True))
                for n, row in zip(self.layers, table.tolist(), strict=True)
            }

        return {
            "unit": "z" if self.z else "raw",
            "layer": self.layers[self.at],
            "concepts": self.concepts,
            "tokens": self.tokens,
            "dropped": self.dropped,
            "mean": named(mean),
            "recent": named(recent),
            "finished": self.finished,
            "rules": list(self.rules),
        }

    def render(self, values: np.ndarray | None = None) -> Any:
        """The bars at the layer that is shown."""
        from rich.table import Table
        from rich.text import Text

        from trimtab.strips.terminal import tint

        shown = (self.recent() if values is None else values)[self.at]
        reach = REACH if self.z else float(np.nanmax(np.abs(shown), initial=1e-9))
        unit = "z" if self.z else "raw"
        table = Table("concept", unit, "", box=None, pad_edge=False)
        table.title = f"layer {self.layers[self.at]} of {', '.join(map(str, self.layers))}"
        table.title_justify = table.caption_justify = "left"
        for concept, value in zip(self.concepts, shown.tolist(), strict=True):
            style = tint(value) if self.z else ""
            said = "–" if np.isnan(value) else f"{value:+.2f}"
            table.add_row(Text(concept), Text(said, style=style), Text(bar(value, reach), style=style))
        lines = [
            f"{self.tokens} tokens, {len(self.under_way)} replies under way, {len(self.finished)} finished"
        ]
        if self.dropped:
            lines.append(f"{self.dropped} events were lost: this terminal is slower than the server")
        lines += [f"rule {r['rule']} at position {r['position']}: {', '.join(r['then'])}" for r in self.rules]
        table.caption = Text("\n".join(lines))
        return table


def bar(value: float, reach: float) -> str:
    """A bar from the middle to the left (below zero) or the right, full at `reach`."""
    half = CELLS // 2
    if np.isnan(value):
        return " " * half + "│" + " " * half
    length = min(half, round(abs(value) / reach * half))
    filled, empty = "█" * length, " " * (half - length)
    return f"{empty}{filled}│{' ' * half}" if value < 0 else f"{' ' * half}│{filled}{empty}"
