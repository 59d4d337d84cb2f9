"""Files saved by torch: every layout lands at the right block, and nothing is ever unpickled."""

import json
import pickle

import numpy as np
import pytest

import worlds
from trimtab import formats
from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, InputError, Mismatch, UnknownName
from trimtab.formats.foreign import layer_names
from trimtab.sites import Site

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.engine

LAYERS, WIDTH = 4, 6


def stack(rows=LAYERS, seed=0):
    """Rows that all differ, so that a shift by one shows."""
    return torch.tensor(np.random.default_rng(seed).standard_normal((rows, WIDTH)))


def raw(vectors, layer, stream="resid_post"):
    return vectors.direction(None, Site(layer, stream)).raw


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


# --- one vector --------------------------------------------------------------------------------------------------


def test_one_vector_must_say_where_it_lives(tmp_path):
    path = save(tmp_path / "direction.pt", stack()[0])
    for options, lacking in (
        ({}, "give layer=N and convention='output'.*or convention='input'"),
        ({"layer": 3}, "give convention="),
        ({"convention": "input"}, "give layer=N$"),
    ):
        with pytest.raises(InputError, match=lacking):
            formats.load(path, **options)


@pytest.mark.parametrize(
    ("convention", "layer", "site"),
    [
        ("output", 3, Site(3)),
        ("input", 3, Site(2)),
        ("output", 0, Site(0)),
        ("input", 0, Site(0, "resid_pre")),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_two_meanings_of_a_layer_number(tmp_path, convention, layer, site, dtype):
    vector = stack()[0].to(dtype)
    found = formats.load(save(tmp_path / "v.pt", vector), layer=layer, convention=convention)
    assert found.sites == (site,) and found.concepts == ("v",)
    assert np.allclose(raw(found, site.layer, site.stream), vector.double().numpy(), rtol=1e-6)
    assert ConceptVectors.load(tmp_path / "v.pt", layer=layer, convention=convention).hash == found.hash
    assert layer_names(found) == {site: f"layer {layer} ({convention}) of v.pt"}


def test_the_metadata_of_a_refusal_direction(tmp_path):
    """It says the block that the state enters: what leaves the block before."""
    path = save(tmp_path / "direction.pt", stack()[0])
    (tmp_path / "direction_metadata.json").write_text(json.dumps({"pos": -1, "layer": 3}))
    assert formats.load(path).sites == (Site(2),)
    assert formats.load(path, layer=3).sites == (Site(2),)
    with pytest.raises(InputError, match="metadata beside it say layer 3"):
        formats.load(path, layer=2)
    (tmp_path / "direction_metadata.json").write_text("{half")
    with pytest.raises(FormatError, match="not JSON"):
        formats.load(path)


def test_bad_layers_and_conventions(tmp_path):
    path = save(tmp_path / "v.pt", stack()[0])
    with pytest.raises(UnknownName, match="convention 'inptu'.*Did you mean 'input'"):
        formats.load(path, layer=1, convention="inptu")
    with pytest.raises(InputError, match="counts from the end"):
        formats.load(path, layer=-1, convention="output")
    with pytest.raises(InputError, match="take no pooling="):
        formats.load(path, pooling="last")
    with pytest.raises(InputError, match="one vector and takes no key="):
        formats.load(path, key="a")


# --- stacks ------------------------------------------------------------------------------------------------------


def test_persona_vectors_are_shifted_by_one(tmp_path):
    tensor = stack(LAYERS + 1)
    path = save(tmp_path / "evil_response_avg_diff.pt", tensor)
    with pytest.warns(formats.FormatWarning, match="dropped row 0.*final norm"):
        found = formats.load(path)
    assert found.concepts == ("evil",) and found.layers() == (0, 1, 2, 3)
    for n in range(LAYERS):
        assert np.allclose(raw(found, n), tensor[n + 1], rtol=1e-6)
    assert layer_names(found)[Site(2)] == "tensor row 3 of evil_response_avg_diff.pt"
    assert (found.origin.method, found.origin.n_layers) == ("response_avg_diff", LAYERS)


def test_an_axis_is_not(tmp_path):
    tensor = stack()
    found = formats.load(save(tmp_path / "assistant_axis.pt", tensor))
    assert found.layers() == (0, 1, 2, 3) and np.allclose(raw(found, 2), tensor[2], rtol=1e-6)


@pytest.mark.filterwarnings("ignore::trimtab.formats.FormatWarning")
def test_any_other_stack_must_say_which(tmp_path):
    tensor = stack()
    path = save(tmp_path / "mine.pt", tensor)
    with pytest.raises(InputError, match="4 rows .* convention='output'"):
        formats.load(path)
    assert np.allclose(raw(formats.load(path, convention="output"), 1), tensor[1], rtol=1e-6)
    assert np.allclose(raw(formats.load(path, convention="input"), 1), tensor[2], rtol=1e-6)
    with pytest.raises(
        Mismatch, match="made for a model of 3 blocks"
    ):  # the wrong one shows against the model
        formats.load(path, convention="input", model=worlds.model(4, WIDTH))


def test_a_dictionary_by_layer(tmp_path):
    tensor = stack()
    path = save(tmp_path / "by_layer.pt", {3: tensor[0], 1: tensor[1]})
    with pytest.raises(InputError, match=r"numbers its layers \[1, 3\]"):
        formats.load(path)
    found = formats.load(path, convention="output")
    assert found.layers() == (1, 3) and np.allclose(raw(found, 3), tensor[0], rtol=1e-6)


# --- roles and traits --------------------------------------------------------------------------------------------

TRAIT = ("pos_neg", "pos_neg_50", "pos_default", "pos_default_50", "pos_70", "pos_40_70")
ROLE = ("pos_0", "pos_1", "pos_2", "pos_3", "pos_all")


def labelled(names):
    return {name: stack(seed=i) for i, name in enumerate(names)}


@pytest.mark.parametrize("key", TRAIT[:4])
def test_traits(tmp_path, key):
    content = labelled(TRAIT)
    path = save(tmp_path / "calm.pt", content)
    found = formats.load(path, key=key)
    assert found.concepts == ("calm",) and found.layers() == (0, 1, 2, 3)
    assert np.allclose(raw(found, 2), content[key][2], rtol=1e-6)
    assert found.origin.parameters["key"] == key and found.origin.method == "trait_contrast"


def test_a_trait_is_its_contrast_unless_said(tmp_path):
    content = labelled(TRAIT)
    assert np.allclose(
        raw(formats.load(save(tmp_path / "t.pt", content)), 0), content["pos_neg_50"][0], rtol=1e-6
    )


@pytest.mark.parametrize("where", ["../default_vectors.pt", "default_vectors.pt"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_role_is_a_mean_less_the_default(tmp_path, where, nested):
    content, default = labelled(ROLE), {"pos_1": stack(seed=90), "default_1": stack(seed=91)}
    path = save(tmp_path / "vectors" / "pirate.pt", content)
    save(
        path.parent / where,
        {"activations": default, "metadata": {"counts": {"default_1": 9}}} if nested else default,
    )
    found = formats.load(path)
    assert np.allclose(raw(found, 1), content["pos_3"][1] - default["default_1"][1], rtol=1e-6)
    assert (found.concepts, found.origin.method) == (("pirate",), "role_difference")
    assert found.origin.parameters["baseline"] == "default_vectors.pt[default_1]"
    other = formats.load(path, key="pos_all", baseline_key="pos_1")
    assert np.allclose(raw(other, 1), content["pos_all"][1] - default["pos_1"][1], rtol=1e-6)
    with pytest.raises(UnknownName, match="default_2.*Known: default_1, pos_1"):
        formats.load(path, baseline_key="default_2")


def test_a_mean_alone_is_no_direction(tmp_path):
    role = save(tmp_path / "a" / "b" / "pirate.pt", labelled(ROLE))
    with pytest.raises(InputError, match="'pos_3' is a mean activation.*baseline=FILE"):
        formats.load(role)
    with pytest.raises(InputError, match="no such file: nowhere.pt"):
        formats.load(role, baseline="nowhere.pt")
    with pytest.raises(InputError, match="'pos_70' is a mean activation"):
        formats.load(save(tmp_path / "a" / "b" / "calm.pt", labelled(TRAIT)), key="pos_70")
    bare = save(tmp_path / "mean.pt", stack(seed=50))
    assert np.allclose(
        raw(formats.load(role, baseline=str(bare)), 0), stack(seed=3)[0] - stack(seed=50)[0], rtol=1e-5
    )
    with pytest.raises(FormatError, match=r"\[4, 6\], its baseline in .* \[3, 6\]"):
        formats.load(role, baseline=str(save(tmp_path / "short.pt", stack(3))))
    with pytest.raises(InputError, match="a difference already"):
        formats.load(tmp_path / "a" / "b" / "calm.pt", baseline=str(bare))


def test_a_missing_key_lists_those_that_are_there(tmp_path):
    path = save(tmp_path / "calm.pt", {"pos_neg": stack(), "pos_70": stack()})
    with pytest.raises(UnknownName, match="'pos_neg_50'.*Did you mean 'pos_neg'.*Known: pos_70, pos_neg"):
        formats.load(path)


def test_an_empty_filter_is_not_a_direction(tmp_path):
    content = labelled(TRAIT) | {"pos_neg_50": torch.zeros(LAYERS, WIDTH)}
    with pytest.raises(FormatError, match="every vector is zero.*passed the filter"):
        formats.load(save(tmp_path / "calm.pt", content))
    role = save(tmp_path / "pirate.pt", labelled(ROLE) | {"pos_3": torch.zeros(LAYERS, WIDTH)})
    save(tmp_path / "default_vectors.pt", {"default_1": stack(seed=9)})
    with pytest.raises(FormatError, match="'pos_3' is all zeros"):  # minus a default it would look like one
        formats.load(role)


def test_roles_of_the_pipeline(tmp_path):
    pirate = save(tmp_path / "pirate.pt", {"vector": stack(), "type": "pos_3", "role": "pirate"})
    with pytest.raises(InputError, match="mean activation"):
        formats.load(pirate)
    default = save(tmp_path / "default.pt", {"vector": stack(seed=1), "type": "mean", "role": "default"})
    assert np.allclose(raw(formats.load(pirate), 3), stack()[3] - stack(seed=1)[3], rtol=1e-6)
    with pytest.raises(FormatError, match="mean of the default role"):
        formats.load(default)


def test_persona_files(tmp_path):
    content = {
        "activations": {"pos_3": stack(seed=1)},
        "contrast": stack(),
        "metadata": {"n": 3, "model": "m"},
    }
    path = save(tmp_path / "kind.pt", content)
    assert np.allclose(raw(formats.load(path), 1), stack()[1], rtol=1e-6)
    content["contrast"] = {"a": stack(), "b": stack(seed=2)}
    save(path, content)
    with pytest.raises(InputError, match="contrasts a, b and mean activations pos_3: choose one with key="):
        formats.load(path)
    assert np.allclose(raw(formats.load(path, key="b"), 1), stack(seed=2)[1], rtol=1e-6)
    with pytest.raises(UnknownName, match="Known: a, b, pos_3"):
        formats.load(path, key="c")
    with pytest.raises(InputError, match="'pos_3' is a mean"):
        formats.load(path, key="pos_3")


# --- trained vectors ---------------------------------------------------------------------------------------------


def test_a_trained_vector_in_its_folder(tmp_path):
    path = save(tmp_path / "grumpy" / "steering_vector.pt", {"steering_vector": stack()[0]})
    with pytest.raises(InputError, match="no steering_config.json"):
        formats.load(path)
    assert formats.load(path, layer=2).layers() == (2,)
    config = {"model_name": "some/model", "target_layer": 3, "init_scale": 0.01}
    (path.parent / "steering_config.json").write_text(json.dumps(config))
    found = formats.load(path)
    assert found.concepts == ("grumpy",) and found.layers() == (3,) and found.origin.model == "some/model"
    assert np.allclose(raw(found, 3), stack()[0], rtol=1e-6)
    with pytest.raises(InputError, match="steering_config.json says 3"):
        formats.load(path, layer=2)


def test_trained_vectors_by_layer(tmp_path):
    caps = {1: {"vector": stack()[2], "min": None, "max": 2.0}}
    content = {"layer_vectors": {1: stack()[0], 3: stack()[1]}, "steering_vector": stack()[0]}
    path = save(
        tmp_path / "grumpy" / "steering_vector.pt", content | {"projection_caps": caps, "ablations": {}}
    )
    with pytest.warns(formats.FormatWarning, match="left out its projection_caps:"):
        found = formats.load(path)
    assert found.layers() == (1, 3) and np.allclose(raw(found, 3), stack()[1], rtol=1e-6)
    save(path, {"layer_vectors": {}, "steering_vector": None, "projection_caps": caps})
    with pytest.raises(FormatError, match="no vector to add; only projection_caps"):
        formats.load(path)


# --- nothing is unpickled ----------------------------------------------------------------------------------------


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_that_runs_code_is_refused(tmp_path):
    sprung = tmp_path / "sprung"
    for name, write in (
        ("trap.pt", lambda p: torch.save({"vector": stack(), "x": Trap(sprung)}, p)),
        ("old.pt", lambda p: torch.save(Trap(sprung), p, _use_new_zipfile_serialization=False)),
        ("pickle.pt", lambda p: p.write_bytes(pickle.dumps(Trap(sprung)))),
    ):
        write(tmp_path / name)
        with pytest.raises(FormatError):
            formats.load(tmp_path / name)
        assert not sprung.exists(), name
    torch.load(tmp_path / "trap.pt", weights_only=False)
    assert sprung.exists()  # the trap works


def test_the_refusal_names_what_and_gives_a_recipe(tmp_path):
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(0).standard_normal((9, WIDTH))
    path = save(tmp_path / "pca" / "layer22_pos23.pt", {"layer": 22, "pca": PCA(2).fit(rows)})
    with pytest.raises(FormatError, match="sklearn.*would run code") as refusal:
        formats.load(path)
    text = str(refusal.value)
    assert "--layer 22 --convention output" in text
    recipe = [line for line in text.splitlines() if line.startswith("  ")]
    scope = {}
    exec(
        "\n".join(line.strip() for line in recipe).replace("'component.pt'", repr(str(tmp_path / "c.pt"))),
        scope,
    )
    found = formats.load(tmp_path / "c.pt", layer=22, convention="output")
    assert abs(raw(found, 22) @ scope["d"]["pca"].components_[0]) == pytest.approx(1, abs=1e-6)


def test_damage_and_strangers(tmp_path):
    path = save(tmp_path / "v.pt", stack()[0])
    whole = path.read_bytes()
    for data in (b"", b"hello", whole[:100], whole[:-30]):
        path.write_bytes(data)
        with pytest.raises(FormatError, match="damaged, or not"):
            formats.load(path)
    for content, holds in (
        ({"weight": stack(), "rotate_layer": stack(seed=1)}, "keys 'weight', 'rotate_layer'; pick one"),
        ({"note": "hello"}, "keys 'note'"),
        ([1, 2], "a list"),
        (torch.zeros(2, 3, 4), r"a tensor \[2, 3, 4\]"),
        (3, "a int"),
    ):
        with pytest.raises(FormatError, match=f"it holds {holds}"):
            formats.load(save(tmp_path / "v.pt", content), layer=1, convention="output")
    picked = formats.load(save(tmp_path / "v.pt", {"w": stack()[1]}), key="w", layer=1, convention="output")
    assert np.allclose(raw(picked, 1), stack()[1], rtol=1e-6)
    with pytest.raises(FormatError, match="not finite"):
        formats.load(save(tmp_path / "v.pt", torch.full((4,), float("nan"))), layer=1, convention="output")


def test_real_files(shared_data):
    folder = shared_data / "vectors_real"
    refusal = (
        folder / "refusal_direction" / "gemma-2b-it_direction.pt"
    )  # saved on a GPU, as a view of 90 rows
    with pytest.raises(InputError, match="one vector of 2048 numbers"):
        formats.load(refusal)
    found = formats.load(refusal, layer=10, convention="input")
    assert found.layers() == (9,) and found.table(Site(9)).vectors.shape == (1, 2048)
    assert found.direction(None, Site(9)).norm == pytest.approx(10.0644, abs=1e-3)
    (loreft,) = (folder / "easysteer").rglob("*.bin")
    with pytest.raises(FormatError, match="'rotate_layer'"):
        formats.load(loreft)
