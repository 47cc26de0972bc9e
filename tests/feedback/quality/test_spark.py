"""The suite on Spark says what it says on pandas (`make test-spark`)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from feedback.ingest.run import IngestConfig, run_ingest
from feedback.quality.expectations import ExpectationError, refused_by_suite
from feedback.quality.suite import ExpectationsConfig
from infra.errors import UserError
from tests.feedback.quality.test_expectations import example, one
from tests.feedback.world import fill, make_lake, make_store

ON_SPARK = {"engine": "spark", "spark_master": "local[1]"}
has_spark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None, reason="pyspark is not here (make test-spark)"
)


@has_spark
@pytest.mark.slow
def test_spark_finds_what_pandas_finds(tmp_path: Path) -> None:
    rows = [
        example(1),
        example(2, completion="<script>alert(1)</script>"),
        example(3, completion="z" * 300),
        example(4, shape="document", completion=None, messages=[], text="too short"),
        example(5, messages=[{"role": "assistant", "content": "I speak last"}]),
    ]
    on_pandas = refused_by_suite(rows, ExpectationsConfig(), None)
    assert len(on_pandas) == 4
    assert refused_by_suite(rows, ExpectationsConfig.model_validate(ON_SPARK), tmp_path / "docs") == on_pandas
    assert (tmp_path / "docs" / "index.html").exists()


@has_spark
@pytest.mark.slow
def test_spark_stops_and_errors_as_pandas_does() -> None:
    def on_spark(expectation: str, arguments: dict[str, object], severity: str) -> ExpectationsConfig:
        return one(expectation, arguments, severity).model_copy(update=ON_SPARK)

    between = {"column": "weight", "min_value": 5}
    with pytest.raises(ExpectationError, match="nothing was taken"):
        refused_by_suite([example(1)], on_spark("ExpectColumnValuesToBeBetween", between, "stop"), None)
    with pytest.raises(ExpectationError, match="could not be evaluated"):
        refused_by_suite(
            [example(1)], on_spark("ExpectColumnValuesToNotBeNull", {"column": "nowhere"}, "quarantine"), None
        )


@has_spark
@pytest.mark.slow
def test_an_ingest_on_spark_makes_the_same_lake(tmp_path: Path) -> None:
    store, lakes = make_store(tmp_path), (make_lake(tmp_path / "a"), make_lake(tmp_path / "b"))
    fill(store, tickets=30)
    for lake, engine in zip(lakes, ({}, ON_SPARK), strict=True):
        run_ingest(store, lake, (), IngestConfig(expectations=ExpectationsConfig.model_validate(engine)))
    assert lakes[0].examples() == lakes[1].examples() != []


@pytest.mark.skipif(not has_spark.args[0], reason="pyspark is here")
def test_without_spark_the_suite_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"pip install 'ratchet\[spark\]'"):
        refused_by_suite([example(1)], ExpectationsConfig.model_validate(ON_SPARK), None)
