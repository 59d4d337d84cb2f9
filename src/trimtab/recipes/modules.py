"""Sites by the names of a model's own modules, for people who know a model by its code."""

from __future__ import annotations

import difflib
import re

from trimtab.engines.base import Engine
from trimtab.errors import InputError, Unsupported
from trimtab.sites import LayerSpec, Site, resolve_layers


def compile_modules(pattern: str) -> re.Pattern[str]:
    r"""The pattern as it is matched: against the end of a dotted name, whole components at a time.

    `layers\.1` is block 1 and not block 10, `mlp\.down_proj` is every block's; callable before a model loads.
    """
    try:
        return re.compile(rf"(?:.*\.)?(?:{pattern})")
    except re.error as error:
        raise InputError(
            f"--modules '{pattern}' is not a regular expression: {error}; e.g. layers\\.(3|5)\\.mlp\\.down_proj"
        ) from error


def sites_of_modules(engine: Engine, pattern: str, layers: LayerSpec = "all") -> list[Site]:
    """Sites that are the output of a module whose name matches, within `layers`."""
    matching = compile_modules(pattern)
    names = engine.module_names()
    if not names:
        raise Unsupported(f"the {engine.name} engine has no named modules; choose sites by --stream instead")
    found = [s for s, name in names.items() if matching.fullmatch(name)]
    if not found:
        plain = re.sub(r"\\(.)", r"\1", pattern)
        ends = sorted(
            {".".join(n.split(".")[-k:]) for n in names.values() for k in (2, 3, 4)} | {*names.values()}
        )
        near = difflib.get_close_matches(plain, ends, n=3, cutoff=0.3)
        raise InputError(
            f"no module that trimtab can read matches --modules '{pattern}'; near: {', '.join(near) or 'none'}"
        )
    chosen = set(resolve_layers(layers, engine.info.n_layers))
    inside = sorted(s for s in found if s.layer in chosen)
    if not inside:
        raise InputError(
            f"--modules '{pattern}' matches blocks {sorted({s.layer for s in found})}, and --layers names "
            f"{sorted(chosen)}: nothing is left to read"
        )
    return inside
