"""Read and steer language models through their activations.

Every public name is imported when it is first touched (PEP 562), so that `import trimtab` costs
milliseconds and loads neither numpy nor torch.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:  # what editors and type checkers see; `_HOME` is what runs
    from .activations import Activations
    from .directions import ConceptVectors, Direction
    from .engines import load_engine
    from .engines.base import Capture, Completion, Request, Sampling
    from .errors import InputError, TrimtabError, Unsupported
    from .evidence import Evidence
    from .formats import load, save
    from .interventions import Ablate, Add, Cap, Deltas, Gate, Pin
    from .plans import Placement, SteeringPlan
    from .prompts import Prompt
    from .readouts import Readout
    from .recipes import extract, read_texts
    from .resolved import ResolvedPlan
    from .sites import ModelInfo, Site

__version__ = "0.1.0"

__all__ = [
    "Ablate",
    "Activations",
    "Add",
    "Cap",
    "Capture",
    "Completion",
    "ConceptVectors",
    "Deltas",
    "Direction",
    "Evidence",
    "Gate",
    "InputError",
    "ModelInfo",
    "Pin",
    "Placement",
    "Prompt",
    "Readout",
    "Request",
    "ResolvedPlan",
    "Sampling",
    "Site",
    "SteeringPlan",
    "TrimtabError",
    "Unsupported",
    "extract",
    "load",
    "load_engine",
    "read_texts",
    "save",
]

_HOME = {
    "Ablate": "interventions",
    "Activations": "activations",
    "Add": "interventions",
    "Cap": "interventions",
    "Capture": "engines.base",
    "Completion": "engines.base",
    "ConceptVectors": "directions",
    "Deltas": "interventions",
    "Direction": "directions",
    "Evidence": "evidence",
    "Gate": "interventions",
    "InputError": "errors",
    "ModelInfo": "sites",
    "Pin": "interventions",
    "Placement": "plans",
    "Prompt": "prompts",
    "Readout": "readouts",
    "Request": "engines.base",
    "ResolvedPlan": "resolved",
    "Sampling": "engines.base",
    "Site": "sites",
    "SteeringPlan": "plans",
    "TrimtabError": "errors",
    "Unsupported": "errors",
    "extract": "recipes",
    "load": "formats",
    "load_engine": "engines",
    "read_texts": "recipes",
    "save": "formats",
}


def __getattr__(name: str) -> _Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'trimtab' has no attribute '{name}'")
    value = getattr(_import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # the next access no longer comes through here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
