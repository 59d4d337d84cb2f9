"""Corpora written by a test."""

import json

import pytest


@pytest.fixture
def tree(tmp_path):
    """Write {path: text or JSON value or list of JSON lines (.jsonl)} and return the folder."""

    def make(files):
        root = tmp_path / "corpus"
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".jsonl") and not isinstance(content, str):
                content = "".join(json.dumps(r) + "\n" for r in content)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return root

    return make
