"""The native file: what is written is what is read, bit for bit, and damage is refused in words."""

import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

import worlds
from trimtab import formats
from trimtab.directions import ConceptVectors, Table
from trimtab.errors import FormatError, InputError, Mismatch, UnknownName
from trimtab.sites import Site


def rich():
    """Several streams, every field, NaN where nothing is known."""
    rng = np.random.default_rng(4)
    basis = np.stack([np.linalg.qr(rng.standard_normal((24, 3)))[0].T for _ in range(2)])
    tables = {
        Site(2): replace(
            worlds.vectors().table(Site(2)), cap=np.array([[np.nan, 1.5], [-1.0, np.nan]]), basis=basis
        ),
        Site(2, "mlp_out"): worlds.vectors().table(Site(5)),
        Site(4): Table(worlds.vectors().table(Site(6)).vectors),
    }
    return ConceptVectors(
        ("joy", "calm"),
        tables,
        typical_norms={Site(2): 12.25, Site(4): 14.0},
        origin=worlds.origin(
            method="mean_diff", parameters={"k": 3}, counts={"joy": 40}, sign_source="pairs"
        ),
        calibration={"layer": 4, "safe": [-0.4, 0.6]},
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mood.safetensors"


def test_round_trip_to_the_bit(path):
    file = rich()
    file.save(path)
    back = ConceptVectors.load(path)
    assert back.hash == file.hash and back.concepts == file.concepts and back.sites == file.sites
    for site, table in file.tables.items():
        read = dict(back.table(site).fields())
        assert list(read) == [name for name, _ in table.fields()]
        for name, value in table.fields():
            assert read[name].tobytes() == value.tobytes(), f"{site} {name}"
    assert back.typical_norms == file.typical_norms and back.calibration == file.calibration
    assert back.origin == file.origin
    back.save(path)
    assert ConceptVectors.load(path).hash == file.hash


def test_the_manifest_lies_beside_the_file(path):
    rich().save(path)
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["concepts"] == ["joy", "calm"] and manifest["layers"] == [2, 4]
    assert manifest["hidden_size"] == 24 and manifest["dtype"] == "float32"
    assert {"layer": 2, "stream": "mlp_out", "width": 24} in manifest["sites"]
    path.with_suffix(".json").unlink()
    assert ConceptVectors.load(path).hash == rich().hash  # the copy inside is enough


def test_a_reader_that_knows_only_four_keys_can_use_the_file(path):
    from safetensors.numpy import load_file

    rich().save(path)
    manifest = json.loads(path.with_suffix(".json").read_text())
    tensors = load_file(path)
    for layer in manifest["layers"]:
        rows = tensors[f"layer_{layer}.vectors"]
        assert rows.shape == (len(manifest["concepts"]), manifest["hidden_size"])
        assert str(rows.dtype) == manifest["dtype"]


FOREIGN = {"concepts": ["joy", "calm"], "layers": [2, 5], "hidden_size": 24, "dtype": "float32"}


def foreign_tensors():
    file = worlds.vectors()
    return {f"layer_{n}.vectors": np.array(file.table(Site(n)).vectors) for n in (2, 5)}


@pytest.mark.parametrize("where", ["beside", "one key", "own keys"])
def test_a_foreign_minimal_manifest(path, where):
    metadata = {
        "beside": None,
        "one key": {"trimtab": json.dumps(FOREIGN)},
        "own keys": {k: json.dumps(v) for k, v in FOREIGN.items()},
    }[where]
    save_file(foreign_tensors(), path, metadata=metadata)
    if where == "beside":
        path.with_suffix(".json").write_text(json.dumps(FOREIGN))
    file = formats.load(path)
    assert file.concepts == ("joy", "calm") and file.layers() == (2, 5)
    assert file.direction("calm", Site(5)).norm == 1.0  # without norms: unit rows, raw norm 1
    assert file.direction("calm", Site(5)).typical_norm is None


def test_no_manifest(path):
    save_file(foreign_tensors(), path)
    with pytest.raises(FormatError, match="no manifest"):
        formats.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [2, 6]}, "promises layers"),
        ({"hidden_size": 32}, "hidden size 32"),
        ({"concepts": None}, "concepts"),
        ({"concepts": ["joy"]}, "rows for 1"),
        ({"content_hash": "0" * 32}, "changed"),
        ({"typical_norms": {"layer_2": "many"}}, "malformed"),
        ({"typical_norms": [1, 2]}, "malformed"),
        ({"origin": 3}, "malformed"),
        ({"calibration": 3}, "malformed"),
        ({"concepts": 3}, "malformed"),
    ],
)
def test_a_manifest_that_does_not_fit(path, change, message):
    manifest = {k: v for k, v in (FOREIGN | change).items() if v is not None}
    save_file(foreign_tensors(), path, metadata={"trimtab": json.dumps(manifest)})
    with pytest.raises(InputError, match=message):
        formats.load(path)


