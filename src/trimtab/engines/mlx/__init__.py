"""The MLX engine. Importing this package needs mlx and mlx-lm, and says so where they are absent."""

from trimtab.errors import MissingDependency

try:
    import mlx.core  # noqa: F401
except ImportError as error:
    raise MissingDependency.of("mlx", "mlx", "the mlx engine") from error
try:
    import mlx_lm  # noqa: F401
except ImportError as error:
    raise MissingDependency.of("mlx-lm", "mlx", "the mlx engine") from error

from trimtab.engines.mlx.engine import MLXEngine

__all__ = ["MLXEngine"]
