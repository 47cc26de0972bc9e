"""No table without a revision, none that is not in the list; a fresh database gets what the code declares."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from deploy.sql_tables import TABLES, declared
from infra.database.connect import connect
from infra.database.schema import create_tables, differences

ROOT = Path(__file__).parents[2]
PACKAGES = ("flows", "tasks", "deploy", "evaluation", "training", "feedback", "infra")
RULE = "a table or column was changed without a revision: see CONTRIBUTING.md, stored forms"


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_the_declared_tables_are_those_of_the_last_revision(
    dialect: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}" if dialect == "sqlite" else request.getfixturevalue("postgres_url")
    engine = connect(url)
    create_tables(engine)
    with engine.connect() as connection:
        found = differences(connection, declared())
    assert [one.description for one in found] == [], RULE


def test_every_table_is_in_the_list() -> None:
    assert {table.name for table in TABLES} == set(declared().tables)
    assert len(TABLES) == len(set(TABLES)) and all(table.metadata is declared() for table in TABLES)


def test_no_module_declares_a_table_that_the_list_does_not_import() -> None:
    """A module that nothing here imports would be missed by what was declared: so the source is asked."""
    named, grounds = set(), set()
    for file in (file for package in PACKAGES for file in (ROOT / package).rglob("*.py")):
        if "migrations" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called == "Table" and node.args and isinstance(node.args[0], ast.Constant):
                    named.add(node.args[0].value)
                if called in ("MetaData", "declarative_base"):
                    grounds.add(file.relative_to(ROOT).as_posix())
            if isinstance(node, ast.ClassDef) and any(
                getattr(base, "id", "") == "DeclarativeBase" for base in node.bases
            ):
                grounds.add(file.relative_to(ROOT).as_posix())
    assert named == {table.name for table in TABLES}
    assert grounds == {"infra/database/connect.py"}, "tables on another ground are in no list and no revision"
