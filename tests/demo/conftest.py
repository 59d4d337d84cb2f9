"""A small grid of the demo, and whether its model is there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trimtab import embedded
from trimtab.demo.settings import DemoSettings

sys.path.insert(0, str(Path(__file__).parent))

#: The whole demo in a few seconds: every part runs, no number is worth reading.
SMALL = DemoSettings(
    doses=(-0.8, 0.0, 0.6, 1.2),
    prompts=4,
    samples=2,
    max_tokens=12,
    random_directions=5,
    layer_sets=((1, 2, 3, 4), (2, 3)),
    select_prompts=3,
    select_doses=(0.6,),
    honesty_doses=(-0.6, 0.0, 0.6),
    honesty_items=12,
    open_samples=1,
    learn_steps=4,
    stories=20,
    shown_prompts=2,
    shown_stories=2,
)


@pytest.fixture(scope="session")
def small() -> DemoSettings:
    return SMALL


@pytest.fixture(scope="session")
def model_is_there() -> Path:
    if not (embedded.MODEL / "model.safetensors").exists():
        pytest.skip("the embedded model is not in this checkout: build it with `python -m embedded.train`")
    return embedded.MODEL
