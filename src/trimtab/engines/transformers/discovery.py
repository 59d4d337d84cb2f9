"""Find a model's sites by what its modules do, never by what they are called.

One forward pass over a few random tokens records every module call in the blocks. From then on everything is a
measurement: the token mixer is the child in which a change at the first token reaches later ones; `attn_out` and
`mlp_out` are the outputs for which input + attn_out + mlp_out = output of the block (after a post-norm, where there is
one); o_proj and down_proj are the last linear maps whose output is the branch's output. `projections` tells q, k, v,
gate and up apart. A site whose test fails is left out, and plans for it are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from trimtab.engines.transformers import projections
from trimtab.engines.transformers.taps import Anatomy, Call, Tap, first_tensor
from trimtab.errors import Unsupported
from trimtab.sites import Site

PROBE_TOKENS = 5


def discover(model: nn.Module, config: Any, run: Callable[[torch.Tensor], Any]) -> Anatomy:
    """The anatomy of `model`; `run(ids [1, T])` is one forward pass without a cache."""
    ids = probe_ids(config)
    path, blocks = _find_blocks(model, config, lambda: run(ids))
    anatomy = Anatomy(path, blocks, hidden_size=_hidden_size(config))
    with torch.no_grad():
        with recorded([m for m in blocks.modules() if m is not blocks]) as calls:
            run(ids)
        roles: dict[Any, Any] = {}
        for layer, block in enumerate(blocks):
            found = _block_taps(layer, block, calls, config, anatomy.hidden_size, roles)
            anatomy.taps.update({tap.site: tap for tap in found})
    if not any(site.stream == "resid_post" for site in anatomy.taps):
        raise Unsupported(f"{type(model).__name__}: no block passes on states [batch, tokens, hidden]")
    return anatomy


def probe_ids(config: Any, length: int = PROBE_TOKENS) -> torch.Tensor:
    """A few ordinary token ids [1, length]: none that a config names as special (images, padding, ends)."""
    named = {
        v for c in (config, text_config(config)) for k, v in c.to_dict().items() if k.endswith("token_id")
    }
    named = {v for v in named if isinstance(v, int)}
    vocabulary = int(text_config(config).vocab_size)
    ordinary = [i for i in range(min(vocabulary, 4096)) if i not in named]
    stride = max(1, len(ordinary) // (length + 1))
    ids = [ordinary[(i + 1) * stride % len(ordinary)] for i in range(length)]
    return torch.tensor([ids])


def text_config(config: Any) -> Any:
    """The config of the language model inside (itself, where there is no other)."""
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def _hidden_size(config: Any) -> int:
    return int(text_config(config).hidden_size)


@contextmanager
def recorded(modules: list[nn.Module]) -> Iterator[dict[nn.Module, Call]]:
    """Record the last call of each module inside the context."""
    calls: dict[nn.Module, Call] = {}

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls[module] = Call(module, args, kwargs, output, len(calls))

    handles = [m.register_forward_hook(hook, with_kwargs=True) for m in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _find_blocks(model: nn.Module, config: Any, run: Callable[[], Any]) -> tuple[str, nn.ModuleList]:
    """The list of as many modules as the text config has layers, all of which a text passes through."""
    count, width = int(text_config(config).num_hidden_layers), _hidden_size(config)
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count}
    with torch.no_grad(), recorded([b for blocks in lists.values() for b in blocks]) as calls:
        run()
    for name, blocks in sorted(lists.items(), key=lambda item: (item[0].count("."), item[0])):
        seen = [calls.get(b) for b in blocks]
        if all(c is not None and c.states is not None and c.states.shape[-1] == width for c in seen):
            return name, blocks
    raise Unsupported(
        f"{type(model).__name__} has no list of {count} blocks of width {width} that a text passes through; "
        "the transformers engine steers decoder-only language models"
    )


# --- one block -------------------------------------------------------------------------------------------------


def _block_taps(
    layer: int, block: nn.Module, calls: dict[nn.Module, Call], config: Any, width: int, roles: dict[Any, Any]
) -> Iterator[Tap]:
    call = calls[block]
    entry, states = call.find_input(width), call.states
    if entry is None or states is None or states.dim() != 3:
        return
    (key, before) = entry
    first = min((c.index for m in block.modules() if (c := calls.get(m))), default=call.index)

    def tap(stream: str, c: Call, side: str, key: Any, tensor: torch.Tensor, columns: Any = None) -> Tap:
        wide = tensor.shape[-1] if columns is None else len(range(tensor.shape[-1])[columns])
        order = 2 * (first if stream == "resid_pre" else c.index) - (side == "input")
        return Tap(
            Site(layer, stream), c.module, side, key, wide, order, tensor.device, tensor.dtype, columns
        )

    yield tap("resid_pre", call, "input", key, before)
    yield tap("resid_post", call, "output", call.output_key, states)
    mixer, mlp, children = _branches(block, calls, width, roles)
    attn_out, mlp_out = _added(children, mixer, mlp, before, states)
    if attn_out is not None:
        yield tap("attn_out", attn_out, "output", attn_out.output_key, first_tensor(attn_out.output))
    if mlp_out is not None:
        yield tap("mlp_out", mlp_out, "output", mlp_out.output_key, first_tensor(mlp_out.output))
    for stream, c, side, columns in projections.find(mixer, mlp, children, calls, config, roles):
        tensor = c.args[0] if side == "input" else first_tensor(c.output)
        if tensor.dim() == 3:
            yield _with_columns(tap, stream, c, side, tensor, columns)


def _with_columns(
    tap: Callable[..., Tap], stream: str, c: Call, side: str, tensor: torch.Tensor, columns: Any
) -> Tap:
    key = 0 if side == "input" else None
    if not isinstance(columns, torch.Tensor):
        return tap(stream, c, side, key, tensor, columns)
    found = tap(stream, c, side, key, tensor)
    found.columns, found.width = columns.to(tensor.device), len(columns)
    return found


def _branches(
    block: nn.Module, calls: dict[nn.Module, Call], width: int, roles: dict[Any, Any]
) -> tuple[Call | None, Call | None, list[Call]]:
    """(the token mixer, the MLP or mixture of experts, every child call in the order of execution)."""
    names = {m: n for n, m in block.named_children()}
    children = sorted((calls[m] for m in names if m in calls), key=lambda c: c.index)
    children = [c for c in children if c.states is not None and c.states.shape[-1] == width]
    mixer = mlp = None
    for c in children:
        if not any(projections.is_linear(m) for m in c.module.modules()):
            continue
        kind = (type(block), names[c.module], type(c.module))
        if kind not in roles:
            roles[kind] = _mixes_tokens(c, width)
        if roles[kind]:
            mixer = mixer or c
        elif mlp is None or not projections.is_linear(c.module) or projections.is_linear(mlp.module):
            mlp = c  # of bare linear children (fc1, fc2) the last one gives the branch's output
    return mixer, mlp, children


def _mixes_tokens(call: Call, width: int) -> bool:
    """Whether a change at the first token reaches later ones."""
    entry, states = call.find_input(width), call.states
    if entry is None or states is None or states.dim() != 3:
        return False
    key, value = entry
    moved = value.clone()
    noise = torch.randn(value[:, 0].shape, generator=torch.Generator().manual_seed(0))
    moved[:, 0] += noise.to(value) * (4 * value.std() + 1)
    after = first_tensor(call.again(key, moved))
    # Not exact equality: a mixture of experts groups its tokens, and groups of another size round differently.
    return not projections.close(after[:, 1:], states[:, 1:], 8)


def _added(
    children: list[Call], mixer: Call | None, mlp: Call | None, before: torch.Tensor, after: torch.Tensor
) -> tuple[Call | None, Call | None]:
    """The pair of outputs with before + attn_out + mlp_out = after; (None, None) where no pair satisfies it."""
    if mixer is None or mlp is None:
        return None, None
    start, middle = children.index(mixer), children.index(mlp)
    if start > middle:
        first, second = children[middle:start], children[start:]
        groups = [(a, m) for m in first for a in second]
    else:
        groups = [(a, m) for a in children[start:middle] for m in children[middle:]]
    best: tuple[float, Call, Call] | None = None
    for a, m in groups:
        error = _residual_error(before, after, first_tensor(a.output), first_tensor(m.output))
        # A later pair must be clearly better: dropout in evaluation repeats the branch's own output.
        if error <= 1.0 and (best is None or error < best[0] / 4 - 0.01):
            best = (error, a, m)
    return (best[1], best[2]) if best else (None, None)


def _residual_error(b: torch.Tensor, after: torch.Tensor, a: torch.Tensor, m: torch.Tensor) -> float:
    """Largest violation of before + a + m = after, in units of what rounding in the model's dtype allows."""
    if a.shape != b.shape or m.shape != b.shape:
        return float("inf")
    device = after.device
    parts = [x.to(device, torch.float64) for x in (b, a, m)]
    error = (sum(parts[1:], parts[0]) - after.double()).abs()
    rounding = torch.finfo(after.dtype).eps * sum(x.abs() for x in (*parts, after.double()))
    return float((error / (4 * rounding + 1e-12)).max())
