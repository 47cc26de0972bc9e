"""What the documentation names exists: links, files, commands with their options, config keys, alert kinds."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "tasks", "deploy", "evaluation", "training", "feedback", "infra")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if page.parent.name != "reference" and page.name != "benchmarks.md"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_fences(text: str) -> str:
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown page's headings get."""
    headings = re.findall(r"^#+ (.+)$", without_fences(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def tree_paths() -> list[str]:
    """The paths of the file tree; two spaces are one level."""
    page = ROOT / "docs" / "reference" / "files.md"
    block = re.search(r"```text\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert block is not None, "docs/reference/files.md has no file tree"
    paths: list[str] = []
    folders: list[str] = []
    for line in block.group(1).splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        assert len(line.split()) > 1, f"{name} is not explained"
        folders = [*folders[:depth], name]
        paths.append("".join(folders))
    return paths


def test_file_tree_names_what_exists() -> None:
    assert [path for path in tree_paths() if not (ROOT / path).exists()] == []


def test_file_tree_names_every_package_folder() -> None:
    folders = [ROOT / package for package in PACKAGES]
    folders += [path.parent for package in PACKAGES for path in (ROOT / package).rglob("*/__init__.py")]
    wanted = {f"{folder.relative_to(ROOT)}/" for folder in folders}
    assert sorted(wanted - set(tree_paths())) == []


def console_commands() -> Iterator[tuple[str, str]]:
    """(page, command) of every line that begins with "$ " in a console block."""
    for page in WRITTEN:
        for block in re.findall(r"^ *```console\n(.*?)^ *```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                if line.strip().startswith("$ "):
                    yield name_of(page), line.strip()[2:]


def mistake_in(command: str) -> str | None:
    """What is wrong with a `ratchet` command, or None. It is parsed by the command line's own parser, and not run."""
    from flows.cli.app import app

    here: Any = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    while hasattr(here, "commands"):
        if not words or words[0] not in here.commands:
            return f"{command}: no such command {words[:1]}"
        here = here.commands[words.pop(0)]
    try:
        # Parses only: names, types, what is required.
        here.make_context("ratchet", list(words))
    except Exception as error:  # by what it can do: typer may bring a click of its own, with its own classes
        if not hasattr(error, "format_message"):
            raise
        return f"{command}: {error.format_message()}"
    return None


def test_commands_in_console_blocks_exist() -> None:
    commands = [(page, command) for page, command in console_commands() if command.startswith("ratchet")]
    assert len(commands) > 10
    assert [(page, mistake) for page, command in commands if (mistake := mistake_in(command))] == []


def test_a_wrong_command_would_be_found() -> None:
    assert mistake_in("ratchet promote") is not None
    assert mistake_in("ratchet run nightly --no-such-option") is not None
    assert mistake_in("ratchet rollback") is not None, "the reason is required"


def test_make_targets_in_console_blocks_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {command.split()[1] for _, command in console_commands() if command.startswith("make ")}
    assert {"demo", "test"} <= targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []


def test_commands_in_sentences_exist() -> None:
    """`ratchet x y` in backticks names a command, too; options and arguments may be left out there."""
    from flows.cli.app import app

    unknown = []
    for page in WRITTEN:
        for command in re.findall(r"`ratchet ([a-z][^`]*)`", without_fences(page.read_text())):
            here: Any = typer.main.get_command(app)
            for word in command.split():
                if not hasattr(here, "commands"):
                    break
                if word not in here.commands:
                    unknown.append((name_of(page), command))
                    break
                here = here.commands[word]
    assert unknown == []


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from models_in(part)


def has_key(model: type[BaseModel], keys: list[str]) -> bool:
    field = model.model_fields.get(keys[0])
    if field is None:
        return False
    if len(keys) == 1:
        return True
    return any(has_key(inner, keys[1:]) for inner in models_in(field.annotation))


def test_config_keys_exist() -> None:
    from flows.config.pipeline import PipelineConfig

    sections = {name for name, field in PipelineConfig.model_fields.items() if any(models_in(field.annotation))}
    named = [
        (name_of(page), key)
        for page in WRITTEN
        for key in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", without_fences(page.read_text()))
        if key.split(".")[0] in sections and not key.endswith((".py", ".yaml", ".md"))
    ]
    assert len(named) > 20
    assert [(page, key) for page, key in named if not has_key(PipelineConfig, key.split("."))] == []
    assert not has_key(PipelineConfig, ["gate", "no_such_key"])


def test_yaml_in_the_docs_is_a_valid_config() -> None:
    import yaml

    from flows.config.pipeline import PipelineConfig

    blocks = [
        (page, block)
        for page in WRITTEN
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    ]
    assert blocks
    for _, block in blocks:
        PipelineConfig.model_validate({"pipeline": "docs", **yaml.safe_load(block)})
        for source in yaml.safe_load(block).get("ingest", {}).get("sources", []):
            from feedback.sources.landing import SourceSpec

            SourceSpec.model_validate(source).parsed()


# Function -> place of the alert's kind among its positional arguments.
_TELLERS = {"entry_alert": 1, "write_alert": 0, "_by_person": 2}


def kinds_in_code() -> set[str]:
    """Every kind of alert that the packages can write, read from their syntax."""
    kinds: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            kinds |= set(_kinds_of(ast.parse(path.read_text()), path, inside=()))
    return kinds


def _kinds_of(node: ast.AST, path: Path, inside: tuple[str, ...]) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        inside = (*inside, node.name)
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        kind: ast.expr | None = None
        if called == "Alert":
            kind = next((keyword.value for keyword in node.keywords if keyword.arg == "kind"), None)
        elif called in _TELLERS and len(node.args) > _TELLERS[called]:
            kind = node.args[_TELLERS[called]]
        if isinstance(kind, ast.Constant):
            yield str(kind.value)
        elif kind is not None:
            # One that is handed on must come from a function whose callers are read here.
            assert set(inside) & set(_TELLERS), f"{path}:{node.lineno}: a kind of alert that this test cannot read"
    for child in ast.iter_child_nodes(node):
        yield from _kinds_of(child, path, inside)


def test_runbook_has_a_section_for_every_kind_of_alert() -> None:
    headings = re.findall(r"^### ([a-z_]+)$", (ROOT / "docs" / "runbook.md").read_text(), flags=re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert {"rolled_back", "held", "run_failed", "barred"} <= kinds_in_code()
    assert set(headings) == kinds_in_code()


def test_readme_keeps_the_place_of_the_demos_output() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("<!-- demo-output -->") == text.count("<!-- /demo-output -->") == 1


def test_picture_is_well_formed_and_stands_alone() -> None:
    import xml.etree.ElementTree as ElementTree

    text = (ROOT / "docs" / "loop.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg")  # noqa: S314  our own file
    assert "prefers-color-scheme: dark" in text
    assert "href=" not in text and "<script" not in text


def test_docs_are_tracked_as_written() -> None:
    """A link to a file that only exists here would be broken in a clone."""
    done = subprocess.run(["git", "ls-files", "docs"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout:
        pytest.skip("not a git checkout")
    tracked = set(done.stdout.split())
    linked = {
        str((page.parent / target.partition("#")[0]).resolve().relative_to(ROOT))
        for page in PAGES
        for target in re.findall(r"\]\((?![a-z]+:|#)([^)\s]+)\)", without_fences(page.read_text()))
    }
    assert sorted(path for path in linked if path.startswith("docs/") and path not in tracked) == []
