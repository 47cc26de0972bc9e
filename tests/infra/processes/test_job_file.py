"""Programs that are started with a job file: one line on stderr for whatever the person can mend, exit code 2."""

from pathlib import Path

import pytest

from infra.errors import RatchetError
from infra.processes.job_file import job_main
from infra.settings import Config


class Sum(Config):
    first: int
    second: int


def test_a_wrong_job_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "job.json"
    wrong.write_text('{"first": 1, "secnd": 2}')
    for arguments in ([], [str(tmp_path / "missing.json")], [str(tmp_path)], [str(wrong)]):
        assert job_main("adder", arguments, Sum, lambda job: None) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith("adder: ") and "\n" not in said, said
    assert "secnd: unknown" in said


def test_the_work_gives_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, sums = tmp_path / "job.json", []
    file.write_text('{"first": 1, "second": 2}')
    assert job_main("adder", [str(file)], Sum, lambda job: sums.append(job.first + job.second)) == 0
    assert sums == [3]

    def fail(job: Sum) -> None:
        raise RatchetError("no room")

    assert job_main("adder", [str(file)], Sum, fail) == 1
    assert capsys.readouterr().err.strip() == "adder: no room"
