"""Shared by all tests: this folder is importable (`import worlds`, `from engines import contract`)."""

import os
import shutil
import tempfile
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
WORKER = os.environ.get("PYTEST_XDIST_WORKER")


def pytest_configure(config: pytest.Config) -> None:
    """Each test process has temporary files of its own: mlx keeps the code that it compiles in the machine's folder for
    such files under fixed names, and two processes that compile at once load each other's halves."""
    if WORKER is not None:
        # Short, because the names of sockets lie in it.
        os.environ["TMPDIR"] = folder = tempfile.mkdtemp(prefix=f"trimtab-{WORKER}-")
        tempfile.tempdir = None
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


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
