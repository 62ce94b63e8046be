"""Surrey Face Model and other models in eos's binary format.

The layout is that of cereal's portable-free binary archive, little endian: matrices as two int32
and the numbers column by column, vectors as a uint64 count and their elements, optional values
behind a byte, variants behind an int32.

References
----------
.. [1] P. Huber et al., A multiresolution 3D morphable face model and fitting framework, VISAPP
       2016.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from recon3d.errors import ModelError
from recon3d.morphable.importers.raw import RawModel, check_raw, expect, signed_fields

FAMILY = "Surrey Face Model (eos)"
ORIGIN = "Surrey Face Model in eos format (github.com/patrikhuber/eos)"
LICENCE = "Surrey Face Model licence (non-commercial)"
CITATION = (
    "Huber, Hu, Tena, Mortazavian, Koppen, Christmas, Raetsch, Kittler: A Multiresolution 3D "
    "Morphable Face Model and Fitting Framework, VISAPP 2016"
)
VERSIONS = (1, 2, 3, 4)


def detect(path: Path) -> bool:
    """Whether a path looks like this family's."""
    if path.suffix != ".bin" or not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(12)
    if len(head) < 12:
        return False
    version, rows, columns = struct.unpack("<Iii", head)
    return version in VERSIONS and rows > 0 and rows % 3 == 0 and columns == 1


def read(path: Path) -> RawModel:
    """Read the model; expression blendshapes lying beside it are read too.

    A shape-only model has none in its own file: ``expression_blendshapes*.bin`` in the same
    folder is taken if its size fits.

    Raises
    ------
    ModelError
        If the file is cut off, damaged or of another layout.
    """
    archive = _Archive(path)
    version = archive.number("<I", "a version")
    expect(version in VERSIONS, path, f"a version among {VERSIONS}", str(version))
    mean, basis, deviation, triangles = archive.pca("shape model")
    colour, _, _, _ = archive.pca("colour model")
    expression, names, extent = None, (), "1 is two standard deviations one way"
    if version >= 2:
        expression, names = archive.expression_model(len(mean))
    if version >= 3:
        archive.landmarks()
    uv = archive.vector(np.dtype("<f8"), 2, "texture coordinates")
    triangles_uv = archive.vector(np.dtype("<i4"), 3, "texture triangles") if version >= 4 else None
    archive.end()
    N = len(mean)
    expect(N % 3 == 0, path, "a mean of 3 V numbers", str(N))
    V = N // 3
    if expression is None:
        expression, names = _beside(path, N)
    if names and not names[0].startswith("expression_"):
        extent = "1 is the full expression"
    triangles = triangles.astype(np.int64)
    if not len(uv):
        uv = triangles_uv = None
    else:
        uv = uv * [1, -1] + [0, 1]  # eos counts v downwards
        if triangles_uv is None or not len(triangles_uv):
            expect(len(uv) == V, path, f"{V} texture coordinates", str(len(uv)))
            triangles_uv = triangles
    albedo = None
    if len(colour) == N:
        from recon3d.colour import srgb_to_linear

        albedo = srgb_to_linear(np.clip(colour.reshape(-1, 3), 0, 1).astype(np.float32))
    surrey = V in (845, 3448, 16759, 29587) or path.name.startswith("sfm")
    return check_raw(
        RawModel(
            family=FAMILY,
            name="surrey" if surrey else path.stem,
            mean=mean.reshape(-1, 3).astype(np.float64),
            triangles=triangles,
            identity=(basis * deviation).T.reshape(-1, V, 3),
            expression=expression,
            expression_names=tuple(names),
            millimetres=1.0,
            licence=LICENCE if surrey else "unknown",
            origin=ORIGIN if surrey else f"{path.name} in eos format",
            citation=CITATION if surrey else "",
            uv=uv,
            triangles_uv=None if triangles_uv is None else triangles_uv.astype(np.int64),
            albedo=albedo,
            expression_range=extent,
        ),
        path,
    )


