"""Download of face models whose licence allows it, checked against what they are known to hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from recon3d.errors import BackendUnavailable, InputError, ModelError
from recon3d.morphable.importers import ict, ict_pins
from recon3d.morphable.storage import models_home
from recon3d.progress import Callback

TIMEOUT = 30.0
"""Seconds without an answer after which a host counts as out of reach."""


@dataclass(frozen=True)
class Source:
    """A published model that may be downloaded.

    Attributes
    ----------
    name : str
    url : str
        Folder that the file names are relative to.
    licence, origin, citation : str
    megabytes : int
        Of the whole download.
    files : dict of str to str or None
        File name to SHA-256; None for files that `check` examines by content.
    folder : str
        What the importer is given, relative to the download.
    check : callable, (Path of the download, file name) -> None
        Raises `ModelError` if a file without SHA-256 does not hold what it should.
    """

    name: str
    url: str
    licence: str
    origin: str
    citation: str
    megabytes: int
    files: dict[str, str | None]
    folder: str
    check: Callable[[Path, str], None] = field(repr=False)

    @property
    def notice(self) -> str:
        """Licence, origin and citation, for people, to be shown before anything is fetched."""
        return (
            f"{self.name}: licence {self.licence}; {self.origin}; {len(self.files)} files, about "
            f"{self.megabytes} MB. Please cite: {self.citation}"
        )


def _check_ict(root: Path, name: str) -> None:
    neutral, kept = _neutral(root / "FaceXModel")
    found = ict.shape_digest(root / name, neutral, kept)
    wanted = ict_pins.SHAPES[Path(name).stem]
    if found != wanted:
        raise ModelError(f"{root / name}: expected a shape with digest {wanted}, found {found}")


_cache: dict = {}


def _neutral(folder: Path):
    stamp = (folder, (folder / "generic_neutral_mesh.obj").stat().st_mtime_ns)
    if _cache.get("stamp") != stamp:
        _cache.update(stamp=stamp, mesh=ict.neutral_mesh(folder))
    return _cache["mesh"]


SOURCES = {
    "ict-facekit": Source(
        name="ict-facekit",
        url="https://raw.githubusercontent.com/ICT-VGL/ICT-FaceKit/master/",
        licence=ict.LICENCE,
        origin=ict.ORIGIN,
        citation=ict.CITATION,
        megabytes=390,
        files={**ict_pins.FILES, **{f"FaceXModel/{n}.obj": None for n in ict_pins.SHAPES}},
        folder="FaceXModel",
        check=_check_ict,
    )
}


def source(name: str) -> Source:
    """The registered source of a name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise InputError(
            f"no model {name!r} can be downloaded (known: {known}); models under other licences "
            "are fetched by hand from their publishers and read by `recon3d model import PATH`"
        )
    return SOURCES[name]


def download(
    wanted: Source,
    *,
    url: str | None = None,
    home: Path | None = None,
    progress: Callback | None = None,
) -> Path:
    """Fetch a model's files; those that are already there and sound are not fetched again.

    Parameters
    ----------
    wanted : Source
    url : str, optional
        A mirror of the source's folder.
    home : Path, optional
        Where recon3d keeps its files; `models_home` by default.
    progress : callable, optional
        Called with the files done and their number.

    Returns
    -------
    Path
        What `import_model` reads.

    Raises
    ------
    BackendUnavailable
        If the host cannot be reached or does not have a file.
    ModelError
        If a file is not what it is known to be; it is removed.
    """
    import pooch

    base = url or wanted.url
    root = (home or models_home()) / "downloads" / wanted.name
    fetch = pooch.HTTPDownloader(progressbar=False, timeout=TIMEOUT)
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        for i, (name, sha256) in enumerate(wanted.files.items()):
            place = root / name
            try:
                pooch.retrieve(
                    base.rstrip("/") + "/" + name,
                    known_hash=None if sha256 is None else f"sha256:{sha256}",
                    fname=place.name,
                    path=place.parent,
                    downloader=fetch,
                )
            except ValueError as error:  # pooch: the hash does not match; nothing was kept
                raise ModelError(
                    f"{base.rstrip('/')}/{name}: not the file that is known ({_line(error)})"
                ) from error
            except OSError as error:  # requests' errors are of this kind
                raise BackendUnavailable(
                    f"{wanted.name} cannot be downloaded from {base}: {_line(error)}. What has "
                    "arrived is kept; try again, or fetch the folder by hand and run "
                    "`recon3d model import PATH`"
                ) from error
            if sha256 is None:
                try:
                    wanted.check(root, name)
                except ModelError:
                    place.unlink(missing_ok=True)
                    raise
            if progress:
                progress(i + 1, len(wanted.files))
    finally:
        logger.setLevel(level)
    return root / wanted.folder


def _line(error: Exception) -> str:
    """The gist of a network error: its innermost reason in one short line."""
    reason = error
    while getattr(reason, "args", None) and isinstance(reason.args[0], Exception):
        reason = reason.args[0]
    reason = getattr(reason, "reason", reason)
    text = " ".join(str(reason).split())
    return text if len(text) < 200 else text[:197] + "..."
