"""A real Postgres for tests: a throw-away cluster of Debian's binaries, on loopback, one empty database a test.

    def test_x(postgres_url: str) -> None: ...            an empty database of its own
    def test_y(postgres_server: Postgres) -> None: ...    the server too, to stop, start and freeze it

Postgres refuses to run as root, so root runs it as the user `postgres`. Where the binaries are missing the tests are
skipped and say so; `make system` installs them.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_USER = "ratchet"


class Postgres:
    """One cluster. `url` stays the same over `stop` and `start`."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder = binaries, folder
        self.password = secrets.token_hex(16)
        self.port = _free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the maintenance database."""
        return self._url("postgres")

    def create(self) -> None:
        """Make the cluster's files. Nothing of it needs to survive a power cut."""
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        word = self.folder / "password"
        word.write_text(self.password)
        word.chmod(0o644)  # for initdb's user; the folder itself is closed
        options = ["--username", _USER, "--pwfile", str(word), "--auth", "scram-sha-256", "--encoding", "UTF8"]
        command = [str(self.binaries / "initdb"), "-D", str(self._data), "--no-sync", "--locale", "C", *options]
        subprocess.run([*_as_postgres(), *command], cwd=self.folder, check=True, capture_output=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "60",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = [str(self.binaries / "postgres"), "-D", str(self._data), *options]
        with (self.folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen([*_as_postgres(), *command], cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                self._execute("SELECT 1")
                return
            except Exception:  # not there yet
                if self._server.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError(f"Postgres did not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def stop(self) -> None:
        """Shut down at once; clients lose their connections."""
        if self._server is not None:
            self._server.send_signal(2)  # SIGINT: fast shutdown
            self._server.wait(60)
            self._server = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still: connections stay open, and nobody answers on them."""
        assert self._server is not None
        parent = self._server.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        pids = [parent, *(int(child) for child in children)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def new_database(self) -> str:
        """SQLAlchemy URL of a new, empty database."""
        name = f"test{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://{_USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def _execute(self, statement: str) -> None:
        from sqlalchemy import create_engine, text

        engine = create_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    @property
    def _data(self) -> Path:
        return self.folder / "data"


def find_binaries() -> Path | None:
    """Folder of the newest installed server's programs."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).parent
    installed = [folder for folder in _DEBIAN.glob("*/bin") if (folder / "initdb").exists()]
    return max(installed, key=lambda folder: float(folder.parent.name), default=None)


def _as_postgres() -> list[str]:
    """What goes before a command: another user if we are root, and an end when the tests end however they end."""
    if shutil.which("setpriv") is None:
        return []
    user = ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.getuid() == 0 else []
    return ["setpriv", *user, "--pdeathsig", "QUIT"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A running server for the whole session; a test that stops it starts it again."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("NO POSTGRES HERE, this is not tested: install Debian's postgresql (`make system` does, as root)")
    # Not in tmp_path: pytest closes its folders to every other user, and Postgres must be another one than root.
    with tempfile.TemporaryDirectory(prefix="ratchet-postgres-") as folder:
        server = Postgres(binaries, Path(folder))
        server.create()
        server.start()
        yield server
        server.stop()


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> str:
    """SQLAlchemy URL of an empty database on a real Postgres."""
    return postgres_server.new_database()
