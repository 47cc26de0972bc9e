"""List and open files by path or pattern: on this machine, or at an S3-compatible address by fsspec (extra `s3`).

Keys to a store come from the environment, as the store's own tools read them (AWS_ACCESS_KEY_ID and so on).
"""

from __future__ import annotations

import glob
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from infra.errors import UserError


@dataclass(frozen=True)
class StoredFile:
    """One file, as it was when it was listed."""

    address: str
    """Absolute path, or URL."""
    name: str
    """Its last part."""
    size: int
    """Bytes."""
    state: list[Any]
    """Changes when the content does: size with modification time, or with the store's tag of the content."""
    modified: datetime
    """When it was written last (UTC)."""
    system: Any
    """The fsspec file system it is on; None for this machine's own."""
    path: str
    """Its name there."""

    def open(self) -> IO[bytes]:
        """Open the file's bytes; can seek."""
        if self.system is None:
            return Path(self.path).open("rb")
        return cast("IO[bytes]", io.BufferedReader(self.system.open(self.path, "rb")))


def stored_files(patterns: Sequence[str], *, endpoint_url: str | None = None) -> list[StoredFile]:
    """List every file that a pattern matches, once, in the order of their addresses.

    Raises:
        UserError: a plain name does not exist, or an address cannot be reached.
    """
    listed: dict[str, StoredFile] = {}
    for pattern in patterns:
        files = _remote(pattern, endpoint_url) if "://" in pattern else _local(pattern)
        if not files and not glob.has_magic(pattern):
            raise UserError(f"feedback file {pattern} does not exist; mend `paths` of the source")
        listed |= {file.address: file for file in files}
    return [listed[address] for address in sorted(listed)]


def _local(pattern: str) -> list[StoredFile]:
    paths = [Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True)]  # noqa: PTH207
    files = []
    for path in (p.absolute() for p in paths if p.is_file()):
        stat = path.stat()
        at = datetime.fromtimestamp(stat.st_mtime, UTC)
        files.append(
            StoredFile(str(path), path.name, stat.st_size, [stat.st_size, stat.st_mtime_ns], at, None, str(path))
        )
    return files


def _remote(pattern: str, endpoint_url: str | None) -> list[StoredFile]:
    import fsspec

    scheme = pattern.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False} if scheme in ("s3", "s3a") else {}
    if endpoint_url is not None:
        options["endpoint_url"] = endpoint_url
    try:
        system, path = fsspec.core.url_to_fs(pattern, **options)
        names = system.glob(path) if glob.has_magic(pattern) else [path] if system.exists(path) else []
        facts = [(name, system.info(name)) for name in names]
    except Exception as error:  # whatever the store's client calls it: botocore's are no OSErrors
        raise UserError(
            f"cannot list {pattern}: {error}; mend `paths`, the keys in the environment, or the extra"
        ) from error
    return [_of_info(scheme, name, info, system) for name, info in facts if info.get("type") == "file"]


def _of_info(scheme: str, name: str, info: dict[str, Any], system: Any) -> StoredFile:
    at = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(at, int | float):
        at = datetime.fromtimestamp(at, UTC)
    if not isinstance(at, datetime):
        at = datetime.now(UTC)
    modified = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    state = [info["size"], str(info.get("ETag") or modified.isoformat())]
    return StoredFile(
        f"{scheme}://{name.lstrip('/')}", name.rpartition("/")[2], info["size"], state, modified, system, name
    )
