"""Figures for Prometheus, in the registry that the server's own `/metrics` shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def _requests() -> Any:
    from prometheus_client import Counter

    return Counter(
        "trimtab_requests", "Requests with steering, readout or capture, by what became of them.", ["outcome"]
    )


def count(outcome: str) -> None:
    """One more request that was `admitted`, `refused` or `lost`."""
    _requests().labels(outcome=outcome).inc()


def watch(in_flight: Callable[[], int], waiting: Callable[[], int], loaded: Callable[[], int]) -> None:
    """Show what is held now: prompts under way, bytes of captures that wait, vector files."""
    for name, text, value in (
        ("trimtab_prompts_in_flight", "Prompts whose results are awaited.", in_flight),
        ("trimtab_captures_waiting_bytes", "Captured states that wait to be fetched.", waiting),
        ("trimtab_vector_files", "Vector files that are loaded.", loaded),
    ):
        _gauge(name, text).set_function(value)


@cache
def _gauge(name: str, text: str) -> Any:
    from prometheus_client import Gauge

    return Gauge(name, text)
