"""Vector files by name: loaded at the start, or by clients from the allowed folder and from nowhere else."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trimtab.directions import ConceptVectors
from trimtab.errors import FormatError, InputError, UnknownName
from trimtab.formats import native
from trimtab.server.settings import Settings
from trimtab.sites import ModelInfo

SUFFIX = ".safetensors"


class Library(dict[str, ConceptVectors]):
    """What plans and readouts name. It is a mapping, as `SteeringPlan.resolve` wants it."""

    def __init__(self, info: ModelInfo, settings: Settings) -> None:
        super().__init__()
        self.info, self.settings = info, settings
        self.default: str | None = None
        for i, path in enumerate(settings.readout):
            vectors = read(path, settings.manifest if i == 0 else None)
            self._add(path.name.removesuffix(SUFFIX), vectors)
        self.default = next(iter(self), None)

    def load(self, file: str, name: str | None = None) -> str:
        """Load a file of the allowed folder; the name under which it is known from now on."""
        path = self._allowed(file)
        name = name or path.name.removesuffix(SUFFIX)
        self._add(name, read(path))
        return name

    def unload(self, name: str) -> None:
        """Forget a file; requests under way keep what they hold."""
        if name not in self:
            raise UnknownName.of("vector file", name, self)
        if name == self.default:
            raise InputError(f"{name!r} is what this server reads by default, and stays")
        del self[name]

    def available(self) -> list[str]:
        """Files that may be loaded, relative to the allowed folder."""
        return sorted(self._files()) if self.settings.folder else []

    def _files(self) -> Iterator[str]:
        assert self.settings.folder is not None
        root = self.settings.folder.resolve()
        for path in root.rglob(f"*{SUFFIX}"):
            if path.resolve().is_relative_to(root):
                yield path.relative_to(root).as_posix()

    def _allowed(self, file: str) -> Path:
        """The file's real path, inside the folder: `..`, absolute names and links that lead out are refused."""
        if self.settings.folder is None:
            raise InputError("this server loads no vectors: the operator has not set TRIMTAB_VECTOR_DIR")
        root = self.settings.folder.resolve()
        if not file or "\0" in file or len(file) > 1024:
            raise InputError("file is the name of a vector file in the allowed folder")
        path = (root / file).resolve()
        if not path.is_relative_to(root):
            raise InputError(f"{file!r} lies outside the allowed folder")
        if path.suffix != SUFFIX:
            raise InputError(f"vectors are loaded from NAME{SUFFIX} only, got {file!r}")
        if not path.is_file():
            raise UnknownName.of("vector file", file, self._files())
        return path

    def _add(self, name: str, vectors: ConceptVectors) -> None:
        vectors.check_model(self.info)
        if name not in self and len(self) >= self.settings.max_files:
            raise InputError(f"this server holds {len(self)} vector files, which is its limit; unload one")
        self[name] = vectors


def read(path: Path, manifest: Path | None = None) -> ConceptVectors:
    """A native file; `manifest` is its description where it stands elsewhere."""
    if path.suffix != SUFFIX:
        raise FormatError(f"{path} is not a {SUFFIX} file")
    if not path.is_file():
        raise FormatError(f"there is no vector file {path}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if manifest is None:
            return native.load(path)
        return _described(path, manifest)


def _described(path: Path, manifest: Path) -> ConceptVectors:
    """The reader finds a description beside the file: put the two side by side for as long as it reads."""
    try:
        description = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{manifest} is no manifest: {error}") from error
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        copy = Path(folder) / path.name
        try:
            copy.symlink_to(path.resolve())
        except OSError:
            shutil.copyfile(path, copy)
        copy.with_suffix(".json").write_text(json.dumps(description), encoding="utf-8")
        found = native.load(copy)
    if list(found.concepts) != list(description.get("concepts", [])):
        raise FormatError(f"{path} carries a manifest of its own, with other concepts than {manifest}")
    return found


def describe(name: str, vectors: ConceptVectors) -> dict[str, Any]:
    """One entry of `GET /v1/vectors`."""
    known = native.manifest(vectors)
    return {
        "name": name,
        **{k: known[k] for k in ("concepts", "layers", "hidden_size", "dtype", "content_hash")},
        "model": vectors.origin.model,
        "method": vectors.origin.method,
        "recommended_layer": vectors.calibration.get("layer"),
    }
