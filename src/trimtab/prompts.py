"""What a model is given: tokens, where each message lies among them, and positions that mean the same
everywhere.

Positions are absolute in the request (index 0 is its first token, generated tokens follow the prompt), so
cached decoding, chunked prefill, preemption and batching cannot disagree about them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import InputError, UnknownName

#: Half-open token range; an open end reaches over everything that is generated.
Range = tuple[int, int | None]
#: "all", "prompt", "generated", "last_prompt", {"after": i}, {"ranges": [[a, b], ...]} or {"role":
#: "assistant"}.
Positions = str | Mapping[str, Any]

POSITION_NAMES = ("all", "prompt", "generated", "last_prompt")


@dataclass(frozen=True)
class Span:
    """Tokens [start, end) that carry one message's content, without the template's markup."""

    role: str
    start: int
    end: int


@dataclass(frozen=True)
class Prompt:
    """An encoded prompt. `spans` is None where messages are unknown (bare text or tokens): roles are then
    refused.

    `special` are the positions of special tokens and template markup; `text` is the rendered prompt, where
    known.
    """

    tokens: tuple[int, ...]
    spans: tuple[Span, ...] | None = None
    special: frozenset[int] = frozenset()
    text: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", tuple(int(t) for t in self.tokens))
        if not self.tokens:
            raise InputError("the prompt is empty: it has no tokens")

    def __len__(self) -> int:
        return len(self.tokens)

    def role_ranges(self, role: str) -> tuple[Range, ...]:
        """Token ranges of every message of `role`."""
        if self.spans is None:
            raise InputError(
                f"positions of role {role!r} need messages: this prompt came as bare text or tokens; "
                "pass messages, "
                "or give explicit ranges"
            )
        ranges = tuple((s.start, s.end) for s in self.spans if s.role == role)
        if not ranges:
            raise UnknownName.of("role in this prompt", role, {s.role for s in self.spans})
        return ranges

    def roles(self) -> tuple[str | None, ...]:
        """The role of each token; None for markup and for prompts without messages."""
        found: list[str | None] = [None] * len(self.tokens)
        for span in self.spans or ():
            found[span.start : span.end] = [span.role] * (span.end - span.start)
        return tuple(found)


def check_positions(positions: Any) -> Positions:
    """Validate the JSON form of positions and return it in canonical shape."""
    if isinstance(positions, str):
        if positions not in POSITION_NAMES:
            raise UnknownName.of(
                "positions", positions, POSITION_NAMES, 'Or {"after": i}, {"ranges": …}, {"role": …}.'
            )
        return positions
    if not isinstance(positions, Mapping) or len(positions) != 1:
        raise InputError(
            'positions are a name or one of {"after": i}, {"ranges": …}, {"role": …}; '
            f"got {positions!r}"
        )
    (key, value), *_ = positions.items()
    if key == "after" and isinstance(value, int) and value >= 0:
        return {"after": value}
    if key == "role" and isinstance(value, str):
        return {"role": value}
    if key == "ranges" and isinstance(value, Sequence) and value:
        return {"ranges": [list(_check_range(r)) for r in value]}
    raise InputError(
        f"positions {positions!r} are malformed; "
        'e.g. {"after": 12}, {"ranges": [[0, 4]]}, {"role": "user"}'
    )


def _check_range(pair: Any) -> Range:
    if isinstance(pair, Sequence) and len(pair) == 2:
        start, end = pair
        if isinstance(start, int) and start >= 0 and (end is None or (isinstance(end, int) and end > start)):
            return (start, end)
    raise InputError(f"{pair!r} is not a token range [start, end) with 0 <= start < end (end may be null)")


def resolve_positions(positions: Positions, prompt: Prompt) -> tuple[Range, ...]:
    """Sorted disjoint absolute ranges of `positions` in a request that begins with `prompt`."""
    length = len(prompt)
    positions = check_positions(positions)
    if isinstance(positions, str):
        named: dict[str, Range] = {
            "all": (0, None),
            "prompt": (0, length),
            "generated": (length, None),
            "last_prompt": (length - 1, length),
        }
        return (named[positions],)
    if "after" in positions:
        return ((positions["after"] + 1, None),)
    if "role" in positions:
        return merge_ranges(prompt.role_ranges(positions["role"]))
    return merge_ranges(tuple((a, b) for a, b in positions["ranges"]))


def merge_ranges(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Sort ranges and join those that touch; an open end swallows what follows."""
    merged: list[Range] = []
    for start, end in sorted(ranges, key=lambda r: r[0]):
        if merged and (merged[-1][1] is None or start <= merged[-1][1]):
            last = merged[-1][1]
            merged[-1] = (merged[-1][0], None if last is None or end is None else max(last, end))
        else:
            merged.append((start, end))
    return tuple(merged)


def in_ranges(position: int, ranges: Sequence[Range]) -> bool:
    """Whether an absolute position lies in any of the ranges."""
    return any(start <= position and (end is None or position < end) for start, end in ranges)
