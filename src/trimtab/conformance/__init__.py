"""The conformance kit: does this engine, on this machine, do what a plan says? `trimtab verify` is its door.

Every check drives the engine through its public face and compares what comes back with closed forms and, where torch
can hold the model, with one plain forward pass of Transformers in float32. The list of names is fixed per engine.
"""

from trimtab.conformance.registry import CHECKS, Check, Failed, NotRun, names_of
from trimtab.conformance.report import Entry, Report

__all__ = ["CHECKS", "Check", "Entry", "Failed", "NotRun", "Report", "names_of"]
