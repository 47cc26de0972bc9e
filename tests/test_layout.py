"""The house rules that no linter knows."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "tasks", "deploy", "evaluation", "training", "feedback", "infra")


def modules() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))]


def test_no_module_shadows_a_package_the_standard_library_or_a_dependency() -> None:
    """A Prefect path entrypoint puts flows/ first on sys.path: a flows/datasets.py would then hide `datasets`."""
    taken = set(sys.stdlib_module_names) | set(PACKAGES) | set(importlib.metadata.packages_distributions())
    # A sub-package's own folder never lands on sys.path, so only names directly below a top-level package matter
    # to imports; names below are held to the same rule for the reader's sake.
    shadows = [
        str(path.relative_to(ROOT))
        for path in modules()
        if not path.stem.startswith("__") and path.stem in taken and path.parent.parent == ROOT
    ]
    assert shadows == []


def test_every_package_folder_has_an_init() -> None:
    folders = {path.parent for path in modules()} | {p.parent for p in (ROOT / "tests").rglob("*.py")}
    assert [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_forbidden_file_names() -> None:
    forbidden = {"utils", "common", "helpers", "manager", "misc"}
    assert [str(p.relative_to(ROOT)) for p in modules() if p.stem in forbidden] == []


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
    pipe = ROOT / "feedback" / "ahead.py"  # between a process of ours and its own child; never on disk
    for path in modules():
        text = path.read_text()
        assert "import pickle" not in text or path == pipe, path
        assert "trust_remote_code=True" not in text, path
        for line in text.splitlines():
            if "torch.load(" in line:
                assert "weights_only=True" in line, f"{path}: {line.strip()}"