@pytest.mark.parametrize("text", ["{half", "[1]", ""])
def test_a_manifest_that_is_no_manifest(path, text):
    save_file(foreign_tensors(), path, metadata={"trimtab": text})
    with pytest.raises(FormatError, match="manifest"):
        formats.load(path)


def test_a_tensor_that_was_changed(path):
    rich().save(path)
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start + 2] ^= 1  # one mantissa bit of the first tensor
    path.write_bytes(bytes(data))
    with pytest.raises(FormatError, match="changed"):
        formats.load(path)


@pytest.mark.parametrize("keep", [0, 4, 60, -1, -500])
def test_a_truncated_file(path, keep):
    rich().save(path)
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(FormatError, match="damaged"):
        formats.load(path)


def test_files_that_are_not_there_or_not_ours(tmp_path):
    with pytest.raises(FormatError, match="no such file"):
        formats.load(tmp_path / "nothing.safetensors")
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    with pytest.raises(FormatError, match="not a vector file"):
        formats.load(other)
    with pytest.raises(InputError, match=r"NAME\.safetensors"):
        formats.save(rich(), tmp_path / "mood.pt")
    with pytest.raises(UnknownName, match="native"):
        formats.save(rich(), tmp_path / "mood.safetensors", format="nativ")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(FormatError):
        formats.load(folder)


def test_tensors_with_strange_names(path):
    for tensors in (
        {"weight": np.eye(2)},
        {"layer_2.norms": np.ones(2)},
        {"layer_2.nowhere.vectors": np.eye(2)},
    ):
        save_file(tensors, path, metadata={"trimtab": json.dumps({"concepts": ["a", "b"]})})
        with pytest.raises(InputError):
            formats.load(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere; the next test covers the same path")
def test_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="-o"):
        rich().save(tmp_path / "mood.safetensors")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot write .*-o"):
        rich().save(tmp_path / "file" / "mood.safetensors")


def test_a_failed_write_leaves_what_was_there(path, monkeypatch):
    worlds.vectors().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        rich().save(path)
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["mood.json", "mood.safetensors"]


def test_another_model_is_refused_at_load(path):
    worlds.vectors(origin=worlds.origin()).save(path)
    assert formats.load(path, model=worlds.model(10)).layers() == (2, 5, 6)
    for model, message in (
        (worlds.model(10, 16), "another model"),
        (worlds.model(12), "made for a model of 10 blocks"),
    ):
        with pytest.raises(Mismatch, match=message):
            formats.load(path, model=model)


@pytest.mark.parametrize(("pooling", "read", "warned"), [
    ("mean_all", "last", True), ("last", "last", False), (None, "last", False), ("last", None, False),
])  # fmt: skip
def test_a_set_read_where_it_was_not_extracted(path, pooling, read, warned, recwarn):
    origin = worlds.origin(pooling=pooling, read_position=read, read_alignment="emits")
    worlds.vectors(origin=origin).save(path)
    assert formats.load(path).origin == origin
    said = [str(w.message) for w in recwarn if issubclass(w.category, formats.FormatWarning)]
    assert bool(said) is warned and all("mean_all states and is read at last" in s for s in said)
