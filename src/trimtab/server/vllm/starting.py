"""vLLM's own server with this plugin: the command that starts it, through its module.

The console script of vLLM's CPU wheel does not start (it asks for a distribution named vllm), the module does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec

from trimtab.errors import MissingDependency, Unsupported

#: Where the server's main program is, newest first.
MODULES = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")
GROUPS = (
    "vllm.general_plugins",
    "vllm.platform_plugins",
    "vllm.io_processor_plugins",
    "vllm.stat_logger_plugins",
)
NAME = "trimtab"


def command(model: str, flags: Sequence[str]) -> list[str]:
    """The command line; `flags` are vLLM's own. Without `--host` it listens on this machine only."""
    if find_spec("vllm") is None:
        raise MissingDependency.of("vllm", "vllm", "trimtab serve (but for --engine transformers)")
    given = {f.partition("=")[0].replace("_", "-") for f in flags if f.startswith("--")}
    own: list[str] = []
    if model == "embedded":
        from trimtab import embedded

        model = str(embedded.MODEL)
        if "--served-model-name" not in given:
            own += ["--served-model-name", "embedded"]
    if "--host" not in given and "--uds" not in given:
        own += ["--host", "127.0.0.1"]
    return [sys.executable, "-m", _module(), "--model", model, *own, *flags]


def value(flags: Sequence[str], *names: str) -> str | None:
    """What `flags` say behind the first of `names` that stands there; "" behind one that says nothing, None where none
    stands there. vLLM takes `_` for `-` in the name of a flag, and `=` before what it says."""
    for i, flag in enumerate(flags):
        name, equals, said = flag.partition("=")
        if name.replace("_", "-") in names:
            follows = flags[i + 1] if i + 1 < len(flags) else "-"
            return said if equals else "" if follows.startswith("-") else follows
    return None


def environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment with trimtab among the plugins. `VLLM_PLUGINS` lists all that vLLM may load, so one that is not
    set is filled with what vLLM would have loaded without it."""
    out = dict(given)
    names = out.get("VLLM_PLUGINS")
    if names is None:
        found = [e.name for group in GROUPS for e in entry_points(group=group)]
    else:
        found = [n for n in names.split(",") if n]
    out["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*found, NAME]))
    return out


def _module() -> str:
    for name in MODULES:
        try:
            if find_spec(name) is not None:
                return name
        except ModuleNotFoundError:
            continue
    raise Unsupported(f"this vLLM has no server module that trimtab knows: {', '.join(MODULES)}")
