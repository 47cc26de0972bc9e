"""Install a package of somebody else's, with one extension of each kind, into a folder as pip would leave it."""

from __future__ import annotations

from pathlib import Path

from infra import registry
from tools.reference.extensions import registries

PACKAGE = "greetings"
NAME = "greeting"
"""Of each extension, where nothing else fits the kind."""

EXTENSIONS: dict[str, tuple[str, str]] = {
    "file_formats": (
        NAME,
        """
from feedback.formats import Cells, Row


def recognises(row: Row) -> bool:
    return row.get("form") == "greeting/1"


def rows(row: Row, *, scale: float = 5) -> list[Cells]:
    said = {"prompt": row["hello"], "reference": row["reply"], "grader": "greeting"}
    return [{**said, "user": row["from"], "session": row["from"]}]
""",
    ),
    "objectives": (
        NAME,
        """
from dataclasses import replace

from training.objectives import OBJECTIVES


def loss(scored, options):
    total, sums = OBJECTIVES["sft"].loss(scored, options)
    return 0.5 * total, sums


OBJECTIVE = replace(
    OBJECTIVES["sft"], name="greeting", summary="sft, half as loud", loss=loss, shapes=("problem", "completion")
)
""",
    ),
    "tuners": (
        NAME,
        """
from dataclasses import replace

from training.tuners import TUNERS

TUNER = replace(TUNERS["lora"], name="greeting", summary="LoRA under another name")
""",
    ),
    "graders": (
        NAME,
        """
from training.graders import Grader


def grade(answer: str, reference: str) -> float:
    return float(answer.strip()[:1] == reference.strip()[:1])


GRADER = Grader("greeting", "begins with the same letter", grade)
""",
    ),
    "metrics": (
        NAME,
        """
from evaluation.metrics import Metric, MetricInput


def score(item: MetricInput) -> float | None:
    return float(len(item.answer))


METRIC = Metric("greeting", "neutral", False, "Letters of the answer.", score)
""",
    ),
    "judges": (
        NAME,
        """
from evaluation.judges import JUDGES

CONFIG = JUDGES["reference"].CONFIG


def build(config, cache_dir, reward_model):
    return JUDGES["reference"].build(config, cache_dir, reward_model)
""",
    ),
    "sources": (
        NAME,
        """
from feedback.sources import SOURCES

Options = SOURCES["files"].Options
read = SOURCES["files"].read
""",
    ),
    "serving_engines": (
        NAME,
        """
from dataclasses import replace

from deploy.engines import EMBEDDED

DIALECT = replace(EMBEDDED, name="greeting")
""",
    ),
    "training_engines": (
        NAME,
        """
from training.engines import TrainingEngine

ENGINE = TrainingEngine("greeting", "ours under another name", 1, "training", lambda objective, tuner: None)
""",
    ),
    "recipes": (
        NAME,
        """
from training.recipes.built_in import RECIPES

RECIPE = RECIPES["sft-lora"].model_copy(update={"name": "greeting"})
""",
    ),
    "commands": (
        NAME,
        '''
import typer

app = typer.Typer()


@app.command()
def greet() -> None:
    """Greet."""
    print("good day")
''',
    ),
}
"""Kind -> the extension's name, and the one file it costs."""


def install(site: Path) -> None:
    """Lay the package out in `site`: one file and one line of its entry points for each kind."""
    (site / PACKAGE).mkdir(parents=True)
    (site / PACKAGE / "__init__.py").write_text("")
    lines = []
    for kind, (name, text) in EXTENSIONS.items():
        (site / PACKAGE / f"{kind}.py").write_text(text.lstrip())
        lines.append(f"[ratchet.{kind}]\n{name} = {PACKAGE}.{kind}\n")
    about = site / f"{PACKAGE}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("\n".join(lines))


def look_again() -> None:
    """Forget which packages are installed; the next question looks."""
    registry._entry_points.cache_clear()
    for one in registries().values():
        one.__dict__.pop("plug_ins", None)
