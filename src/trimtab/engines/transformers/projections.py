"""Tell the linear maps inside a block apart by replaying its branches with one of them disturbed.

Attention: a disturbance of `v` or `k` at the first token reaches later tokens, and head_out is linear in `v` alone; a
disturbance of `q` stays at its own token and, at the first one, has no effect at all (a softmax over one key is 1).
MLP: down_proj's input changes sign with `up`, and does not with `gate`. Fused maps are tried against the layouts in use
(blocks, thirds, per head, per key-value group, query beside an output gate); a layout counts when each of its parts
passes its own test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from trimtab.engines.transformers.taps import Call, first_tensor

Found = tuple[str, Call, str, Any]


def is_linear(module: nn.Module) -> bool:
    """A leaf with a matrix for a weight (also Conv1D and quantised maps; not an embedding)."""
    weight = getattr(module, "weight", None)
    leaf = next(module.children(), None) is None
    return (
        leaf
        and isinstance(weight, torch.Tensor)
        and weight.dim() == 2
        and not isinstance(module, nn.Embedding)
    )


def find(
    mixer: Call | None,
    mlp: Call | None,
    children: list[Call],
    calls: dict[nn.Module, Call],
    config: Any,
    roles: dict[Any, Any],
) -> Iterator[Found]:
    """(stream, call, side, columns) of every projection that could be proved."""
    if mixer is not None:
        inside = _linears(mixer.module, calls)
        final = _last(inside, mixer)
        if final is not None:
            yield "head_out", final, "input", None
            yield "o", final, "output", None
            before = [c for c in inside if c is not final]
            yield from _cached(mixer, before, final, roles, lambda: _attention(mixer, before, final, config))
    if mlp is None:
        return
    bare = is_linear(mlp.module)
    inside = [c for c in children if is_linear(c.module)] if bare else _linears(mlp.module, calls)
    last = mlp if bare else _last(inside, mlp)
    if last is not None:
        yield "mlp_act", last, "input", None
        yield "down", last, "output", None
        before = [c for c in inside if c is not last]
        yield from _cached(mlp, before, last, roles, lambda: _mlp(None if bare else mlp, before, last))


def _linears(module: nn.Module, calls: dict[nn.Module, Call]) -> list[Call]:
    """Calls of the linear maps inside a module, in the order of execution, on states [B, T, width]."""
    found = [calls[m] for m in module.modules() if is_linear(m) and m in calls]
    found = [c for c in found if c.states is not None and c.args and isinstance(c.args[0], torch.Tensor)]
    return sorted((c for c in found if c.states.dim() == c.args[0].dim() == 3), key=lambda c: c.index)  # type: ignore[union-attr]


def _last(inside: list[Call], branch: Call) -> Call | None:
    """The map whose output is the branch's output; None for a mixture of experts, whose output is a sum."""
    whole = first_tensor(branch.output)
    for c in reversed(inside):
        out = first_tensor(c.output)
        if out.shape == whole.shape and torch.allclose(out, whole, rtol=1e-5, atol=1e-6):
            return c
    return None


def _cached(
    branch: Call, before: list[Call], last: Call, roles: dict[Any, Any], measure: Callable[[], list[Found]]
) -> Iterator[Found]:
    """Measure once per kind of branch; blocks of the same shape share the answer."""
    names = {m: n for n, m in branch.module.named_modules()}
    own = [(names.get(c.module, ""), tuple(first_tensor(c.output).shape)) for c in before]
    kind = (type(branch.module), tuple(own), tuple(last.args[0].shape))
    if kind not in roles:
        position = {id(c): i for i, c in enumerate(before)}
        roles[kind] = [(s, position[id(c)], side, cols) for s, c, side, cols in measure()]
    for stream, index, side, columns in roles[kind]:
        yield stream, before[index], side, columns


# --- disturbing ------------------------------------------------------------------------------------------------


