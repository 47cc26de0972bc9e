"""Put the expectations' table on Spark (extra `spark`), where one process on pandas is too small for it.

Without SPARK_REMOTE or a `spark_master` of its own the session is local, on loopback, with its web page off.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from infra.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {"turns": "bigint", "trusted": "boolean", "weight": "double", "created_at": "timestamp"}
"""Columns that are not text. Said, not inferred: a column without any value has no type that Spark could see."""


@contextmanager
def spark_frame(frame: pd.DataFrame, master: str) -> Iterator[Any]:
    """Open `frame` as a Spark DataFrame, kept in memory while expectations look at it.

    Raises:
        UserError: pyspark is not installed, or no session could be had (Java 17 is needed where the session is local).
    """
    schema = ", ".join(f"`{column}` {_TYPES.get(str(column), 'string')}" for column in frame.columns)
    table = _session(master).createDataFrame(frame, schema=schema).cache()
    try:
        yield table
    finally:
        table.unpersist()


def require_spark() -> None:
    """Check that pyspark is installed.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("pyspark") is None:
        raise UserError(
            "ingest.expectations.engine is spark, but pyspark is not installed; install the extra: "
            "pip install 'ratchet[spark]'"
        )


def _session(master: str) -> Any:
    """The running session, or a new one."""
    require_spark()
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("ratchet")
    if not os.environ.get("SPARK_REMOTE"):
        builder = builder.master(master).config("spark.ui.enabled", "false")
        builder = builder.config("spark.ui.showConsoleProgress", "false").config("spark.log.level", "ERROR")
        if master.startswith("local"):
            builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    settings = {"spark.sql.execution.arrow.pyspark.enabled": "true", "spark.sql.session.timeZone": "UTC"}
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        return builder.getOrCreate()
    except Exception as error:  # the JVM's own words, whatever class they come as
        raise UserError(
            f"no Spark session at {os.environ.get('SPARK_REMOTE') or master}: {error}; a local one needs Java 17, "
            "another is named by ingest.expectations.spark_master or SPARK_REMOTE"
        ) from error
