"""List every file of the packages with the first line of its docstring, for docs/reference/files.md.

One text serves the reader of the code and the reader of the page, so the tree cannot fall behind.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.reference.markdown import HEAD

PACKAGES = ("flows", "tasks", "deploy", "evaluation", "training", "feedback", "infra")
_COLUMN = 31
_BESIDE = (
    ("tests/", "mirror the packages; small real models, real servers"),
    ("benchmarks/", "what is measured by `make bench`, a module each; the figures go to docs/benchmarks.md"),
    ("examples/", "three complete pipelines: support triage, house style, arithmetic"),
    ("tools/", "what the repository builds beside the code: these pages"),
    ("docs/", "this documentation"),
    ("  architecture.md", "floors, processes, identity"),
    ("  concepts.md", "words, the loop, gate and canary in plain words"),
    ("  guarantees.md", "what the statistics promise"),
    ("  runbook.md", "every alert: what it means, what to do"),
    ("  loop.svg", "the loop as a picture"),
    ("  quickstart.md", "from a file of corrections to an answering adapter"),
    ("  faq.md", "costs and limits"),
    ("  comparison.md", "other tools"),
    ("  howto/", "one page per task"),
    ("  reference/", "commands, config, API, events, metrics, files: made from the code"),
    ("ratchet.yaml", "a pipeline's config, with comments"),
    ("prefect.yaml", "the deployments for work pools, made from the code"),
    ("mkdocs.yml", "the documentation as a site"),
    ("Makefile", "demo, test, test-slow, bench, up, down, fmt, docs"),
    ("pyproject.toml", "packages, extras, tools and their rules"),
    ("constraints.txt", "every version pinned"),
    (".ci/", "what CI runs"),
    ("CHANGELOG.md", "changes a user can notice"),
    ("CONTRIBUTING.md", "how to add an objective, tuner, metric, judge, source"),
    ("LICENSE", "Apache-2.0"),
)
"""What lies beside the packages."""


def files_reference(root: Path) -> str:
    """Write the page: the packages from the top floor to the lowest, each folder with its modules."""
    lines = [line for package in PACKAGES for line in _folder(root / package, 0)]
    tree = "\n".join([*lines, *(_line(name, summary, 0) for name, summary in _BESIDE)])
    intro = "Every module, from the top floor to the lowest: a package imports only those below it.\n"
    return f"{HEAD}# Files\n\n{intro}\n```text\n{tree}\n```\n"


def _folder(folder: Path, depth: int) -> Iterator[str]:
    yield _line(f"{folder.name}/", _summary(folder / "__init__.py"), depth)
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    for module in modules:
        yield _line(module.name, _summary(module), depth + 1)
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))):
        if (inner / "__init__.py").exists():
            yield from _folder(inner, depth + 1)
        elif any(path.is_file() and "__pycache__" not in path.parts for path in inner.rglob("*")):
            # Data, not code; a README.md beside it says what it is. Folders that only a cache is left in are nobody's.
            yield _line(f"{inner.name}/", _heading(inner), depth + 1)


def _line(name: str, summary: str, depth: int) -> str:
    return f"{'  ' * depth}{name}".ljust(_COLUMN - 1) + " " + summary


def _summary(module: Path) -> str:
    text = ast.get_docstring(ast.parse(module.read_text())) or ""
    first = text.split("\n")[0].rstrip(".")
    if not first:
        raise ValueError(f"{module}: got no docstring, expected one whose first line says what the file is for")
    return first


def _heading(folder: Path) -> str:
    readme = folder / "README.md"
    if not readme.exists():
        return "data"
    return readme.read_text().split("\n")[0].lstrip("# ").rstrip(".")
