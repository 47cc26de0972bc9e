"""Every mistake of a config file is reported at once, with its line, and nothing is done before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.config.load import load_config
from flows.config.pipeline import PipelineConfig
from infra.errors import ConfigError, NotFound

ROOT = Path(__file__).parents[3]


def write(folder: Path, text: str) -> Path:
    path = folder / "ratchet.yaml"
    path.write_text(text)
    return path


def mistakes(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value).splitlines()


def test_the_repository_s_own_config_has_no_mistake() -> None:
    assert load_config(ROOT / "ratchet.yaml").pipeline


def test_all_mistakes_are_reported_at_once_with_line_got_expected_and_nearest_key(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
pipelin: support
base_model: 5
places:
  gateway_port: 99999
  prefect_prt: 4
  home: x
  home: y
gate:
  guards: [{metric: repetition, margn: 0.1}]
  min_units: many
schedule: {nightly: "0 3 * *", timezone: Mars/One}
""",
    )
    found = [line.removeprefix(f"{path}:") for line in mistakes(path)]
    assert "1: pipelin: unknown key; did you mean pipeline?" in found
    assert "1: pipeline: missing; this key is required" in found
    assert "2: base_model: got 5, expected a valid string" in found
    assert "4: places.gateway_port: got 99999, expected less than or equal to 65535" in found
    assert "5: places.prefect_prt: unknown key; did you mean prefect_port?" in found
    assert "7: places.home: given twice, on lines 6 and 7; keep one" in found
    assert "9: gate.guards[0].margin: missing; this key is required" in found
    assert "9: gate.guards[0].margn: unknown key; did you mean margin?" in found
    assert any(line.startswith("10: gate.min_units: got 'many', expected a valid integer") for line in found)
    assert any(line.startswith("11: schedule.nightly: got '0 3 * *', expected a cron expression") for line in found)
    assert any(line.startswith("11: schedule.timezone: got 'Mars/One', expected a time zone") for line in found)
    assert len(found) == 11


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pipeline: [", "not YAML"),
        ("- a\n- b\n", "got a list, expected keys and values"),
        ("pipeline: Support Desk\n", "pipeline: got 'Support Desk', expected"),
        (
            "pipeline: a\ningest: {sources: [{name: x, kind: files, options: {paths: [a.csv], tenant: nobody}}]}\n",
            "ingest.sources[0].options.tenant: got 'nobody', expected one of default",
        ),
        (
            "pipeline: a\ningest: {sources: [{name: x, kind: gateway}, {name: x, kind: gateway}]}\n",
            "ingest.sources[1].name: got 'x', as another source is called",
        ),
        ("pipeline: a\nplaces: {engine_port: 8600}\n", "places.engine_port: got 8600, which is also gateway_port"),
        ("pipeline: a\ntenants: [x, y, x]\n", "tenants: 'x' is named twice"),
        (
            "pipeline: a\ngate: {primary: exact_mach}\n",
            "gate.primary: metric 'exact_mach' is not measured; did you mean exact_match?",
        ),
        (
            "pipeline: a\ngate: {guards: [{metric: unsafe, margin: 0.01}]}\n",
            "evaluation.safety: the gate asks for the metric unsafe",
        ),
        (
            "pipeline: a\nevaluation: {regression: false}\n",
            "gate.forgetting: regression_accuracy is required and not measured",
        ),
        ("pipeline: a\ntraining: {methods: [sft-lorra]}\n", "training: methods: unknown sft-lorra"),
        ("pipeline: a\nbase_model: ./nowhere\n", "base_model: no folder"),
        (
            "pipeline: a\nserving: {engine: vlm}\n",
            "serving.engine: unknown serving engine 'vlm'; expected one of embedded, vllm",
        ),
        (
            "pipeline: a\nserving: {mlflow_hook_url: 'https://a.example/v1/hooks/mlflow'}\n",
            "serving: `mlflow_hook_url` was removed: the controller looks at MLflow's aliases every five seconds",
        ),
    ],
)
def test_one_mistake_one_line(tmp_path: Path, text: str, expected: str) -> None:
    found = mistakes(write(tmp_path, text))
    assert len(found) == 1
    assert expected in found[0]


def test_a_base_that_cannot_be_evaluated_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(b"")
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "bamba", "mamba_d_conv": 4}))
    [found] = mistakes(write(tmp_path, f"pipeline: a\nbase_model: {tmp_path / 'base'}\n"))
    assert ":2: base_model: " in found and "(model_type bamba): it has layers that carry a state" in found


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no config file"):
        load_config(tmp_path / "none.yaml")


def test_relative_places_count_from_the_file_s_folder(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "pipeline: a\nplaces: {home: state}\n"))
    assert config.places.home_dir == tmp_path / "state"


def test_overrides_replace_single_keys_and_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "pipeline: a\nplaces: {home: state, engine_port: 9001}\n")
    config = load_config(path, overrides={"places.gateway_port": 9000, "gate.min_units": 5})
    assert (config.places.gateway_port, config.places.engine_port, config.gate.min_units) == (9000, 9001, 5)
    with pytest.raises(ConfigError, match=r"places\.gateway_prt: unknown key"):
        load_config(path, overrides={"places.gateway_prt": 1})


def test_every_key_of_the_config_is_documented() -> None:
    schema = PipelineConfig.model_json_schema()
    models = {"PipelineConfig": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, model in models.items()
        for key, field in model.get("properties", {}).items()
        # A section whose text equals its model's own is shown with the model's.
        if "description" not in field and "const" not in field and "$ref" not in field
    ]
    assert silent == []


def test_the_config_survives_a_round_trip_through_json(tmp_path: Path) -> None:
    """A night that is taken up again reads the config it began with from its own record."""
    config = load_config(write(tmp_path, "pipeline: a\n"))
    assert PipelineConfig.model_validate_json(config.model_dump_json()) == config


def run_cli(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "flows.cli", *args], cwd=cwd, capture_output=True, text=True)


def test_config_check_prints_one_line_a_mistake_and_exits_with_2(tmp_path: Path) -> None:
    path = write(tmp_path, "pipeline: a\ngate: {min_unts: 3}\n")
    done = run_cli("config", "check", "-c", str(path), cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == f"error: {path}:2: gate.min_unts: unknown key; did you mean min_units?\n"
    assert done.stdout == ""


def test_config_show_prints_what_will_be_used(tmp_path: Path) -> None:
    path = write(tmp_path, "pipeline: a\ngate: {min_units: 7}\n")
    done = run_cli("config", "show", "--json", "-c", str(path), cwd=ROOT)
    assert json.loads(done.stdout)["gate"]["min_units"] == 7


def test_judges_and_lm_eval_tasks_are_looked_up_before_the_night(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
pipeline: support
base_model: owner/model
evaluation:
  judges: [{name: referense}]
  regression_tasks: [hellaswag, helaswag]
""",
    )
    found = [line.removeprefix(f"{path}:") for line in mistakes(path)]
    assert "4: evaluation.judges[0].name: unknown judge 'referense'; did you mean reference?" in found
    assert any(
        line.startswith("5: evaluation.regression_tasks[1]: lm-eval knows no task 'helaswag'; did you mean hellaswag?")
        for line in found
    )
    assert len(found) == 2


def test_every_win_rate_that_a_judge_gives_may_guard(tmp_path: Path) -> None:
    file = tmp_path / "ratchet.yaml"
    for name in ("win_rate", "win_rate_sft", "win_rate_raw"):
        file.write_text(f"pipeline: a\ngate: {{guards: [{{metric: {name}, margin: 0.05}}]}}\n")
        load_config(file)