def _beside(path: Path, N: int) -> tuple[np.ndarray, tuple[str, ...]]:
    for other in sorted(path.parent.glob("expression_blendshapes*.bin")):
        archive = _Archive(other)
        fields, names = archive.blendshapes(N, strict=False)
        if names:
            archive.end()
            return fields, names
    return np.zeros((0, N // 3, 3), np.float32), ()


class _Archive:
    """A cursor over the file that never reads past its end or believes a count it cannot hold."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error})") from error
        self.at = 0

    def take(self, count: int, what: str) -> memoryview:
        left = len(self.data) - self.at
        if count < 0 or count > left:
            raise ModelError(
                f"{self.path}: expected {count} bytes of {what} at byte {self.at}, found {left}"
            )
        self.at += count
        return memoryview(self.data)[self.at - count : self.at]

    def number(self, form: str, what: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form), what))[0]

    def end(self) -> None:
        left = len(self.data) - self.at
        if left:
            raise ModelError(f"{self.path}: expected the end at byte {self.at}, found {left} more")

    def matrix(self, what: str) -> np.ndarray:
        """(rows, columns) float32."""
        rows, columns = self.number("<i", what), self.number("<i", what)
        if rows < 0 or columns < 0:
            raise ModelError(f"{self.path}: expected a size of {what}, found {rows} x {columns}")
        values = np.frombuffer(self.take(4 * rows * columns, what), "<f4")
        return values.reshape(columns, rows).T

    def vector(self, dtype: np.dtype, width: int, what: str) -> np.ndarray:
        """(n, width)."""
        count = self.number("<Q", what)
        return np.frombuffer(self.take(count * width * dtype.itemsize, what), dtype).reshape(
            -1, width
        )

    def text(self, what: str) -> str:
        return bytes(self.take(self.number("<Q", what), what)).decode("utf-8", "replace")

    def pca(self, what: str):
        """Mean (N,), orthonormal basis (N, K), deviations (K,), triangles (F, 3)."""
        mean = self.matrix(f"the {what}'s mean")
        basis = self.matrix(f"the {what}'s basis")
        variance = self.matrix(f"the {what}'s eigenvalues").ravel()
        triangles = self.vector(np.dtype("<i4"), 3, f"the {what}'s triangles")
        if mean.size and basis.size and basis.shape != (mean.size, variance.size):
            wanted = (mean.size, variance.size)
            raise ModelError(f"{self.path}: expected a {what} basis {wanted}, found {basis.shape}")
        if variance.size and not (variance >= 0).all():
            raise ModelError(f"{self.path}: expected eigenvalues >= 0, found {variance.min()}")
        return mean.ravel(), basis, np.sqrt(np.maximum(variance, 0)), triangles

    def expression_model(self, N: int):
        if self.number("<B", "an optional expression model"):  # cereal writes 1 for "nothing"
            return None, ()
        kind = self.number("<i", "the kind of expression model")
        if kind == 0:
            _, basis, deviation, _ = self.pca("expression model")
            if basis.shape[0] != N:
                raise ModelError(
                    f"{self.path}: expected {N} rows of expressions, found {basis.shape[0]}"
                )
            return signed_fields((basis * deviation).T.reshape(-1, N // 3, 3))
        if kind == 1:
            return self.blendshapes(N)
        raise ModelError(f"{self.path}: expected expression model kind 0 or 1, found {kind}")

    def blendshapes(self, N: int, *, strict: bool = True):
        count = self.number("<Q", "blendshapes")
        fields, names = [], []
        for _ in range(min(count, 10000)):
            names.append(self.text("a blendshape's name"))
            field = self.matrix(f"the blendshape {names[-1]}")
            if field.size != N:
                if not strict:
                    return np.zeros((0, N // 3, 3), np.float32), ()
                raise ModelError(
                    f"{self.path}: expected {N} numbers of blendshape {names[-1]}, "
                    f"found {field.size}"
                )
            fields.append(field.reshape(-1, 3))
        fields = np.array(fields, np.float32).reshape(-1, N // 3, 3)
        return fields, tuple(names)

    def landmarks(self) -> dict[str, int]:
        if self.number("<B", "optional landmarks"):
            return {}
        found = {}
        for _ in range(min(self.number("<Q", "landmarks"), 100000)):
            name = self.text("a landmark's name")
            found[name] = self.number("<i", f"the landmark {name}")
        return found
