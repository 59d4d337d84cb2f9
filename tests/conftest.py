"""Shared by all tests: this folder is importable (`import worlds`, `from engines import contract`)."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples on every run: a failure is a finding, never a coincidence. How long it takes to make them says
# something of the machine only.
settings.register_profile(
    "trimtab", max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
settings.load_profile("trimtab")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data sets that lie beside a developer's checkout; absent elsewhere."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    return SHARED / "data"


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Small public checkpoints that lie beside a developer's checkout; absent elsewhere."""
    if not (SHARED / "models").is_dir():
        pytest.skip("needs ../shared/models, which is not part of the repository")
    return SHARED / "models"
