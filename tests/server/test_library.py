"""Vector files come from the allowed folder only; captures are handed out once; settings are checked."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load, save_file

from server.stock import LAYERS, WIDTH, vectors
from trimtab.errors import FormatError, InputError, Mismatch, UnknownName
from trimtab.server.busy import Busy
from trimtab.server.captures import Captures
from trimtab.server.library import Library, describe
from trimtab.server.settings import Settings
from trimtab.sites import ModelInfo, Site

INFO = ModelInfo("embedded", LAYERS, WIDTH, {Site(n): WIDTH for n in range(LAYERS)})


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    vectors().save(inside / "feelings.safetensors")
    vectors(1).save(inside / "deep" / "more.safetensors")
    vectors(2).save(tmp_path / "secret.safetensors")
    (inside / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    (inside / "notes.txt").write_text("no vectors")
    (inside / "model.pt").write_bytes(b"no")
    return inside


def test_files_of_the_folder(folder):
    library = Library(INFO, Settings(folder=folder))
    assert library.available() == ["deep/more.safetensors", "feelings.safetensors"]
    assert (
        library.load("deep/more.safetensors") == "more" and library.load("feelings.safetensors", "f") == "f"
    )
    assert describe("f", library["f"])["concepts"] == ["happy", "sad", "calm"]
    library.unload("more")
    assert list(library) == ["f"]
    with pytest.raises(UnknownName):
        library.unload("more")


@pytest.mark.parametrize(
    "file",
    ["../secret.safetensors", "deep/../../secret.safetensors", "link.safetensors", "", "a\0b.safetensors", "x" * 2000,
     "notes.txt", "model.pt", "none.safetensors", "deep", ".", "/etc/passwd", "//secret.safetensors"],
)  # fmt: skip
def test_nothing_else_is_read(folder, file):
    library = Library(INFO, Settings(folder=folder))
    with pytest.raises(InputError):
        library.load(file)
    with pytest.raises(InputError, match="outside"):
        library.load(str(folder.parent / "secret.safetensors"))
    assert not library


def test_without_a_folder_nothing_is_loaded():
    with pytest.raises(InputError, match="TRIMTAB_VECTOR_DIR"):
        Library(INFO, Settings()).load("feelings.safetensors")


def test_a_file_of_another_model_is_refused(folder):
    other = ModelInfo("other", LAYERS, 64, {Site(n): 64 for n in range(LAYERS)})
    with pytest.raises(Mismatch, match="another model"):
        Library(other, Settings(folder=folder)).load("feelings.safetensors")
    with pytest.raises(Mismatch):
        Library(other, Settings(readout=(folder / "feelings.safetensors",)))


def test_the_limit_of_files(folder):
    library = Library(INFO, Settings(folder=folder, max_files=1))
    library.load("feelings.safetensors")
    library.load("feelings.safetensors")  # again is no second file
    with pytest.raises(InputError, match="limit"):
        library.load("deep/more.safetensors")


def test_a_manifest_of_four_keys(tmp_path):
    """The description may stand elsewhere, and say no more than what a foreign reader needs."""
    known = vectors(layers=(1, 4))
    save_file(
        {f"layer_{s.layer}.vectors": np.array(t.vectors) for s, t in known.tables.items()},
        tmp_path / "v.safetensors",
    )
    four = {"concepts": list(known.concepts), "layers": [1, 4], "hidden_size": WIDTH, "dtype": "float32"}
    (tmp_path / "elsewhere.json").write_text(json.dumps(four))
    environment = {
        "VLLM_READOUT_VECTORS": str(tmp_path / "v.safetensors"),
        "VLLM_READOUT_MANIFEST": str(tmp_path / "elsewhere.json"),
    }
    library = Library(INFO, Settings.from_environment(environment))
    assert library.default == "v" and library["v"].layers() == (1, 4)
    assert np.array_equal(library["v"].tables[Site(4)].vectors, known.tables[Site(4)].vectors)
    (tmp_path / "elsewhere.json").write_text(json.dumps({**four, "layers": [1, 2]}))
    with pytest.raises(FormatError, match="promises layers"):
        Library(INFO, Settings.from_environment(environment))


def test_settings_of_the_environment(tmp_path):
    two = os.pathsep.join(["a.safetensors", "b.safetensors"])
    found = Settings.from_environment(
        {"TRIMTAB_READOUT_VECTORS": two, "VLLM_READOUT_VECTORS": "c", "TRIMTAB_ALLOW_INLINE": "true",
         "TRIMTAB_MAX_PLACEMENTS": "3", "TRIMTAB_VECTOR_DIR": str(tmp_path)}
    )  # fmt: skip
    assert [str(p) for p in found.readout] == ["a.safetensors", "b.safetensors"]
    assert (found.inline, found.max_placements, found.folder) == (True, 3, tmp_path)
    for wrong in (
        {"TRIMTAB_ALLOW_INLINE": "maybe"},
        {"TRIMTAB_MAX_FILES": "-1"},
        {"TRIMTAB_VECTOR_DIR": "nowhere"},
    ):
        with pytest.raises(InputError, match=next(iter(wrong))):
            Settings.from_environment(wrong)


def test_a_capture_is_fetched_once_and_expires():
    now = [0.0]
    captures = Captures(
        Settings(capture_seconds=10, max_capture_bytes=5000, max_held_bytes=9000), lambda: now[0]
    )
    states = {2: np.arange(8, dtype=np.float32).reshape(2, 4)}
    said = captures.put(states, np.array([3, 7]), {"at": "after"})
    body = captures.fetch(said["handle"])
    assert body is not None and said["rows"] == 2 and said["bytes"] == len(body)
    assert np.array_equal(load(body)["layer_2.states"], states[2]) and load(body)["positions"].tolist() == [
        3,
        7,
    ]
    assert captures.fetch(said["handle"]) is None and captures.fetch("guess") is None
    late = captures.put(states, np.array([3, 7]), {})
    now[0] = 10.0
    assert captures.fetch(late["handle"]) is None and len(captures) == 0 and captures.held == 0


def test_many_captures_come_in_one_body_or_none_of_them():
    captures = Captures(Settings())
    rows = [np.full((i + 1, 3), i, np.float32) for i in range(3)]
    said = [
        captures.put({1: r, 4: r + 10}, np.arange(len(r)), {"at": "after", "fingerprint": str(i)})
        for i, r in enumerate(rows)
    ]
    names = [s["handle"] for s in said]
    assert captures.fetch_all([*names, "guess"]) is None and len(captures) == 3
    body = captures.fetch_all([names[2], names[0], names[2]])
    assert body is not None and len(captures) == 1 and captures.fetch_all([names[0], names[1]]) is None
    found = load(body)
    assert set(found) == {
        f"{n}.{t}" for n in (names[0], names[2]) for t in ("layer_1.states", "layer_4.states", "positions")
    }
    for i in (0, 2):
        assert np.array_equal(found[f"{names[i]}.layer_4.states"], rows[i] + 10)
        assert list(found[f"{names[i]}.positions"]) == list(range(i + 1))
    size = int.from_bytes(body[:8], "little")
    about = json.loads(json.loads(body[8 : 8 + size])["__metadata__"][names[2]])
    assert about == {"align": "own", "at": "after", "fingerprint": "2"}


def test_captures_are_bounded():
    captures = Captures(Settings(max_capture_bytes=100, max_held_bytes=150))
    with pytest.raises(InputError, match="fewer layers"):
        captures.reserve(101)
    captures.reserve(100)
    with pytest.raises(Busy, match="wait to be fetched"):
        captures.reserve(51)
    captures.release(100)
    captures.reserve(100)
