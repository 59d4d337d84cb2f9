"""A vLLM that lacks what the engine hangs on: it serves plain requests as ever, and none that carries a plan."""

from __future__ import annotations

import importlib
from functools import wraps
from typing import Any

from trimtab.engines.vllm.ticket import KEY
from trimtab.errors import Unsupported

#: Where the front ends of vLLM's versions take a request in; the first that is there is used.
DOORS = (
    ("vllm.v1.engine.input_processor", "InputProcessor", "_validate_params"),
    ("vllm.v1.engine.input_processor", "InputProcessor", "process_inputs"),
    ("vllm.v1.engine.processor", "Processor", "process_inputs"),
)


def install(reason: str) -> None:
    """From now on this process refuses requests with a ticket of ours. Raises Unsupported where even that is not
    possible: then vLLM must not start with the plugin, because it would serve such requests plain."""
    for module, cls, method in DOORS:
        try:
            owner: Any = getattr(importlib.import_module(module), cls)
            whole = getattr(owner, method)
        except (ImportError, AttributeError):
            continue
        if not hasattr(whole, "trimtab"):
            setattr(owner, method, _refusing(whole, reason))
        return
    raise Unsupported(
        f"{reason}. This vLLM cannot even refuse requests with plans: uninstall trimtab beside it"
    )


def _refusing(whole: Any, reason: str) -> Any:
    @wraps(whole)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for given in (*args, *kwargs.values()):
            if KEY in (getattr(given, "extra_args", None) or {}):
                raise ValueError(f"this request carries a plan, and trimtab cannot act here: {reason}")
        return whole(*args, **kwargs)

    checked.trimtab = True  # type: ignore[attr-defined]
    return checked
