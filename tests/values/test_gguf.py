"""GGUF control vectors: numbers stay on both sides, layer 0 is refused, and what others write is read."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import worlds
from trimtab import formats
from trimtab.directions import ConceptVectors, Direction
from trimtab.errors import FormatError, InputError, MissingDependency, Unsupported
from trimtab.formats.foreign import layer_names
from trimtab.sites import Site

gguf = pytest.importorskip("gguf", reason="needs gguf: pip install 'trimtab[gguf]'")


def write(path, tensors, architecture="controlvector", hint="llama", **strings):
    """A control vector as any other program writes it."""
    writer = gguf.GGUFWriter(str(path), architecture)
    if hint is not None:
        writer.add_string(f"{architecture}.model_hint", hint)
    writer.add_uint32(f"{architecture}.layer_count", len(tensors))
    for key, text in strings.items():
        writer.add_string(key.replace("__", "."), text)
    for name, value in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rows(*layers, width=8):
    return {f"direction.{n}": (np.arange(width) + n + 1).astype(np.float32) for n in layers}


def joy(**kwargs):
    return worlds.vectors(("joy",), **kwargs)


def test_what_others_write_is_read_at_the_same_blocks(tmp_path):
    found = formats.load(write(tmp_path / "happy.gguf", rows(0, 3, 10)))
    assert found.concepts == ("happy",) and found.layers() == (0, 3, 10)
    assert layer_names(found)[Site(10)] == "direction.10 of happy.gguf"
    for n in (0, 3, 10):
        assert np.allclose(found.direction(None, Site(n)).raw, rows(n)[f"direction.{n}"])
    assert found.origin.parameters["model_hint"] == "llama" and found.origin.n_layers is None


def test_the_other_name_of_the_layout(tmp_path):
    assert formats.load(write(tmp_path / "d.gguf", rows(2), "steeringvector")).layers() == (2,)


def test_what_we_write_is_what_others_expect(tmp_path):
    joy().save(tmp_path / "joy.gguf")
    reader = gguf.GGUFReader(str(tmp_path / "joy.gguf"))
    text = {
        k: bytes(reader.get_field(k).parts[-1]).decode()
        for k in ("general.architecture", "controlvector.model_hint")
    }
    assert text == {"general.architecture": "controlvector", "controlvector.model_hint": "unknown"}
    assert int(reader.get_field("controlvector.layer_count").parts[-1][0]) == 3
    assert [t.name for t in reader.tensors] == ["direction.2", "direction.5", "direction.6"]
    for t in reader.tensors:
        assert t.tensor_type == gguf.GGMLQuantizationType.F32 and list(t.shape) == [24]
        layer = int(t.name.split(".")[1])
        assert np.array_equal(np.array(t.data), joy().direction("joy", Site(layer)).raw)


def test_there_and_back_nothing_is_lost(tmp_path):
    file = joy(origin=worlds.origin(method="mean_diff", pooling="last"), calibration={"layer": 5})
    file.save(tmp_path / "x.gguf")
    back = formats.load(tmp_path / "x.gguf")
    assert back.concepts == ("joy",) and back.sites == file.sites and back.calibration == {"layer": 5}
    assert back.typical_norms == file.typical_norms
    assert (back.origin.model, back.origin.n_layers, back.origin.pooling) == ("paper", 10, "last")
    for site in file.sites:
        for name, value in file.table(site).fields():
            assert np.allclose(dict(back.table(site).fields())[name], value, rtol=1e-6, atol=1e-7), name


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True),
    st.integers(1, 17),
    st.floats(1e-3, 1e4),
    st.integers(0, 99),
)
def test_round_trips(tmp_path_factory, layers, width, size, seed):
    path = tmp_path_factory.mktemp("gguf") / "v.gguf"
    rng = np.random.default_rng(seed)
    raw = {n: size * (rng.standard_normal(width) + 0.1) for n in layers}
    file = ConceptVectors.from_directions(Direction.from_raw("a b", Site(n), v) for n, v in raw.items())
    file.save(path)
    back = formats.load(path)
    assert back.layers() == tuple(sorted(layers)) and back.concepts == ("a b",)
    for n, v in raw.items():
        assert np.allclose(back.direction(None, Site(n)).raw, v, rtol=1e-5, atol=1e-6 * size)


def test_provenance_is_not_believed_for_other_tensors(tmp_path):
    file = joy(origin=worlds.origin())
    file.save(tmp_path / "a.gguf")
    old = gguf.GGUFReader(str(tmp_path / "a.gguf"))
    ours = bytes(old.get_field("trimtab.manifest").parts[-1]).decode()
    changed = {t.name: -np.array(t.data) for t in old.tensors}
    write(tmp_path / "b.gguf", changed, trimtab__manifest=ours)
    with pytest.warns(formats.FormatWarning, match="changed after"):
        found = formats.load(tmp_path / "b.gguf")
    assert found.table(Site(2)).mean is None and found.origin.model is None
    assert np.allclose(found.direction(None, Site(2)).raw, -file.direction(None, Site(2)).raw)


def test_a_malformed_manifest(tmp_path):
    for text in ("{half", "[]", json.dumps({"rows": "x"})):
        path = write(tmp_path / "m.gguf", rows(1), trimtab__manifest=text)
        if text.startswith('{"'):
            with pytest.warns(formats.FormatWarning):
                formats.load(path)
        else:
            with pytest.raises(FormatError, match="malformed"):
                formats.load(path)


@pytest.mark.parametrize(
    ("tensors", "architecture", "message"),
    [
        (rows(1), "llama", "architecture 'llama', not a control vector"),
        ({"blk.0.weight": np.ones(4, np.float32)}, "controlvector", "direction.<layer>"),
        ({"direction.x": np.ones(4, np.float32)}, "controlvector", "direction.<layer>"),
        ({"direction.1": np.ones((2, 4), np.float32)}, "controlvector", "one float vector"),
        ({"direction.1": np.ones(4, np.int32)}, "controlvector", "one float vector"),
        ({"direction.1": np.zeros(4, np.float32)}, "controlvector", "every vector is zero"),
        ({"direction.1": np.full(4, np.nan, np.float32)}, "controlvector", "not finite"),
        (
            {"direction.1": np.ones(4, np.float32), "direction.2": np.ones(5, np.float32)},
            "controlvector",
            "same width",
        ),
        ({}, "controlvector", "no vectors"),
    ],
)
def test_what_is_no_control_vector(tmp_path, tensors, architecture, message):
    with pytest.raises(FormatError, match=message):
        formats.load(write(tmp_path / "x.gguf", tensors, architecture))


def test_zero_rows_are_left_out_and_said(tmp_path):
    path = write(tmp_path / "x.gguf", rows(2) | {"direction.1": np.zeros(8, np.float32)})
    with pytest.warns(formats.FormatWarning, match="direction.1: only zeros"):
        assert formats.load(path).layers() == (2,)


def test_damage(tmp_path):
    path = write(tmp_path / "x.gguf", rows(1))
    whole = path.read_bytes()
    for data in (b"", b"GGUF", b"hello world, no gguf", whole[:40], whole[:-20]):
        path.write_bytes(data)
        with pytest.raises(FormatError):
            formats.load(path)


def test_what_a_control_vector_cannot_hold(tmp_path):
    path = tmp_path / "x.gguf"
    with pytest.raises(Unsupported, match="one concept.*joy, calm"):
        worlds.vectors().save(path)
    with pytest.raises(Unsupported, match="layer 0: leave it out with --layers 2,5"):
        joy(layers=(0, 2, 5)).save(path)
    with pytest.raises(Unsupported, match="no other layer"):
        joy(layers=(0,)).save(path)
    other = ConceptVectors.from_directions([Direction("joy", Site(2, "mlp_out"), np.eye(4)[0])])
    with pytest.raises(Unsupported, match="block outputs only.*layer_2.mlp_out"):
        other.save(path)
    with pytest.raises(InputError, match="NAME.gguf"):
        formats.save(joy(), tmp_path / "x.bin", format="gguf")
    assert list(tmp_path.iterdir()) == []


def test_options_that_say_nothing_here(tmp_path):
    with pytest.raises(InputError, match="take no layer="):
        formats.load(write(tmp_path / "x.gguf", rows(1)), layer=3)


def test_without_the_library(tmp_path, monkeypatch):
    write(tmp_path / "x.gguf", rows(1))
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingDependency, match=r"trimtab\[gguf\]"):
        formats.load(tmp_path / "x.gguf")
    with pytest.raises(MissingDependency, match=r"trimtab\[gguf\]"):
        joy().save(tmp_path / "y.gguf")


def test_a_published_vector(shared_data, tmp_path):
    """EasySteer's own file, which has a layer 0 that llama.cpp would refuse."""
    found = formats.load(shared_data / "vectors_real" / "easysteer" / "vectors" / "happy_diffmean.gguf")
    assert found.layers() == tuple(range(28)) and found.origin.method == "diffmean"
    assert found.table(Site(0)).vectors.shape == (1, 1536)
    with pytest.raises(Unsupported, match="--layers 1-27"):
        found.save(tmp_path / "x.gguf")
    kept = found.only(sites=found.sites[1:])
    kept.save(tmp_path / "x.gguf")
    back = formats.load(tmp_path / "x.gguf")
    assert all(back.direction(None, s).cosine(kept.direction(None, s)) > 1 - 1e-6 for s in kept.sites)


@pytest.fixture
def repeng(monkeypatch):
    monkeypatch.setattr(
        np, "float_", np.float64, raising=False
    )  # 0.4.0 does not import under numpy 2 without
    return pytest.importorskip("repeng", reason="needs repeng, which make venv installs")


@pytest.mark.engine
def test_repeng_reads_ours_and_we_read_repengs(repeng, tmp_path):
    file = joy()
    formats.save(file, tmp_path / "ours.gguf", model_hint="llama")
    theirs = repeng.ControlVector.import_gguf(tmp_path / "ours.gguf")
    assert theirs.model_type == "llama" and sorted(theirs.directions) == [2, 5, 6]
    for n, row in theirs.directions.items():
        assert np.array_equal(row, file.direction("joy", Site(n)).raw)
    (theirs * -2.0).export_gguf(tmp_path / "theirs.gguf")
    for back in (formats.load(tmp_path / "theirs.gguf"), formats.from_object(theirs * -2.0)):
        assert back.layers() == (2, 5, 6) and back.origin.parameters["model_hint"] == "llama"
        for s in file.sites:
            assert np.allclose(
                back.direction(None, s).raw, -2 * file.direction("joy", s).raw, rtol=1e-6, atol=1e-6
            )