def replay(
    branch: Call, target: Call, columns: Any, change: Callable[[torch.Tensor], torch.Tensor], last: Call
) -> torch.Tensor:
    """Input [B, T, width] of the branch's last map when `columns` of the target's output are changed."""
    seen: list[torch.Tensor] = []

    def disturb(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        out = output.clone()
        part = slice(None) if columns is None else columns
        out[..., part] = change(output[..., part])
        return out

    handles = [
        target.module.register_forward_hook(disturb),
        last.module.register_forward_pre_hook(lambda module, args: seen.append(args[0])),
    ]
    try:
        branch.again()
    finally:
        for handle in handles:
            handle.remove()
    return seen[-1]


def close(a: torch.Tensor, b: torch.Tensor, roundings: float = 8) -> bool:
    """Whether two tensors differ by no more than so many roundings of their largest entry."""
    eps = torch.finfo(a.dtype).eps
    return bool((a - b).abs().max() <= roundings * eps * (b.abs().max() + 1e-6))


# --- attention -------------------------------------------------------------------------------------------------


def _attention(mixer: Call, before: list[Call], last: Call, config: Any) -> list[Found]:
    """q, k and v where all three are real; none for mixers that are not softmax attention."""
    whole = [(role, c, None) for c in before if (role := _role(mixer, c, None, last))]
    found = _one_of_each(whole)
    for layout in [] if found else _layouts(before, config):
        roles = [(role, c, cols) for c, cols in layout if (role := _role(mixer, c, cols, last))]
        if (found := _one_of_each(roles)) is not None:
            break
    if found is None:
        # With attention sinks q shows at the first token too; an output gate would, but is no wider than head_out.
        own = [r for r in whole if r[0] == "own" and first_tensor(r[1].output).shape == last.args[0].shape]
        found = _one_of_each([("q", c, cols) for _, c, cols in own] + [r for r in whole if r[0] != "own"])
    return [(stream, c, "output", cols) for stream, c, cols in found or []]


def _one_of_each(roles: list[tuple[str, Call, Any]]) -> list[tuple[str, Call, Any]] | None:
    """Exactly one each of q, k and v, or nothing."""
    by = {name: [r for r in roles if r[0] == name] for name in ("q", "k", "v")}
    return [found[0] for found in by.values()] if all(len(found) == 1 for found in by.values()) else None


def _role(mixer: Call, target: Call, columns: Any, last: Call) -> str | None:
    plain = last.args[0]
    states = first_tensor(target.output)
    size = float(states.float().std()) + 1e-3
    noise = torch.randn(states.shape, generator=torch.Generator().manual_seed(0)).to(states) * size * 3

    def at(position: int) -> torch.Tensor:
        mask = torch.zeros(1, states.shape[1], 1, device=states.device, dtype=states.dtype)
        mask[:, position] = 1
        part = noise if columns is None else noise[..., columns]
        return replay(mixer, target, columns, lambda x: x + mask * part, last)

    early, late = at(0), at(-1)
    if not torch.equal(early[:, 1:], plain[:, 1:]):
        double = replay(mixer, target, columns, lambda x: x * 2, last)
        return "v" if close(double, plain * 2) else "k"
    if torch.equal(late, plain):
        return None
    return "q" if torch.equal(early, plain) else "own"


def _layouts(before: list[Call], config: Any) -> Iterator[list[tuple[Call, Any]]]:
    """Ways in which fused projections are laid out: lists of (call, columns) for the parts."""
    text = config.get_text_config(decoder=True)
    heads = int(text.num_attention_heads)
    groups = int(getattr(text, "num_key_value_heads", None) or heads)
    for c in before:
        width = first_tensor(c.output).shape[-1]
        others = [(o, None) for o in before if o is not c]
        if width % (heads + 2 * groups) == 0:
            size = width // (heads + 2 * groups)
            q, k = heads * size, groups * size
            yield [(c, slice(0, q)), (c, slice(q, q + k)), (c, slice(q + k, width))]
            grid = torch.arange(width).reshape(groups, heads // groups + 2, size)
            yield [(c, grid[:, :-2].flatten()), (c, grid[:, -2].flatten()), (c, grid[:, -1].flatten())]
        if width % 3 == 0:
            third = width // 3
            yield [(c, slice(i * third, (i + 1) * third)) for i in range(3)]
        if width % (2 * heads) == 0 and others:
            yield [(c, torch.arange(width).reshape(heads, 2, -1)[:, 0].flatten()), *others]
            yield [(c, slice(0, width // 2)), *others]


# --- MLP -------------------------------------------------------------------------------------------------------


def _mlp(branch: Call | None, before: list[Call], last: Call) -> list[Found]:
    """up, and gate where there is one. `branch` is None for linear maps that are the block's own children."""
    width = last.args[0].shape[-1]
    single = [c for c in before if first_tensor(c.output).shape[-1] == width]
    if len(before) == 1 and single:
        return [("up", single[0], "output", None)]
    if branch is None:
        return []
    double = [c for c in before if first_tensor(c.output).shape[-1] == 2 * width]
    if len(before) == 1 and double:
        even = torch.arange(0, 2 * width, 2)
        layouts = [(slice(0, width), slice(width, 2 * width)), (even, even + 1)]
        options = [[(double[0], a), (double[0], b)] for a, b in layouts]
    elif len(single) == 2 and len(before) == 2:
        options = [[(c, None) for c in single]]
    else:
        return []
    for option in options:
        odd = [close(replay(branch, c, cols, torch.neg, last), -last.args[0]) for c, cols in option]
        if sorted(odd) == [False, True]:
            names = ["up" if is_up else "gate" for is_up in odd]
            return [(n, c, "output", cols) for n, (c, cols) in zip(names, option, strict=True)]
    return []
