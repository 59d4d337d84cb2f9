"""The Transformers engine. Importing this package needs torch and transformers, and says so where they are absent."""

from trimtab.errors import MissingDependency

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingDependency.of("torch", "hf", "the transformers engine") from error
try:
    import transformers  # noqa: F401
except ImportError as error:
    raise MissingDependency.of("transformers", "hf", "the transformers engine") from error

from trimtab.engines.transformers.engine import TransformersEngine

__all__ = ["TransformersEngine"]
