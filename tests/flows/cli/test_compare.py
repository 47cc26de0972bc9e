"""`ratchet compare`: two versions of one night, and two that no night measured together."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from deploy.nights.request import NightRequest
from evaluation.scorecard import Scorecard
from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from flows.night.record import open_night
from infra.artifact import atomic_write
from tests.evaluation.cards import scorecard, share
from tests.flows.world import ratchet


def judged(config: PipelineConfig, card: Scorecard) -> str:
    """A night that left this scorecard."""
    with open_night(config, NightRequest()) as night:
        folder = config.places.evaluations_dir / night.night_id
        atomic_write(folder / "scorecard.json", card.model_copy(update={"night_id": night.night_id}).model_dump_json())
        night.close("done", "held")
        return night.night_id


def test_versions_of_two_nights_are_compared_on_what_both_nights_asked(tmp_path: Path) -> None:
    file = tmp_path / "ratchet.yaml"
    file.write_text(yaml.safe_dump({"pipeline": "desk", "places": {"home": "home"}}))
    config = load_config(file)
    first = judged(config, scorecard({"champion": share(40, 20), "old": share(40, 10)}))
    time.sleep(1.1)  # a night is named by its second
    second = judged(config, scorecard({"champion": share(60, 30), "new": share(60, 40)}))

    found = json.loads(ratchet("compare", "new", "old", "--json", config=file).stdout)
    assert (found["a"], found["b"], found["night_id"]) == ("new", "old", f"{second} and {first}")
    [row] = found["metrics"]
    assert (row["metric"], row["units"], row["a"], row["b"]) == ("primary", 40, 1.0, 0.25)
    said = ratchet("compare", "old", "champion", config=file).stdout
    assert said.startswith(f"old against champion, 40 items of {first}; ")
    refused = ratchet("compare", "new", "nobody", config=file, check=False)
    assert refused.returncode == 2 and "measured nobody; a night measures base, champion" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("names", [("new", "new"), ("old", "old")])
def test_a_version_beside_itself_differs_in_nothing(names: tuple[str, str], tmp_path: Path) -> None:
    from evaluation.gate.comparison import compare_versions

    card = scorecard({"champion": share(40, 20), names[0]: share(40, 10)})
    assert [row.difference for row in compare_versions(card, *names)] == [0.0]
