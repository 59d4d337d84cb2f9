"""Records of the same study in two places."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest


def same(
    here: Any, there: Any, where: str = "", *, rel: float, abs: float, without: Collection[str] = ()
) -> None:
    """Equal, but for the rounding of numbers; keys `without` are there in both, and may differ."""
    if isinstance(here, dict):
        assert set(here) == set(there), where
        for key in set(here) - set(without):
            same(here[key], there[key], f"{where}.{key}", rel=rel, abs=abs, without=without)
    elif isinstance(here, list):
        assert len(here) == len(there), where
        for i, (a, b) in enumerate(zip(here, there, strict=True)):
            same(a, b, f"{where}[{i}]", rel=rel, abs=abs, without=without)
    elif isinstance(here, float):
        assert there == pytest.approx(here, rel=rel, abs=abs), where
    else:
        assert here == there, where
