"""Put a trained model and its data files into the package.

``python -m embedded.export --data`` writes the data files, ``--model /tmp/embedded-0/model`` installs a model.
Both write to a folder beside the target first and then move the files, so that a reader never sees half a file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from embedded import datasets

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "trimtab" / "embedded"
MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja",
)  # fmt: skip


def place(source: Path, target: Path) -> None:
    """Move ``source`` over ``target`` in one step, readable by everyone."""
    source.chmod(0o644)
    os.replace(source, target)


def write_lines(path: Path, rows: list[dict]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def export_data(target: Path) -> None:
    """Write every data file into ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".data-") as name:
        folder = Path(name)
        write_lines(folder / "pairs.jsonl", datasets.pairs())
        write_lines(folder / "stories.jsonl", datasets.stories())
        write_lines(folder / "classifier.jsonl", datasets.classifier())
        write_lines(folder / "prompts.jsonl", datasets.prompts())
        write_lines(folder / "openings.jsonl", datasets.openings())
        write_lines(folder / "dilemmas.jsonl", datasets.dilemmas())
        write_lines(folder / "open_honesty.jsonl", datasets.open_honesty())
        (folder / "personas.json").write_text(json.dumps(datasets.PERSONAS, indent=1) + "\n")
        (folder / "samples.json").write_text(json.dumps(datasets.samples(), indent=1) + "\n")
        np.savez_compressed(folder / "trigrams.npz", hashes=datasets.reference_trigrams())
        for path in sorted(folder.iterdir()):
            place(path, target / path.name)


def install_model(source: Path, target: Path) -> None:
    """Copy the model's files from ``source`` into ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".model-") as name:
        for file in MODEL_FILES:
            if (source / file).exists():
                shutil.copyfile(source / file, Path(name) / file)
                place(Path(name) / file, target / file)


def report(folder: Path) -> None:
    """Print size and SHA-256 of every file in a folder."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            print(f"{path.stat().st_size:>10}  {hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Install the embedded model and its data files.")
    parser.add_argument("--model", type=Path, help="folder of a trained model")
    parser.add_argument("--data", action="store_true", help="write the data files")
    arguments = parser.parse_args()
    if arguments.data:
        export_data(PACKAGE / "data")
        report(PACKAGE / "data")
    if arguments.model:
        install_model(arguments.model, PACKAGE / "model")
        report(PACKAGE / "model")


if __name__ == "__main__":
    main()
