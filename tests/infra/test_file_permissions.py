"""What is written is its owner's alone, whatever the umask was that a program was started with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.file_permissions import close_folder, open_to_others

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = (
    "flows.cli",
    "flows.serving.server",
    "deploy.gateway.__main__",
    "deploy.controller.run",
    "deploy.engines.embedded",
    "infra.processes.supervisor",
    "training.__main__",
    "evaluation.__main__",
)


def test_every_program_closes_its_files_first() -> None:
    """Each is given a job that is not there; what matters is with which umask it looked for it."""
    code = f"""
import os
from importlib import import_module
for name in {PROGRAMS!r}:
    main = import_module(name).main
    os.umask(0o022)
    try:
        main(["/no/such/job.json"])
    except (Exception, SystemExit):
        pass
    print("UMASK", name, oct(os.umask(0)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("UMASK")]
    assert found == [[name, "0o77"] for name in PROGRAMS], done.stderr[-2000:]


def test_a_home_of_an_older_release_is_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    assert open_to_others(home)
    close_folder(home)
    assert not open_to_others(home)
    before = os.umask(0o022)
    try:
        close_folder(tmp_path / "new")
    finally:
        os.umask(before)
    assert not open_to_others(tmp_path / "new")
