"""Store a lake's tables and manifests: in its own folder, or at an S3-compatible address (extra `s3`).

Either way the folder keeps what only its writer needs: lock, staged batch, index of the past, Data Docs. A remote lake
has one writing folder: `writer.json` names it, created by a conditional put (If-None-Match), as is every manifest, and
Delta's own commits are conditional puts too. So two machines that were pointed at one address cannot mix their batches:
the second is refused. Address and keys of the store come from the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and
so on), as every tool reads them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from infra.artifact import atomic_write
from infra.errors import CorruptArtifact, UserError
from infra.stored_model import Stored

_POINTER = "place.json"
_WRITER = "writer.json"


class Pointer(Stored):
    """What a lake's folder remembers of where its tables are."""

    url: str
    """Address below which tables and manifests are."""
    folder_id: str
    """Random name of this folder; `writer.json` at the address holds the name of the only one that may write."""


class LakeStorage(Protocol):
    """Where tables and manifests are."""

    @property
    def options(self) -> dict[str, str] | None:
        """What delta-rs and Polars need to know besides the environment."""

    def table(self, name: str) -> str:
        """Address of a Delta table."""

    def batches(self) -> list[int]:
        """Numbers of the manifests there are, ascending."""

    def read(self, batch: int) -> bytes:
        """Read one manifest."""

    def write(self, batch: int, manifest: str) -> None:
        """Put a manifest, whole. Doing it again with the same content changes nothing."""

    def drop_log(self, name: str, entries: Sequence[str]) -> None:
        """Delete entries of a table's log, by file name."""

    def log(self, name: str) -> list[str]:
        """File names in a table's log."""

    def fetch(self, folder: Path) -> None:
        """Copy whatever is not in the lake's own folder to `folder`, so that it can be searched."""


class LocalStorage:
    """The lake's own folder."""

    options: dict[str, str] | None = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def table(self, name: str) -> str:
        return str(self.path / name)

    def batches(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.path / "batches").glob("[0-9]*.json"))

    def read(self, batch: int) -> bytes:
        return (self.path / "batches" / f"{batch:08d}.json").read_bytes()

    def write(self, batch: int, manifest: str) -> None:
        atomic_write(self.path / "batches" / f"{batch:08d}.json", manifest)

    def log(self, name: str) -> list[str]:
        return [path.name for path in (self.path / name / "_delta_log").iterdir()]

    def drop_log(self, name: str, entries: Sequence[str]) -> None:
        for entry in entries:
            (self.path / name / "_delta_log" / entry).unlink()

    def fetch(self, folder: Path) -> None:
        pass


class ObjectStorage:
    """An address that fsspec and delta-rs both know (s3://bucket/folder)."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._path = self.url.partition("://")[2]
        self._opened: Any = None

    @property
    def options(self) -> dict[str, str] | None:
        endpoint = os.environ.get("AWS_ENDPOINT_URL")
        if endpoint is None:
            return {}
        return {"aws_endpoint_url": endpoint, "aws_allow_http": str(endpoint.startswith("http://")).lower()}

    def table(self, name: str) -> str:
        return f"{self.url}/{name}"

    def batches(self) -> list[int]:
        names: list[str] = []
        with self._translated_errors("list"), suppress(FileNotFoundError):
            names = self._files.ls(f"{self._path}/batches", detail=False)
        return sorted(int(Path(name).stem) for name in names if Path(name).stem.isdecimal())

    def read(self, batch: int) -> bytes:
        return self._get(f"batches/{batch:08d}.json")

    def write(self, batch: int, manifest: str) -> None:
        name = f"batches/{batch:08d}.json"
        if not self._create(name, manifest.encode()) and self._get(name) != manifest.encode():
            raise CorruptArtifact(
                f"{self.url}/{name} was written by somebody else since this ingest began; one lake has one writer: "
                "stop the other one, and run ingest again"
            )

    def log(self, name: str) -> list[str]:
        with self._translated_errors("list"):
            return [Path(n).name for n in self._files.ls(f"{self._path}/{name}/_delta_log", detail=False)]

    def drop_log(self, name: str, entries: Sequence[str]) -> None:
        with self._translated_errors("delete from"):
            for entry in entries:
                self._files.rm_file(f"{self._path}/{name}/_delta_log/{entry}")

    def fetch(self, folder: Path) -> None:
        with self._translated_errors("read"):
            self._files.get(self._path, str(folder), recursive=True)

    def claim(self, folder_id: str) -> None:
        """Become the only folder that writes here, or see that it is so already.

        Raises:
            UserError: another folder writes here, or the store cannot be reached.
        """
        if self._create(_WRITER, folder_id.encode()):
            return
        held = self._get(_WRITER).decode()
        if held != folder_id:
            raise UserError(
                f"the lake at {self.url} is written by another lake folder ({held}, this one is {folder_id}); ingest "
                "there, or give this pipeline an address of its own in places.lake_url"
            )

    def _create(self, name: str, content: bytes) -> bool:
        """Put a new object; False if there is one already. The store decides, so there is no race."""
        with self._translated_errors("write to"):
            try:
                self._files.pipe_file(f"{self._path}/{name}", content, mode="create")
            except FileExistsError:
                return False
        return True

    def _get(self, name: str) -> bytes:
        with self._translated_errors("read"):
            content: bytes = self._files.cat_file(f"{self._path}/{name}")
        return content

    @property
    def _files(self) -> Any:
        if self._opened is None:
            import fsspec

            self._opened = fsspec.filesystem(
                self.url.partition("://")[0], use_listings_cache=False, skip_instance_cache=True
            )
        return self._opened

    @contextmanager
    def _translated_errors(self, verb: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the store's client calls it: botocore's are no OSErrors
            raise UserError(
                f"cannot {verb} the lake at {self.url}: {error}; mend places.lake_url, the AWS_ variables of the "
                "environment, or install the extra `s3`"
            ) from error


def storage_of(folder: Path, url: str | None = None) -> LakeStorage:
    """Return where the lake of this folder is: as it was settled once, or else as `url` says.

    Raises:
        UserError: the folder's lake is somewhere else than `url`.
    """
    known = _known(folder)
    if known is None:
        return ObjectStorage(url) if url else LocalStorage(folder)
    if url is not None and known.url.rstrip("/") != url.rstrip("/"):
        raise UserError(f"the lake of {folder} is at {known.url}, but places.lake_url says {url}; put the old one back")
    return ObjectStorage(known.url)


def claim_storage(folder: Path, url: str | None) -> None:
    """Claim a lake before anything is written: a remote one gets its only writer, and the folder remembers where it is.

    Raises:
        UserError: the folder has a lake of its own already, or another folder writes at `url`.
    """
    known = _known(folder)
    if url is None and known is None:
        return
    if known is None:
        assert url is not None
        if LocalStorage(folder).batches():
            raise UserError(
                f"places.lake_url says {url}, but {folder} holds a lake already; take the line out, or give the "
                "pipeline a new `home` and import its feedback there"
            )
        known = Pointer(url=url.rstrip("/"), folder_id=secrets.token_hex(8))
        atomic_write(folder / _POINTER, known.model_dump_json() + "\n")
    ObjectStorage(known.url).claim(known.folder_id)


def _known(folder: Path) -> Pointer | None:
    file = folder / _POINTER
    return Pointer.model_validate_json(file.read_bytes()) if file.exists() else None
