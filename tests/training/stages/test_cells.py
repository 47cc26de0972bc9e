"""Every objective with every tuner, from the registries: each cell trains, or is refused for a reason that is true.

`make test` has each objective with lora (test_stage.py) and sft with each tuner (test_tuners.py); all cells run in
`make test-slow`, from here.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.artifact import digest_dir
from infra.errors import UserError
from tests.training.stages.test_run import check, spec
from tests.training.world import job_for
from training.objectives import OBJECTIVES
from training.stages.run import run_stage
from training.tuners import TUNERS, tuner_named

CELLS = [(objective, tuner) for objective in OBJECTIVES for tuner in TUNERS]
REFUSED = [(objective, tuner) for objective, tuner in CELLS if tuner_named(tuner).refuses(objective)]


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "tuner"), [cell for cell in CELLS if cell not in REFUSED])
def test_a_cell_trains_saves_and_says_the_same_again(
    objective: str, tuner: str, tmp_path: Path, tiny_base: Path
) -> None:
    before = digest_dir(tiny_base)
    job = job_for(spec(objective, tuner), tmp_path, tiny_base)
    check(job, run_stage(job))
    assert digest_dir(tiny_base) == before


@pytest.mark.parametrize(("objective", "tuner"), REFUSED)
def test_a_refused_cell_is_refused_for_a_reason_that_is_true(
    objective: str, tuner: str, tmp_path: Path, tiny_base: Path
) -> None:
    reason = tuner_named(tuner).refuses(objective)
    assert reason
    with pytest.raises(UserError, match=re.escape(reason)):
        job_for(spec(objective, tuner), tmp_path, tiny_base)
    # Past the table: it does not work indeed.
    with_lora = job_for(spec(objective, "lora"), tmp_path, tiny_base)
    options = tuner_named(tuner).options().model_dump(mode="json", exclude_none=True)
    changed = with_lora.spec.model_copy(update={"tuner": tuner, "tuner_options": options})
    with pytest.raises(Exception):  # noqa: B017  # whatever it dies of
        job = with_lora.model_copy(update={"spec": changed})
        check(job, run_stage(job))


def test_the_table_of_refusals_names_known_objectives_only() -> None:
    for tuner in TUNERS:
        assert set(tuner_named(tuner).incompatible) <= set(OBJECTIVES)
