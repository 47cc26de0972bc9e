"""The README's file tree, made from the first line of every module's docstring.

One text serves the reader of the code and the reader of the README, so the tree cannot fall behind.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("flows", "tasks", "deploy", "evaluation", "training", "feedback", "infra")
_COLUMN = 31
_BLOCK = re.compile(r"(## The files\n+```text\n)(.*?)(^tests/)", flags=re.DOTALL | re.MULTILINE)


def with_file_tree(readme: str, root: Path) -> str:
    """`readme` with the part of its file tree that shows the packages written anew; the lines after them stay.

    Raises:
        ValueError: the README has no file tree that ends with a line for `tests/`.
    """
    if not _BLOCK.search(readme):
        raise ValueError('README.md: expected a section "The files" with a text block that has a line for tests/')
    tree = "\n".join(line for package in PACKAGES for line in _folder(root / package, 0))
    return _BLOCK.sub(lambda found: f"{found.group(1)}{tree}\n{found.group(3)}", readme)


def _folder(folder: Path, depth: int) -> Iterator[str]:
    yield _line(f"{folder.name}/", _summary(folder / "__init__.py"), depth)
    modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
    for module in modules:
        yield _line(module.name, _summary(module), depth + 1)
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))):
        if (inner / "__init__.py").exists():
            yield from _folder(inner, depth + 1)
        elif any(inner.iterdir()):
            # Data, not code; a README.md beside it says what it is.
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
