"""The house rules that no linter knows."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "tasks", "deploy", "evaluation", "training", "feedback", "infra")


def modules() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]


def rooms() -> list[Path]:
    return sorted({path.parent for path in modules()} - {ROOT / package for package in PACKAGES})


def test_no_module_shadows_a_package_the_standard_library_or_a_dependency() -> None:
    """A Prefect path entrypoint puts flows/ first on sys.path: a flows/datasets.py would then hide `datasets`."""
    taken = set(sys.stdlib_module_names) | set(PACKAGES) | set(importlib.metadata.packages_distributions())
    # A room's own folder never lands on sys.path, so only what lies directly below a top-level package can hide others:
    # files and folders.
    directly = {path for path in (*modules(), *rooms()) if path.parent.parent == ROOT}
    assert [str(p.relative_to(ROOT)) for p in sorted(directly) if p.stem in taken and p.stem != "__init__"] == []


REGISTRIES = {"evaluation/metrics", "training/objectives", "training/tuners", "feedback/formats", "flows/cli"}
"""Folders with one file per entry, which may grow."""


def test_no_folder_is_crowded() -> None:
    """At most 20 files a folder, of code and of tests, except where a folder is one file per entry of a registry."""
    files = Counter(path.parent.relative_to(ROOT) for path in (*modules(), *(ROOT / "tests").rglob("*.py")))
    assert {str(folder): count for folder, count in files.items() if count > 20 and str(folder) not in REGISTRIES} == {}


def test_every_room_says_in_one_sentence_what_it_holds() -> None:
    for room in rooms():
        text = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
        first = (text or "").split("\n\n")[0]
        assert first.endswith(".") and len(first) > 20, f"{room.relative_to(ROOT)}: {first!r}"


def test_the_order_of_rooms_is_held_by_a_contract() -> None:
    """Each room stands in exactly one layers contract of import-linter, by itself or with the room around it."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = {
        f"{container}.{room}"
        for contract in contracts
        if contract["type"] == "layers"
        for container in contract.get("containers", ())
        for layer in contract["layers"]
        for room in layer.replace("|", " ").split()
    }
    around = {"training.engines", "training.engines.native"}  # their rooms are named one by one
    for room in rooms():
        parts = room.relative_to(ROOT).parts
        names = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
        assert parts[0] == "tasks" or names & held or ".".join(parts) in around, ".".join(parts)


def test_every_package_folder_has_an_init() -> None:
    folders = {path.parent for path in modules()} | {p.parent for p in (ROOT / "tests").rglob("*.py")}
    assert [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_forbidden_file_names() -> None:
    forbidden = {"utils", "common", "helpers", "manager", "misc"}
    assert [str(p.relative_to(ROOT)) for p in modules() if p.stem in forbidden] == []


NAMELESS = {"found", "said", "told", "asked", "seen", "those", "stuff", "thing"}
"""Words that say nothing about what they name."""


def test_names_say_what_they_name() -> None:
    """No module, function, parameter or field is called by a word that could name anything."""
    empty = []
    for path in modules():
        names = [path.stem]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names += [node.name, *(given.arg for given in (*node.args.args, *node.args.kwonlyargs))]
            elif isinstance(node, ast.ClassDef):
                fields = [part.target for part in node.body if isinstance(part, ast.AnnAssign)]
                names += [node.name, *(field.id for field in fields if isinstance(field, ast.Name))]
        empty += [f"{path.relative_to(ROOT)}: {name}" for name in names if name.strip("_").lower() in NAMELESS]
    assert empty == []


def test_functions_are_short_and_take_few_parameters() -> None:
    """At most 80 lines; at most 8 parameters, but for commands, whose options are their parameters."""
    long, wide = [], []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f"{path.relative_to(ROOT)}: {node.name}"
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                own = [one for one in given if one.arg not in ("self", "cls")]
                long += [where] if (node.end_lineno or 0) - node.lineno + 1 > 80 else []
                wide += [where] if len(own) > 8 and path.parent != ROOT / "flows" / "cli" else []
    assert (long, wide) == ([], [])


def test_facts_have_types() -> None:
    """Dicts of anything are for the edges (another tool's JSON, a body before it is parsed): fewer than 150 of them."""
    loose = re.compile(r"(?:dict|Mapping)\[str, (?:Any|object)\]")
    assert sum(len(loose.findall(path.read_text())) for path in modules()) < 150


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, flows.cli; "
        "heavy = {'torch','transformers','prefect','mlflow','great_expectations','pandas','trl','peft','evidently'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pickle_from_artifacts() -> None:
    """Weights are safetensors; torch.load only with weights_only=True; nothing is ever unpickled from a file."""
    pipe = ROOT / "feedback" / "ingest" / "prefetch.py"  # between a process of ours and its own child; never on disk
    for path in modules():
        text = path.read_text()
        assert "import pickle" not in text or path == pipe, path
        assert "trust_remote_code=True" not in text, path
        for line in text.splitlines():
            if "torch.load(" in line:
                assert "weights_only=True" in line, f"{path}: {line.strip()}"
