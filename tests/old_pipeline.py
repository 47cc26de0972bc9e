"""The small pipeline of Ratchet 0.1.0 that tests/fixtures/write_59abc90.py wrote, laid out in a folder."""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import yaml

from tests.flows.world import free_ports
from tests.postgres import find_binaries

FIXTURE = Path(__file__).parent / "fixtures" / "59abc90"
SALT = "salt-of-a-test"


def lay_out(folder: Path) -> Path:
    """Unpack it, with its SQLite database; returns its config file, which names free ports."""
    with tarfile.open(FIXTURE / "pipeline.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    with closing(sqlite3.connect(folder / "home" / "ratchet.db")) as connection:
        connection.executescript(gzip.decompress((FIXTURE / "sqlite.sql.gz").read_bytes()).decode())
    file = folder / "ratchet.yaml"
    values = yaml.safe_load(file.read_text())
    values["base_model"] = str(folder / "base")
    ports = dict(zip(("gateway_port", "engine_port", "prefect_port", "mlflow_port"), free_ports(4), strict=True))
    values["places"] |= {"cache": str(folder / "cache"), **ports}
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def load_into_postgres(url: str) -> None:
    """Put the same rows into an empty Postgres database."""
    binaries = find_binaries()
    assert binaries is not None
    dump = gzip.decompress((FIXTURE / "postgres.sql.gz").read_bytes())
    command = [str(binaries / "psql"), "--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", url.replace("+psycopg", "")]
    subprocess.run(command, input=dump, check=True, capture_output=True, env={**os.environ, "PGOPTIONS": ""})
