"""Sites by module names: whole components at the end of a name, near names where nothing matches."""

import numpy as np
import pytest

import trimtab
from trimtab.data.contrast import Contrast
from trimtab.data.neutral import neutral_texts
from trimtab.engines import load_engine
from trimtab.errors import InputError, Unsupported
from trimtab.recipes import extract
from trimtab.recipes.modules import compile_modules, sites_of_modules
from trimtab.sites import Site

PARTS = {"resid_post": "", "attn_out": ".self_attn", "o": ".self_attn.o_proj", "q": ".self_attn.q_proj",
         "mlp_out": ".mlp", "up": ".mlp.up_proj", "down": ".mlp.down_proj"}  # fmt: skip
JOY = Contrast("joy", ("I feel happy.", "you look glad."), ("I feel sad.", "you look gloomy."), paired=True)


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr("trimtab.recipes.neutral.neutral_texts", lambda: neutral_texts()[:2])
    engine = load_engine("tiny", "reference", n_layers=12)
    names = {Site(n, s): f"model.layers.{n}{end}" for n in range(12) for s, end in PARTS.items()}
    monkeypatch.setattr(engine, "module_names", lambda: names)
    return engine


@pytest.mark.parametrize(
    ("pattern", "layers", "found"),
    [
        (r"layers\.(3|5)\.mlp\.down_proj", "all", [Site(3, "down"), Site(5, "down")]),
        (r"layers\.1", "all", [Site(1)]),  # block 1: not block 11, and nothing inside it
        (r"self_attn\.(q|o)_proj", "2", [Site(2, "q"), Site(2, "o")]),
        (
            r"model\.layers\.11\..*",
            "all",
            [Site(11, s) for s in ("q", "o", "attn_out", "up", "down", "mlp_out")],
        ),
        ("mlp", "0,-1", [Site(0, "mlp_out"), Site(11, "mlp_out")]),
    ],
)
def test_names_choose_sites(engine, pattern, layers, found):
    assert sites_of_modules(engine, pattern, layers) == found


def test_extraction_reads_there(engine):
    found = extract(engine, JOY, modules=r"layers\.(3|5)\.mlp\.down_proj")
    assert found.sites == (Site(3, "down"), Site(5, "down"))
    plain = extract(engine, JOY, layers="3", streams=("down",))
    assert np.array_equal(found.tables[Site(3, "down")].vectors, plain.tables[Site(3, "down")].vectors)
    assert found.calibration["read_stream"] == "down" and found.read_site() in found.sites


def test_nothing_matches(engine):
    with pytest.raises(InputError, match=r"matches --modules 'mlp.down_prj'; near: .*mlp\.down_proj"):
        sites_of_modules(engine, "mlp.down_prj")
    with pytest.raises(InputError, match=r"matches blocks \[3\], and --layers names \[4\]"):
        sites_of_modules(engine, r"layers\.3\.mlp", "4")
    with pytest.raises(InputError, match=r"'layers\.\(3' is not a regular expression"):
        compile_modules("layers.(3")


def test_an_engine_without_modules():
    with pytest.raises(Unsupported, match="reference engine has no named modules; choose sites by --stream"):
        extract(load_engine("tiny", "reference"), JOY, modules="mlp")


@pytest.mark.engine
def test_the_names_are_the_modules_whose_output_is_captured():
    """Against a hook of torch's own on every named module."""
    import torch

    engine = trimtab.load_engine("embedded")
    names = engine.module_names()
    assert names[Site(5)] == "model.layers.5" and names[Site(3, "down")] == "model.layers.3.mlp.down_proj"
    assert {s.stream for s in names} >= {"q", "k", "v", "o", "gate", "up", "down", "attn_out", "mlp_out"}
    prompt = engine.encode("I am full of cheer.", bare=True)
    states = engine.capture(prompt, list(names))[0]
    seen = {}

    def keep(site):
        return lambda module, args, out: seen.__setitem__(site, out[0] if isinstance(out, tuple) else out)

    hooks = [engine.model.get_submodule(name).register_forward_hook(keep(s)) for s, name in names.items()]
    with torch.no_grad():
        engine.model(torch.tensor([prompt.tokens]))
    for hook in hooks:
        hook.remove()
    for site in names:
        assert np.allclose(states[site], seen[site][0].numpy(), atol=1e-4), site
