"""What users wrote is printed and never obeyed by the terminal."""

from __future__ import annotations

import json

import pytest

from flows.cli import main
from flows.cli.app import app
from flows.cli.output import as_json, note, say, table
from infra.errors import UserError

SAID = "\x1b[2J\x1b]0;owned\x07\rfine\x9b31m \u202etxt.exe \ud800 na\u00efve \u05e9\u05dc\u05d5\u05dd"


def test_escape_sequences_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"one\n\t{SAID}")
    note(SAID)
    table(("row", "content"), [("r1", f"{SAID}\nr2  a row that nobody held")])
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert not set("\x1b\x07\r\x9b\u202e\ud800") & set(text)
        assert r"\x1b[2J" in text and r"\u202etxt.exe" in text and "na\u00efve \u05e9\u05dc\u05d5\u05dd" in text
    assert shown.out.startswith("one\n\t") and len(shown.out.splitlines()) == 4, "a cell makes no row of its own"


def test_json_keeps_every_value_and_obeys_none(capsys: pytest.CaptureFixture[str]) -> None:
    as_json({"said": SAID})
    text = capsys.readouterr().out
    assert json.loads(text) == {"said": SAID}
    assert not set("\x1b\x07\r\x9b\u202e\ud800") & set(text)


def test_an_error_that_names_what_somebody_wrote_is_one_harmless_line(capsys: pytest.CaptureFixture[str]) -> None:
    @app.command("says-it")
    def says_it() -> None:
        raise UserError(f"no row {SAID}")

    with pytest.raises(SystemExit) as ended:
        main(["says-it"])
    app.registered_commands.pop()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and len(told.splitlines()) == 1 and "\x1b" not in told
