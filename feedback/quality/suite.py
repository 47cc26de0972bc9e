"""Configure the expectations that accepted rows must meet: the built-in suite, and how to replace or extend it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, JsonValue, model_validator

from feedback.examples import Shape
from infra.settings import Config


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
