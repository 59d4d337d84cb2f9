"""Data sets that Hugging Face's `datasets` saved, and Parquet and Arrow files."""

import json

import pytest

from trimtab import data
from trimtab.errors import FormatError, InputError, MissingDependency


def test_a_saved_data_set_needs_pyarrow(tree, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    root = tree({"state.json": {"_data_files": []}})
    with pytest.raises(MissingDependency, match="pip install 'trimtab\\[datasets\\]'"):
        data.load(root)


def test_a_saved_data_set_of_pairs(tree):
    pa = pytest.importorskip("pyarrow", reason="reading saved data sets needs pyarrow")
    root = tree({"dataset_dict.json": {"splits": ["train", "test"]}})
    for split in ("train", "test"):
        folder = root / split
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
        table = pa.table({"positive": [f"{split} up"], "negative": [f"{split} low"], "extra": [1]})
        with (
            pa.OSFile(str(folder / "data.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as out,
        ):
            out.write_table(table)
    (found,) = data.load(root)
    assert found.positive == ("train up",) and "split train" in found.notes[0]
    assert data.load(root / "test")[0].positive == ("test up",)
    (root / "test/data.arrow").write_bytes(b"no arrow")
    with pytest.raises(FormatError, match="is damaged"):
        data.load(root / "test")


def test_single_files_and_folders_of_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="reading saved data sets needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    labelled = pa.table({"text": ["up", "low", "high"], "label": [1, 0, 1], "concept": ["joy"] * 3})
    parquet.write_table(labelled, tmp_path / "train.parquet")
    for path in (tmp_path / "train.parquet", tmp_path):
        (found,) = data.load(path)
        assert (found.concept, found.positive, found.negative) == ("joy", ("up", "high"), ("low",))
    named = pa.table({"positive": ["up", "so"], "negative": ["low", "no"], "group": ["a", None]})
    with pa.OSFile(str(tmp_path / "mood.arrow"), "wb") as sink, pa.ipc.new_stream(sink, named.schema) as out:
        out.write_table(named)
    (found,) = data.load(tmp_path / "mood.arrow")
    assert found.paired and found.concept == "mood" and found.groups == ("a", "row 2")


def test_data_sets_that_are_refused(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="reading saved data sets needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "d.parquet"
    parquet.write_table(pa.table({"question": ["why?"]}), path)
    with pytest.raises(
        FormatError, match="needs the columns positive and negative, or text and label; it has question"
    ):
        data.load(path)
    parquet.write_table(
        pa.table(
            {"positive": ["up"], "negative": [None]},
            schema=pa.schema([("positive", pa.string()), ("negative", pa.string())]),
        ),
        path,
    )
    with pytest.raises(InputError, match="row 1 is one-sided"):
        data.load(path)
    parquet.write_table(pa.table({"positive": pa.array([], pa.string())}), path)
    with pytest.raises(InputError, match="holds no rows"):
        data.load(path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["a", "b"]}')
    with pytest.raises(InputError, match="has the splits a, b: name the folder of one"):
        data.load(tmp_path)
