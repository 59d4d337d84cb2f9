"""Addresses inside a model: which layer, which stream, and how people write them.

A site is `(layer, stream)`. Layers are 0-based block indices; `resid_post[l]` is what leaves block l, *before
any final norm* (Hugging Face calls it `hidden_states[l + 1]`, except that its last entry is after the norm).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trimtab.errors import InputError, Mismatch, UnknownName, Unsupported

#: Every stream, in the order in which a block computes them; the order decides which gate may look at which
#: edit.
STREAMS: tuple[str, ...] = (
    "resid_pre",  # what enters the block
    "q",  # outputs of the projections, [heads * head_dim], before rotation and head norms
    "k",
    "v",
    "head_out",  # concatenated head outputs, the input of o_proj
    "o",  # output of o_proj
    "attn_out",  # what the attention branch adds to the residual stream (after a post-norm, if any)
    "gate",
    "up",
    "mlp_act",  # the input of down_proj
    "down",
    "mlp_out",  # what the MLP branch adds to the residual stream (after a post-norm, where there is one)
    "resid_post",
)

#: Streams that are the output of one linear map.
PROJECTIONS: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")

LayerSpec = int | str | Sequence[int | str]


@functools.total_ordering
@dataclass(frozen=True)
class Site:
    """One place in a model. Sites sort in the order in which a forward pass reaches them."""

    layer: int
    stream: str = "resid_post"

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise UnknownName.of("stream", self.stream, STREAMS)
        if isinstance(self.layer, bool) or not isinstance(self.layer, int) or self.layer < 0:
            raise InputError(
                f"a site's layer is a resolved block index >= 0, got {self.layer!r}; see resolve_layers"
            )

    @property
    def rank(self) -> tuple[int, int]:
        """Position in the forward pass: block, then stream."""
        return (self.layer, STREAMS.index(self.stream))

    def __lt__(self, other: Site) -> bool:
        return self.rank < other.rank

    @property
    def key(self) -> str:
        """Name in files: `layer_3` for the residual after block 3, `layer_3.mlp_out` for any other stream."""
        return f"layer_{self.layer}" if self.stream == "resid_post" else f"layer_{self.layer}.{self.stream}"

    @classmethod
    def from_key(cls, key: str) -> Site:
        """Read a `key` back."""
        match = re.fullmatch(r"layer_(\d+)(?:\.(\w+))?", key)
        if match is None:
            raise InputError(f"{key!r} is not a site; expected 'layer_3' or 'layer_3.mlp_out'")
        return cls(int(match[1]), match[2] or "resid_post")

    def __str__(self) -> str:
        return self.key


#: Of every stream the projections of its own block that write to it and that read from it.
_WRITERS = {
    **{p: (p,) for p in PROJECTIONS},
    "attn_out": ("o",),
    "mlp_out": ("down",),
    "resid_post": ("o", "down"),
}
_READERS = {"head_out": ("o",), "mlp_act": ("down",), "resid_pre": ("q", "k", "v", "gate", "up")}


def writers(site: Site) -> tuple[Site, ...]:
    """Projections, as their output sites, that write to a site: the site itself where it is one; of the residual
    stream those of the block just before it. They need not exist in a model.
    """
    if site.stream == "resid_pre":
        return writers(Site(site.layer - 1)) if site.layer else ()
    return tuple(Site(site.layer, p) for p in _WRITERS.get(site.stream, ()))


def readers(site: Site) -> tuple[Site, ...]:
    """Projections, as their output sites, that read from a site; of the residual stream those of the next block."""
    if site.stream == "resid_post":
        return readers(Site(site.layer + 1, "resid_pre"))
    return tuple(Site(site.layer, p) for p in _READERS.get(site.stream, ()))


@dataclass(frozen=True)
class ModelInfo:
    """What a plan or a file must know of a model: its size, its sites and its name.

    `widths` maps every site that the engine can reach to its width; a site that is absent cannot be steered
    or captured, and `width` says so.
    """

    id: str
    n_layers: int
    hidden_size: int
    widths: Mapping[Site, int] = field(repr=False)
    revision: str | None = None
    architecture: str = ""
    context_length: int | None = None
    vocab_size: int | None = None
    n_heads: int | None = None
    head_dim: int | None = None
    dtype: str = "float32"
    template_hash: str | None = None

    def width(self, site: Site) -> int:
        """Width of `site`, or an error that names what the model does have."""
        if site.layer >= self.n_layers:
            raise InputError(
                f"layer {site.layer} does not exist: {self.id} has {self.n_layers} blocks, "
                f"0 to {self.n_layers - 1}"
            )
        try:
            return self.widths[site]
        except KeyError:
            there = sorted({s.stream for s in self.widths if s.layer == site.layer}, key=STREAMS.index)
            raise Unsupported(
                f"stream {site.stream!r} cannot be reached at layer {site.layer} of {self.id}; "
                f"there: {', '.join(there) or 'none'}"
            ) from None

    def check(self, site: Site, width: int, what: str) -> None:
        """Refuse a vector of `width` that does not fit `site`."""
        expected = self.width(site)
        if width != expected:
            raise Mismatch(
                f"{what} has width {width}, but {site} of {self.id} has width {expected}; "
                "it was made for another model: extract it again from this one"
            )


def resolve_layer(spec: int | str, n_layers: int) -> int:
    """One layer from `3`, `"3"`, `-1` or `"60%"`; percent p of L blocks is min(L - 1, floor(p * L / 100))."""
    text = str(spec).strip()
    if re.fullmatch(r"\d+(\.\d+)?%", text):
        percent = float(text[:-1])
        if percent > 100:
            raise InputError(f"layer {text!r} is more than 100 %")
        return min(n_layers - 1, int(percent * n_layers / 100))
    if not re.fullmatch(r"-?\d+", text):
        raise InputError(f"{spec!r} is not a layer; write 18, -1, 50%, 12-16, 40-60% or all")
    index = int(text)
    resolved = index + n_layers if index < 0 else index
    if not 0 <= resolved < n_layers:
        raise InputError(
            f"layer {index} does not exist: the model has {n_layers} blocks, 0 to {n_layers - 1}"
        )
    return resolved


def resolve_layers(spec: LayerSpec, n_layers: int, auto: int | None = None) -> tuple[int, ...]:
    """Sorted distinct layers from `"12-16,18,-4,50%,40-60%,all,auto"` or a sequence of such parts.

    `auto` is the layer that a file's calibration recommends; without one, `"auto"` is an error that names the
    mend.
    """
    parts = spec.split(",") if isinstance(spec, str) else [spec] if isinstance(spec, int) else list(spec)
    found: set[int] = set()
    for part in (str(p).strip() for p in parts):
        if part == "all":
            found.update(range(n_layers))
        elif part == "auto":
            if auto is None:
                raise InputError(
                    "layers 'auto' needs a calibrated file, and this one is not; run `trimtab sweep`"
                )
            found.add(resolve_layer(auto, n_layers))
        elif match := re.fullmatch(r"(\d+(?:\.\d+)?)(%?)-(\d+(?:\.\d+)?)(%?)", part):
            percent = "%" if match[4] else ""
            first = resolve_layer(match[1] + (match[2] or percent), n_layers)
            last = resolve_layer(match[3] + percent, n_layers)
            if first > last:
                raise InputError(f"layer range {part!r} runs backwards")
            found.update(range(first, last + 1))
        else:
            found.add(resolve_layer(part, n_layers))
    if not found:
        raise InputError("no layers named; write 18, -1, 50%, 12-16, 40-60% or all")
    return tuple(sorted(found))
