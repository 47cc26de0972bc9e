"""The small pipeline of Ratchet 0.1.0 that tests/fixtures/write_59abc90.py wrote, laid out in a folder."""

from __future__ import annotations

import gzip
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import yaml

from infra.database.connect import connect
from tests.flows.world import free_ports

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
    dump = gzip.decompress((FIXTURE / "postgres.sql.gz").read_bytes()).decode()
    statements = "\n".join(line for line in dump.splitlines() if not line.startswith("\\"))  # for psql only
    engine = connect(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statements.replace("%", "%%"))
    engine.dispose()
