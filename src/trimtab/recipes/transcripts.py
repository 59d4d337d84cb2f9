"""Read texts that exist: what a readout says of every token, and the spans where it says most.

Two states can stand for a token. `emit`: the state that emitted it, one position before (what a server reads while
it writes; z-scores are calibrated there). `own`: the state at the token itself, which has seen it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from trimtab.engines.base import Engine, Progress
from trimtab.engines.requests import Message
from trimtab.errors import InputError, UnknownName
from trimtab.prompts import Prompt
from trimtab.readouts import Readout
from trimtab.recipes.neutral import rounds
from trimtab.sites import Site

ALIGNMENTS = ("emit", "own")
#: Tokens of context behind which a token is decoded, so that blanks and split characters come out right.
CONTEXT = 6


@dataclass(frozen=True, eq=False)
class TokenReadings:
    """One text read: `values` [T, L, C] of its `tokens` [T], for `sites` (L) and `concepts` (C), as z-scores or in
    the sites' own units.

    NaN where no state stands for a token (`emit` has none for the first). `counted` [T] marks the tokens to judge
    by: not special, not template markup, not read from the first state of all, which is an attention sink.
    `pieces`, joined, are the text; `roles` names the speaker of each token in a chat.
    """

    name: str
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    roles: tuple[str | None, ...]
    values: np.ndarray
    counted: np.ndarray
    sites: tuple[Site, ...]
    concepts: tuple[str, ...]
    align: str
    z: bool

    def __len__(self) -> int:
        return len(self.tokens)

    def of(self, concept: str, site: Site | None = None) -> np.ndarray:
        """Values [T] of one concept at one site (the only one by default)."""
        if concept not in self.concepts:
            raise UnknownName.of("concept", concept, self.concepts)
        if site is None and len(self.sites) > 1:
            raise InputError(f"these readings cover {', '.join(map(str, self.sites))}; name one")
        if site is not None and site not in self.sites:
            raise UnknownName.of("site of these readings", site, self.sites)
        layer = 0 if site is None else self.sites.index(site)
        return self.values[:, layer, self.concepts.index(concept)]


def read_texts(
    engine: Engine,
    readout: Readout,
    texts: Sequence[str | Sequence[Message] | Prompt],
    *,
    align: str = "emit",
    names: Sequence[str] | None = None,
    window: int | None = None,
    progress: Progress | None = None,
) -> list[TokenReadings]:
    """Read every token of texts (taken bare), chats (in the model's template) or prompts.

    A text longer than the context is refused by its name, unless `window` (tokens) allows that it is read in
    overlapping windows: every token then has at least half a window of what stands before it, or all there is.
    `progress(done, total)` counts tokens.
    """
    if align not in ALIGNMENTS:
        raise UnknownName.of("alignment", align, ALIGNMENTS)
    readout.check_model(engine.info)
    named = names or [f"text {i + 1}" for i in range(len(texts))]
    prompts = [encode(engine, t, n) for t, n in zip(texts, named, strict=True)]
    views = [v for i, p in enumerate(prompts) for v in _views(engine, p, i, named[i], window)]
    coordinates = [np.full((len(p), len(readout.sites), len(readout.concepts)), np.nan) for p in prompts]
    order, done = sorted(views, key=len), 0
    for batch in rounds(order, sum(r.shape[1] for r in readout.rows.values())):
        captures = engine.capture([v.prompt for v in batch], readout.sites, at=readout.at)
        for view, capture in zip(batch, captures, strict=True):
            kept = [readout.apply(s, capture[s][view.skip :]) for s in readout.sites]
            start = view.start
            coordinates[view.text][start : start + len(kept[0])] = np.stack(kept, axis=1)
        done += sum(map(len, batch))
        if progress is not None:
            progress(done, sum(map(len, views)))
    found = zip(named, prompts, coordinates, strict=True)
    return [_aligned(engine, readout, n, p, c, align) for n, p, c in found]


def encode(engine: Engine, text: str | Sequence[Message] | Prompt, name: str) -> Prompt:
    """A text as it stands: bare, or a chat in the model's template without an invitation to go on."""
    if isinstance(text, (str, Prompt)):
        return engine.encode(text, bare=True)
    if engine.info.template_hash is None:
        raise InputError(
            f"{name} is a chat, and {engine.info.id} has no chat template: give bare text instead"
        )
    try:
        return engine.encode(text, generation_prompt=False)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def pieces_of(engine: Engine, tokens: Sequence[int], special: bool = True) -> list[str]:
    """The text that each token adds; joined, they are the decoded text. Of a character that several tokens make up,
    the last one carries it."""
    found: list[str] = []
    start = shown = 0
    for i in range(1, len(tokens) + 1):
        now = engine.decode(tokens[start:i], special=special)
        if now.endswith("\ufffd") and i < len(tokens):
            found.append("")
            continue
        before = engine.decode(tokens[start:shown], special=special)
        # A token may change the blank before it; what cannot be split is shown with the later token.
        found.append(now[len(before) :] if now.startswith(before) else "")
        if now.startswith(before):
            shown, start = i, max(0, i - CONTEXT)
    return found


# --- windows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """A stretch of text `text` as the model sees it; its states from `skip` on are those of position `start` on."""

    text: int
    prompt: Prompt
    start: int = 0
    skip: int = 0

    def __len__(self) -> int:
        return len(self.prompt)


def _views(engine: Engine, prompt: Prompt, text: int, name: str, window: int | None) -> list[_View]:
    limit = engine.info.context_length
    if window is not None and (window < 8 or (limit is not None and window > limit)):
        raise InputError(f"a window has 8 tokens or more and at most the context ({limit}), got {window}")
    longest = window or limit
    if longest is None or len(prompt) <= longest:
        return [_View(text, prompt)]
    if window is None:
        raise InputError(
            f"{name} has {len(prompt)} tokens, but the context of {engine.info.id} is {limit}: split it, or read "
            f"it in overlapping windows with --window {limit}"
        )
    # The special tokens in front open every window: a model reads badly without them.
    lead = next((i for i in range(len(prompt)) if i not in prompt.special), 0) if prompt.spans is None else 0
    size = window - lead
    if size < 2:
        raise InputError(f"a window of {window} tokens leaves no room beside {lead} special tokens in front")
    found, reached = [_View(text, replace(prompt, tokens=prompt.tokens[:window], spans=None))], window
    while reached < len(prompt):
        end = min(len(prompt), reached + size // 2)
        tokens = (*prompt.tokens[:lead], *prompt.tokens[end - size : end])
        skip = len(tokens) - (end - reached)
        found.append(_View(text, Prompt(tokens), reached, skip))
        reached = end
    return found


def _aligned(
    engine: Engine, readout: Readout, name: str, prompt: Prompt, coordinates: np.ndarray, align: str
) -> TokenReadings:
    values = coordinates.astype(np.float32)
    first = 1  # position 0 is the sink; its state says nothing about the text
    if align == "emit":
        values = np.concatenate([np.full_like(values[:1], np.nan), values[:-1]])
        first = 2
    counted = np.array([i >= first and i not in prompt.special for i in range(len(prompt))])
    return TokenReadings(
        name,
        prompt.tokens,
        tuple(pieces_of(engine, prompt.tokens)),
        prompt.roles(),
        values,
        counted,
        readout.sites,
        readout.concepts,
        align,
        readout.z,
    )
