"""Other libraries' objects, known by what they hold."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from trimtab import formats
from trimtab.errors import FormatError, Unsupported
from trimtab.formats.foreign import layer_names
from trimtab.sites import Site


@dataclass
class ControlVector:
    model_type: str
    directions: dict = field(default_factory=dict)


@dataclass
class SteeringVector:
    layer_activations: dict
    layer_type: str = "decoder_block"


ROW = np.array([3.0, 0.0, 4.0], dtype=np.float32)


def test_control_vectors():
    found = formats.from_object(ControlVector("llama", {3: ROW, 1: 2 * ROW}), "happy")
    assert found.concepts == ("happy",) and found.layers() == (1, 3)
    assert found.direction(None, Site(1)).norm == pytest.approx(10)
    assert layer_names(found)[Site(3)] == "layer 3 of ControlVector"
    assert found.origin.parameters["model_hint"] == "llama"


@pytest.mark.parametrize(
    ("kind", "stream"), [("decoder_block", "resid_post"), ("self_attn", "o"), ("mlp", "down")]
)
def test_steering_vectors(kind, stream):
    found = formats.from_object(SteeringVector({2: ROW}, kind))
    assert found.sites == (Site(2, stream),) and np.allclose(found.direction(None, Site(2, stream)).raw, ROW)


@pytest.mark.engine
def test_tensors():
    torch = pytest.importorskip("torch")
    row = torch.tensor(ROW, dtype=torch.bfloat16, requires_grad=True)
    assert np.allclose(formats.from_object(SteeringVector({0: row})).direction(None, Site(0)).raw, ROW)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (SteeringVector({1: ROW}, "input_layernorm"), "no stream"),
        (SteeringVector({-1: ROW}), "layer -1"),
        (SteeringVector({"1": ROW}), "layer '1'"),
        (SteeringVector({}), "no vectors"),
        (SteeringVector({1: ROW, 2: ROW[:2]}), "same width"),
        (ControlVector("x", {1: 0 * ROW}), "zero"),
        ({1: ROW}, "dict is no vector object"),
        (None, "NoneType"),
    ],
)
def test_refusals(what, message):
    with pytest.raises((FormatError, Unsupported), match=message):
        formats.from_object(what)
