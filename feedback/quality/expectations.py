"""Evaluate a great-expectations suite over a batch of examples.

Each expectation of the suite (suite.py) has a severity. `quarantine` keeps the rows that break it out of the lake;
`stop` ends the run (nothing of the batch is taken). An expectation that *errors* says neither good nor bad of the data:
it ends the run too. Data Docs are written to a folder. Nothing is sent anywhere: analytics are switched off before the
first call.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from feedback.examples import Example, Shape
from feedback.quality.data_docs import write_docs
from feedback.quality.spark import require_spark, spark_frame
from feedback.quality.suite import DEFAULT_SUITE, ExpectationsConfig, ExpectationSpec
from infra.errors import RatchetError, UserError

if TYPE_CHECKING:
    import pandas as pd


class ExpectationError(RatchetError):
    """An expectation that stops the run was broken, or one could not be evaluated. Nothing of the batch was taken."""

    docs: Path | None = None
    """Data Docs of the batch, where they were made."""


_COLUMNS = (
    "example_id", "tenant", "shape", "prompt", "response", "rejected", "reference", "grader", "turns", "last_role",
    "group", "user", "task", "trusted", "weight", "reason", "version", "created_at",
)  # fmt: skip


_MADE: Mapping[str, Callable[[Example], str | int]] = {
    "prompt": lambda e: "\n".join([m.content for m in e.messages]),
    "response": lambda e: response_of(e),
    "turns": lambda e: len(e.messages),
    "last_role": lambda e: e.messages[-1].role if e.messages else "none",
}


def frame_of(examples: Sequence[Example], columns: Sequence[str] = _COLUMNS) -> pd.DataFrame:
    """Make the table of examples: the columns that expectations may name."""
    import pandas as pd

    fields = [vars(e) for e in examples]
    return pd.DataFrame(
        {
            name: [_MADE[name](e) for e in examples] if name in _MADE else [row[name] for row in fields]
            for name in columns
        }
    )


def _columns_named(config: ExpectationsConfig) -> list[str]:
    """The columns that a suite can look at: great-expectations hashes and filters each that it is given.

    Those that its arguments name, conditions on rows included; all of them where an expectation is of the whole table.
    """
    if any(not spec.expectation.startswith("ExpectColumn") for spec in config.every):
        return list(_COLUMNS)
    arguments = json.dumps([dict(spec.arguments) for spec in config.every])
    return [name for name in _COLUMNS if name in ("example_id", "shape") or name in arguments]


def response_of(example: Example) -> str:
    """Return what the row teaches: completion, chosen answer, reference, or a document's text."""
    return example.completion or example.chosen or example.reference or example.text or ""


@dataclass(frozen=True)
class Finding:
    """What one expectation says of a batch."""

    spec: ExpectationSpec
    met: bool
    """Whether the table as a whole meets it."""
    rows: tuple[str, ...]
    """Example ids of the rows that break it; none where it is not about rows."""
    error: str | None
    """Why it could not be evaluated: then it says nothing of the data."""

    @property
    def stops(self) -> bool:
        """Whether it ends an ingest: rows that can be named are held instead, where that is its severity."""
        return self.error is not None or (not self.met and not (self.spec.severity == "quarantine" and self.rows))

    @property
    def trouble(self) -> str:
        """In a few words; nothing where it is met."""
        if self.error is not None:
            return f"cannot be evaluated: {self.error}"
        return "" if self.met else "stops the ingest" if self.stops else "rows would be held"


def refused_by_suite(
    examples: Sequence[Example], config: ExpectationsConfig, docs: Path | None
) -> dict[str, tuple[str, str]]:
    """Return (code, detail) by example id of the rows that break an expectation of severity quarantine.

    Data Docs go to `docs`, if given.

    Raises:
        ExpectationError: an expectation of severity stop is broken, or one errored.
        UserError: the suite names an expectation or argument that does not exist.
    """
    if not config.enabled or not examples or not config.every:
        return {}
    refused: dict[str, tuple[str, str]] = {}
    broken: list[str] = []
    for finding in evaluate_suite(examples, config, docs if config.data_docs else None):
        spec = finding.spec
        if finding.error is not None:
            raise ExpectationError(
                f"expectation {spec.name} ({spec.expectation}) could not be evaluated: {finding.error}; that says "
                "nothing of the data, so nothing was taken: mend the expectation and run again"
            )
        if finding.met:  # rows may break it all the same: as many as its `mostly` lets pass
            continue
        if spec.severity == "quarantine" and finding.rows:
            for example_id in finding.rows:
                refused.setdefault(example_id, (f"expectation:{spec.name}", _why(spec)))
        else:
            who = f"{len(finding.rows)} rows break it" if finding.rows else "the table as a whole breaks it"
            broken.append(f"{spec.name}: {_why(spec)} ({who})")
    if broken:
        raise ExpectationError(
            "the data break expectations that stop the run, so nothing was taken: " + " | ".join(broken)
        )
    return refused


