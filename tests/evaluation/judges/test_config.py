"""Each judge owns its options; all of them take and write the ones that every judge had, so that keys stay the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from evaluation.job.config import Candidate, EvaluationConfig, EvaluationJob, evaluation_key
from evaluation.judges.config import JudgeConfig
from evaluation.judges.openai_compatible import OpenAiConfig
from evaluation.judges.reward import RewardConfig

FLAT = {
    "api_key_env": "RATCHET_JUDGE_KEY",
    "base_url": None,
    "length_control": True,
    "max_calls": 2000,
    "model": None,
    "price_per_million_tokens": None,
    "retries": 2,
    "rubric": "Prefer the answer that is more correct and more helpful. Ignore length.",
    "timeout_seconds": 60.0,
}
JUDGES = (
    {"name": "reference", "rubric": "ignored"},
    {"name": "openai", "base_url": "u", "model": "m", "retries": 5},
    {"name": "reward", "length_control": False},
)


def test_a_judge_is_read_by_its_own_model_and_written_with_all_options() -> None:
    config = EvaluationConfig.model_validate({"judges": JUDGES})
    assert config.judges == (
        JudgeConfig(),
        OpenAiConfig(base_url="u", model="m", retries=5),
        RewardConfig(length_control=False),
    )
    assert config.model_dump(mode="json")["judges"] == [
        {**FLAT, "name": "reference"},
        {**FLAT, **JUDGES[1]},
        {**FLAT, **JUDGES[2]},
    ]
    assert EvaluationConfig.model_validate_json(config.model_dump_json()) == config
    documented = EvaluationConfig.model_json_schema()["$defs"]["JudgeConfig"]["properties"]
    assert set(documented) == {"name", *FLAT} and documented["name"]["default"] == "reference"


@pytest.mark.parametrize(
    ("judge", "place", "message"),
    [
        ({"name": "openai"}, (), "judge openai needs base_url and model"),
        ({"name": "openai", "base_url": "u", "model": "m", "retries": -1}, ("retries",), "greater than or equal to 0"),
        ({"name": "reward", "temperature": 1}, ("temperature",), "Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told_where_it_stands(judge: dict[str, object], place: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EvaluationConfig.model_validate({"judges": [judge]})
    [error] = caught.value.errors()
    assert error["loc"] == ("judges", 0, *place) and message in error["msg"]


def test_the_key_of_an_evaluation_is_what_it_was_before_judges_had_options_of_their_own() -> None:
    price = {"name": "openai", "base_url": "u", "model": "m", "price_per_million_tokens": 3}
    job = EvaluationJob(
        base_path=Path("/x"),
        base_digest="d",
        versions=(
            Candidate(version="base", label="b", kind="base", digest="d"),
            Candidate(version="c", label="b", kind="adapter", digest="d", path=Path("/y"), optimised_against=("z",)),
        ),
        champion="base",
        items_file=Path("/i"),
        output_dir=Path("/o"),
        config=EvaluationConfig.model_validate({"judges": [{"name": "reference"}, *JUDGES[1:], price]}),
    )
    assert evaluation_key(job, "items", ("p",)) == "ab244ec1705fc7d7d484cdaa9f380bb4d671c53371b12a9700eeda2109dfff04"
