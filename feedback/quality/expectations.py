"""A great-expectations suite over a batch of examples, read from config, so that a data person can extend it.

Each expectation has a severity. `quarantine` keeps the rows that break it out of the lake; `stop` ends the run
(nothing of the batch is taken). An expectation that *errors* says neither good nor bad of the data: it ends the run
too. Data Docs are written to a folder. Nothing is sent anywhere: analytics are switched off before the first call.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, JsonValue, model_validator

from feedback.examples import Example, Shape
from feedback.quality.data_docs import write_docs
from feedback.quality.spark import require_spark, spark_frame
from infra.errors import RatchetError, UserError
from infra.settings import Config

if TYPE_CHECKING:
    import pandas as pd


class ExpectationSpec(Config):
    """One expectation of great-expectations, on the columns of `frame_of`."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    """Reason that quarantined rows carry."""
    expectation: str
    """Class of great_expectations.expectations, such as ExpectColumnValueLengthsToBeBetween."""
    arguments: Mapping[str, JsonValue] = {}
    """Its arguments, such as column, min_value, max_value, regex, mostly."""
    severity: Literal["quarantine", "stop"] = "quarantine"
    """What a breach does: hold the rows, or stop the whole run."""
    shapes: tuple[Shape, ...] = ()
    """Shapes it looks at; none means all."""


_ANSWERED: tuple[Shape, ...] = ("completion", "preference", "problem")
DEFAULT_SUITE: tuple[ExpectationSpec, ...] = (
    ExpectationSpec(
        name="example-id-unique",
        expectation="ExpectColumnValuesToBeUnique",
        arguments={"column": "example_id"},
        severity="stop",
    ),
    ExpectationSpec(
        name="group-known",
        expectation="ExpectColumnValuesToNotBeNull",
        arguments={"column": "group"},
        severity="stop",
    ),
    ExpectationSpec(
        name="prompt-length",
        expectation="ExpectColumnValueLengthsToBeBetween",
        arguments={"column": "prompt", "min_value": 1, "max_value": 50_000},
        shapes=("completion", "preference", "rated", "problem"),
    ),
    ExpectationSpec(
        name="answer-length",
        expectation="ExpectColumnValueLengthsToBeBetween",
        arguments={"column": "response", "min_value": 1, "max_value": 20_000},
        shapes=_ANSWERED,
    ),
    ExpectationSpec(
        name="last-turn-not-assistant",
        expectation="ExpectColumnValuesToBeInSet",
        arguments={"column": "last_role", "value_set": ["user", "tool", "system"]},
        shapes=("completion", "preference", "rated", "problem"),
    ),
    ExpectationSpec(
        name="answer-is-not-markup",
        expectation="ExpectColumnValuesToNotMatchRegex",
        arguments={"column": "response", "regex": r"(?is)<script\b|<iframe\b|<\|im_(start|end)\|>|javascript:"},
        shapes=_ANSWERED,
    ),
    ExpectationSpec(
        name="answer-is-not-noise",
        expectation="ExpectColumnValuesToNotMatchRegex",
        arguments={"column": "response", "regex": r"(?s)(.)\1{199}"},
        shapes=_ANSWERED,
    ),
    ExpectationSpec(
        name="document-length",
        expectation="ExpectColumnValueLengthsToBeBetween",
        arguments={"column": "response", "min_value": 20},
        shapes=("document",),
    ),
)


class ExpectationsConfig(Config):
    """What accepted rows must be like."""

    enabled: bool = True
    """Whether the suite runs."""
    engine: Literal["pandas", "spark"] = "pandas"
    """What computes it: pandas in this process, or Spark (extra `spark`) where one process is too small. Regular
    expressions are Python's or Java's accordingly."""
    spark_master: str = "local[*]"
    """Spark's master, where SPARK_REMOTE does not name a server: this machine's cores, or an address of a cluster."""
    suite: tuple[ExpectationSpec, ...] = DEFAULT_SUITE
    """The suite. Giving one replaces the built-in suite."""
    also: tuple[ExpectationSpec, ...] = ()
    """Expectations beside those of the suite: the way to add one and keep the built-in ones."""
    data_docs: bool = True
    """Whether to write Data Docs (about 4 MB a batch)."""
    keep_docs: int = Field(default=10, ge=1)
    """How many batches' Data Docs are kept."""

    @model_validator(mode="after")
    def _names_once(self) -> ExpectationsConfig:
        names = Counter(spec.name for spec in self.every)
        if twice := sorted(name for name, count in names.items() if count > 1):
            raise ValueError(
                f"two expectations are named {twice[0]!r}; the name is the reason rows carry: give it once"
            )
        return self

    @property
    def every(self) -> tuple[ExpectationSpec, ...]:
        """Suite and additions."""
        return (*self.suite, *self.also)


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
    """One row an example: the columns that expectations may name."""
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
    said = json.dumps([dict(spec.arguments) for spec in config.every])
    return [name for name in _COLUMNS if name in ("example_id", "shape") or name in said]


def response_of(example: Example) -> str:
    """What the row teaches: completion, chosen answer, reference, or a document's text."""
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
    """(code, detail) by example id of the rows that break an expectation of severity quarantine.

    Data Docs go to `docs`, if given.

    Raises:
        ExpectationError: an expectation of severity stop is broken, or one errored.
        UserError: the suite names an expectation or argument that does not exist.
    """
    if not config.enabled or not examples or not config.every:
        return {}
    refused: dict[str, tuple[str, str]] = {}
    broken: list[str] = []
    for found in evaluate_suite(examples, config, docs if config.data_docs else None):
        spec = found.spec
        if found.error is not None:
            raise ExpectationError(
                f"expectation {spec.name} ({spec.expectation}) could not be evaluated: {found.error}; that says "
                "nothing of the data, so nothing was taken: mend the expectation and run again"
            )
        if found.met:  # rows may break it all the same: as many as its `mostly` lets pass
            continue
        if spec.severity == "quarantine" and found.rows:
            for example_id in found.rows:
                refused.setdefault(example_id, (f"expectation:{spec.name}", _why(spec)))
        else:
            who = f"{len(found.rows)} rows break it" if found.rows else "the table as a whole breaks it"
            broken.append(f"{spec.name}: {_why(spec)} ({who})")
    if broken:
        raise ExpectationError(
            "the data break expectations that stop the run, so nothing was taken: " + " | ".join(broken)
        )
    return refused


def evaluate_suite(examples: Sequence[Example], config: ExpectationsConfig, docs: Path | None) -> list[Finding]:
    """What every expectation says of the examples. Data Docs go to `docs`, if given.

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
        found = evaluate_suite(rows, config.model_copy(update={"engine": "pandas"}), None)
    except ExpectationError as error:
        raise UserError(f"ingest.expectations: {error}") from error
    if wrong := [f"{one.spec.name} ({one.spec.expectation}): {one.error}" for one in found if one.error is not None]:
        raise UserError("ingest.expectations: cannot be evaluated, mend or drop: " + " | ".join(wrong))


def _finding(spec: ExpectationSpec, result: Any) -> Finding:
    said = result.exception_info or {}
    errors = [said] if "raised_exception" in said else [v for v in said.values() if isinstance(v, dict)]
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