def evaluate_suite(examples: Sequence[Example], config: ExpectationsConfig, docs: Path | None) -> list[Finding]:
    """Evaluate every expectation on the examples. Data Docs go to `docs`, if given.

    Raises:
        UserError: the suite names an expectation or argument that does not exist.
    """
    # On a stack of its own, which ends with what is handed over: great-expectations keeps exceptions whose frames would
    # hold everything that its callers hold, the whole batch, until the next search for cycles.
    with ThreadPoolExecutor(1) as apart:
        results = apart.submit(_run, [examples], config, docs).result()
    return [_finding(spec, result) for spec, result in results]


def validate_suite(config: ExpectationsConfig) -> None:
    """Evaluate a suite of one's own on rows made up here, so that a mistake in it is found before a night finds it.

    Raises:
        UserError: it names what does not exist, or cannot be evaluated.
    """
    if not config.enabled or config.every == DEFAULT_SUITE:
        return
    made = {"tenant": "t", "subject": "s", "group": "g", "user": "u", "task": "t", "reason": "r", "version": "v"}
    rows = [
        Example.model_validate(
            {
                **made,
                "example_id": f"x-{shape}",
                "shape": shape,
                "messages": [] if shape == "document" else [{"role": "user", "content": "a question"}],
                **dict.fromkeys(("completion", "chosen", "rejected", "reference", "grader", "text"), "an answer"),
                "created_at": "2026-01-01T00:00:00Z",
            }
        )
        for shape in get_args(Shape)
    ]
    try:
        results = evaluate_suite(rows, config.model_copy(update={"engine": "pandas"}), None)
    except ExpectationError as error:
        raise UserError(f"ingest.expectations: {error}") from error
    if wrong := [f"{one.spec.name} ({one.spec.expectation}): {one.error}" for one in results if one.error is not None]:
        raise UserError("ingest.expectations: cannot be evaluated, mend or drop: " + " | ".join(wrong))


def _finding(spec: ExpectationSpec, result: Any) -> Finding:
    info = result.exception_info or {}
    errors = [info] if "raised_exception" in info else [v for v in info.values() if isinstance(v, dict)]
    raised = [str(e.get("exception_message")) for e in errors if e.get("raised_exception")]
    rows = tuple(str(row["example_id"]) for row in result.result.get("unexpected_index_list") or [])
    return Finding(spec, bool(result.success), rows, "; ".join(raised) if raised else None)


def _why(spec: ExpectationSpec) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in spec.arguments.items())
    return f"{spec.expectation}({arguments})"


def disable_analytics() -> None:
    """Keep great-expectations from calling home; must run before its first import."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"


def _run(
    handed: list[Sequence[Example]], config: ExpectationsConfig, docs: Path | None
) -> list[tuple[ExpectationSpec, Any]]:
    """Results by expectation for the examples that `handed` holds; they are taken out of it."""
    disable_analytics()
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # what it logs with a traceback is told by us
    import great_expectations as gx
    import great_expectations.expectations as classes
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.row_conditions import Column

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    suite = context.suites.add(gx.ExpectationSuite(name="feedback"))
    by_id: dict[str, ExpectationSpec] = {}
    for spec in config.every:
        build = getattr(classes, spec.expectation, None)
        if build is None:
            raise UserError(
                f"expectation {spec.name}: great_expectations has no {spec.expectation!r}; see its gallery for names"
            )
        arguments: dict[str, Any] = dict(spec.arguments)
        if spec.shapes:
            arguments["row_condition"] = Column("shape").is_in(list(spec.shapes))
        try:
            expectation = suite.add_expectation(build(**arguments, notes=spec.name))
        except (TypeError, ValueError) as error:
            why = " ".join(str(error).split())
            raise UserError(f"expectation {spec.name} ({spec.expectation}) does not take {arguments}: {why}") from error
        by_id[expectation.id] = spec
    if config.engine == "spark":
        require_spark()
    sources = context.data_sources
    source: Any = sources.add_spark("examples") if config.engine == "spark" else sources.add_pandas("examples")
    batch = source.add_dataframe_asset("batch").add_batch_definition_whole_dataframe("all")
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="batch", data=batch, suite=suite))
    checkpoint = gx.Checkpoint(
        name="batch",
        validation_definitions=[definition],
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["example_id"],
            "return_unexpected_index_query": False,
        },
    )
    saved = context.checkpoints.add(checkpoint)
    with _table(handed.pop(), config) as table, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*has match groups", category=UserWarning)  # pandas, of any group
        try:
            ((name, run),) = saved.run(batch_parameters={"dataframe": table}).run_results.items()
            if docs is not None:
                write_docs(context, suite, name, run, docs)
        except Exception as error:
            raise ExpectationError(
                f"great-expectations broke off ({type(error).__name__}: {error}), which says nothing of the data, so "
                "nothing was taken; leave out the expectation that was added last, or say the same by another one"
            ) from error
    results: list[ExpectationValidationResult] = run.results
    return [(by_id[result.expectation_config.id], result) for result in results]


@contextmanager
def _table(examples: Sequence[Example], config: ExpectationsConfig) -> Iterator[Any]:
    """The rows as the engine wants them, for as long as it looks."""
    import pandas as pd

    # pandas' arrow strings are matched by RE2, which lacks parts of Python's regular expressions.
    with pd.option_context("mode.string_storage", "python"):
        frame = frame_of(examples, _columns_named(config))
        if config.engine == "pandas":
            yield frame
            return
        with spark_frame(frame, config.spark_master) as table:
            yield table
