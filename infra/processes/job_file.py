"""Start a process with a job file: `python -m MODULE job.json`, the same way for every program of ours."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from infra.errors import NotFound, RatchetError, UserError
from infra.file_permissions import close_files
from infra.settings import Config, in_a_line

Job = TypeVar("Job", bound=Config)


def read_job(arguments: Sequence[str], model: type[Job]) -> Job:
    """Read the job that the command line names: one JSON file.

    Raises:
        UserError: not one file, or one that does not hold such a job.
    """
    if len(arguments) != 1:
        raise UserError(f"expected one argument, the job's JSON file, got {len(arguments)}")
    path = Path(arguments[0])
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NotFound(f"there is no job file {path}") from None
    except (OSError, ValidationError) as error:
        wrong = in_a_line(error) if isinstance(error, ValidationError) else error
        raise UserError(f"{path} is not a {model.__name__}: {wrong}") from error


def start_logging() -> None:
    """Log to stderr, one line an event; httpx's line for each request would bury the rest."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)


def job_main(program: str, arguments: Sequence[str], model: type[Job], run: Callable[[Job], object]) -> int:
    """Run the main function of a program that is started with a job file.

    Args:
        program: its name, before what it says on stderr.
        arguments: the command line's, without the program.
        model: what the job's file holds.
        run: does the work.

    Returns:
        Exit code: 0, or that of the error, which is said in one line on stderr.
    """
    close_files()
    start_logging()
    try:
        run(read_job(arguments, model))
    except RatchetError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    return 0
