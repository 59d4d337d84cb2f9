"""What steering costs on this machine, measured with alternation."""

from __future__ import annotations

import statistics
import time

from trimtab.conformance.registry import check, ensure
from trimtab.conformance.subject import Subject
from trimtab.engines.requests import Request
from trimtab.interventions import Add
from trimtab.plans import EMPTY

REPETITIONS, TOKENS = 7, 16
#: How often a figure that is too low is measured anew: a burst of other work on the machine is not the engine's.
TRIES = 3
#: Below this share of the plain speed something is wrong, rather than slow.
LEAST = 0.5


@check()
def cost(s: Subject) -> str:
    """Plain time over steered time of a batch in which every request has its own vector, medians of alternating runs
    (1 is free). A figure for this machine; it fails only where three such figures are below 0.5."""
    prompts = [s.fresh(16) for _ in range(s.stand.batch)]
    steered = [
        s.ask(p, s.place(Add(amount=0.1 * s.size(s.middle)), s.middle, 10 + i), new=TOKENS)
        for i, p in enumerate(prompts)
    ]
    plain = [s.ask(p, EMPTY, new=TOKENS) for p in prompts]
    for requests in (plain, steered):
        s.run(requests)  # caches and compilers warm up
    median, detail = 0.0, ""
    for _ in range(TRIES):
        median, detail = _compared(s, plain, steered)
        if median >= LEAST:
            break
    ensure(median >= LEAST, f"{detail}; the same {TRIES} times")
    return detail


def _compared(s: Subject, plain: list[Request], steered: list[Request]) -> tuple[float, str]:
    """The share of the plain speed, and how it was measured."""
    pairs = []
    for turn in range(REPETITIONS):
        first, second = (plain, steered) if turn % 2 == 0 else (steered, plain)
        a, b = _seconds(s, first), _seconds(s, second)
        pairs.append((a, b) if first is plain else (b, a))
    ratios = sorted(a / b for a, b in pairs)
    median = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
    detail = (
        f"{median:.2f} of the plain speed ({REPETITIONS} alternating pairs, {ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"batch of {s.stand.batch}, {TOKENS} tokens, as many vectors at one layer"
    )
    return median, detail


def _seconds(s: Subject, requests: list[Request]) -> float:
    started = time.perf_counter()
    s.run(requests)
    return time.perf_counter() - started
