"""The floor of tasks holds Prefect tasks and nothing else, and each of them is thin."""

from __future__ import annotations

import ast
from pathlib import Path

import tasks

FOLDER = Path(tasks.__file__).parent
MODULES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")
MOST_LINES = 10


def tasks_of(path: Path) -> list[ast.FunctionDef]:
    functions = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(ast.unparse(decorator).startswith("task(") for decorator in f.decorator_list)]


def test_every_module_holds_tasks_and_no_other_public_function() -> None:
    assert len(MODULES) > 4
    for path in MODULES:
        public = [
            node.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        ]
        assert public and public == [task.name for task in tasks_of(path)], path.name


def test_a_task_is_ten_lines_or_fewer() -> None:
    for path in MODULES:
        for task in tasks_of(path):
            body = task.body[1:] if ast.get_docstring(task) else task.body
            lines = body[-1].end_lineno - body[0].lineno + 1  # type: ignore[operator]
            assert lines <= MOST_LINES, f"{path.name}: {task.name} has {lines} lines"
