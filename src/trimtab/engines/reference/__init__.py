"""The reference engine: a small numpy transformer with hand-set weights; other engines are held to it."""

from trimtab.engines.reference.engine import ReferenceEngine

__all__ = ["ReferenceEngine"]
