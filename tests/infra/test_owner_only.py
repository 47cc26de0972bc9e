"""What is written is its owner's alone, whatever the umask was that a program was started with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from infra.owner_only import close_folder, open_to_others

ROOT = Path(__file__).parent.parent.parent
PROGRAMS = ("flows.cli", "deploy.gateway", "deploy.controller", "deploy.engines.embedded", "flows.deployments",
            "infra.supervisor", "training", "evaluation")  # fmt: skip


def test_every_program_closes_its_files_first() -> None:
    """Each is given a job that is not there; what matters is with which umask it looked for it."""
    code = f"""
import os, runpy, sys
sys.path.insert(0, "")
for module in {PROGRAMS!r}:
    os.umask(0o022)
    sys.argv = [module, "/no/such/job.json"]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except BaseException as end:
        pass
    print("UMASK", module, oct(os.umask(0)))
"""
    environment = {name: value for name, value in os.environ.items() if name != "RATCHET_PARENT"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("UMASK")]
    assert found == [[module, "0o77"] for module in PROGRAMS], done.stderr[-2000:]


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
