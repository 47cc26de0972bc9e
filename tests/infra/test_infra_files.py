"""Compose, Kubernetes and Grafana files: valid by schema, naming only what exists. No engine is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.gateway.telemetry.metrics import Metrics

ROOT = Path(__file__).parent.parent.parent
INFRA = ROOT / "infra"
COMPOSE = INFRA / "docker" / "compose.yaml"


def yaml_files() -> list[Path]:
    return sorted(path for folder in ("docker", "k8s", "grafana") for path in (INFRA / folder).rglob("*.y*ml"))


def manifests() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((INFRA / "k8s").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document and "apiVersion" in document and document["kind"] != "Kustomization":
                yield path, document


def test_yamllint_finds_nothing() -> None:
    rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable, braces: disable, "
    rules += "brackets: disable, comments: {min-spaces-from-content: 1}, truthy: disable, indentation: {spaces: 2}}}"
    command = [sys.executable, "-m", "yamllint", "--strict", "-d", rules, *map(str, yaml_files())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose_file_fits_its_schema() -> None:
    from jsonschema.validators import validator_for

    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    value = yaml.safe_load(COMPOSE.read_text())
    validator = validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(value)] == []
    value["services"]["gateway"]["ports"] = 8600
    assert [*validator.iter_errors(value)], "the schema would find a mistake"


def test_compose_asks_for_every_secret_and_holds_none() -> None:
    text = COMPOSE.read_text()
    wanted = set(re.findall(r"\$\{([A-Z0-9_]+):\?", text))
    example = dict(
        line.split("=", 1) for line in (INFRA / "docker" / "env.example").read_text().splitlines() if "=" in line
    )
    assert wanted <= set(example)
    assert [name for name in wanted if example[name] and name != "S3_USER"] == [], "a filled-in secret is no secret"
    used = wanted | set(re.findall(r"\$\{([A-Z0-9_]+):-", text))
    assert used == set(example), "env.example and compose.yaml name the same variables"


def test_compose_publishes_on_loopback_only() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    published = {name: port for name, service in services.items() for port in service.get("ports", ())}
    assert {"gateway", "prefect", "mlflow", "grafana"} <= set(published)
    assert [name for name, port in published.items() if not str(port).startswith("127.0.0.1:")] == []


def test_prefect_and_mlflow_ask_who_is_there_in_both_shapes() -> None:
    """The server's side of each sign-in, the clients' side, and both the same."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    server, client = services["prefect"]["environment"], services["deployments"]["environment"]
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == client["PREFECT_API_AUTH_STRING"]
    assert server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "${PREFECT_PUBLIC_URL:-http://localhost:4200}"
    server = services["mlflow"]["environment"]
    assert server["MLFLOW_AUTH_ADMIN_PASSWORD"] == client["MLFLOW_TRACKING_PASSWORD"]
    config = yaml.safe_load(COMPOSE.read_text())["configs"]["mlflow-auth"]["content"]
    assert "--app-name=basic-auth" in services["mlflow"]["command"] and "PASSWORD" not in config
    (secret,) = (m["stringData"] for _, m in manifests() if m["kind"] == "Secret")
    assert secret["PREFECT_SERVER_API_AUTH_STRING"] == secret["PREFECT_API_AUTH_STRING"]
    assert secret["MLFLOW_AUTH_ADMIN_PASSWORD"] == secret["MLFLOW_TRACKING_PASSWORD"]
    pods = {
        m["metadata"]["name"]: m["spec"]["template"]["spec"]
        for path, m in manifests()
        if m["kind"] == "Deployment" and "selector" in m["spec"]
    }
    (prefect,) = pods["prefect"]["containers"]
    assert prefect["envFrom"] == [{"secretRef": {"name": "ratchet"}}]
    origins = {one["name"]: one.get("value") for one in prefect["env"]}["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"]
    assert "*" not in origins
    # Files are their owner's alone, so who shares a volume is one user.
    users = {(pod["securityContext"]["runAsUser"], pod["securityContext"]["fsGroup"]) for pod in pods.values()}
    assert users == {(10001, 10001)}


def test_compose_mounts_files_that_exist_and_waits_for_services_that_do() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (COMPOSE.parent / source).exists(), f"{name}: {source}"
        assert set(service.get("depends_on", {})) <= set(services), name
        build = service.get("build")
        assert build is None or (COMPOSE.parent / build["context"] / build["dockerfile"]).exists()


@pytest.mark.parametrize("path", sorted(INFRA.rglob("Dockerfile*")), ids=lambda path: path.name)
def test_dockerfiles_copy_what_exists_and_run_as_nobody_special(path: Path) -> None:
    lines = path.read_text().replace("\\\n", " ").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    packages = {"flows", "tasks", "deploy", "evaluation", "training", "feedback", "infra"}
    assert packages <= set(copied)
    users = [index for index, line in enumerate(lines) if line.startswith("USER ")]
    assert lines[users[-1]] == "USER ratchet"
    assert not any(line.startswith("RUN") for line in lines[users[-1] :]), "nothing runs after the user is set"
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) <= allowed


@pytest.mark.parametrize("name", ["infra/docker/ratchet.yaml", "infra/k8s/base/ratchet.yaml",
                                  "infra/k8s/overlays/gpu/ratchet.yaml"])  # fmt: skip
def test_pipelines_of_the_manifests_are_valid_and_name_services_that_exist(name: str) -> None:
    from flows.config.load import load_config

    config = load_config(ROOT / name)
    addresses = [config.places.mlflow, config.places.prefect_api, config.serving.engine_url or ""]
    hosts = {re.sub(r"^https?://([^:/]+).*$", r"\1", address) for address in addresses}
    known = set(yaml.safe_load(COMPOSE.read_text())["services"])
    if "k8s" in name:
        known = {m["metadata"]["name"] for _, m in manifests() if m["kind"] == "Service"}
    assert hosts <= known


def test_kubernetes_manifests_fit_their_schemas() -> None:
    import kubernetes_validate

    kinds = set()
    patches = {patch["path"] for k in (INFRA / "k8s").rglob("kustomization.yaml")
               for patch in yaml.safe_load(k.read_text()).get("patches", ())}  # fmt: skip
    for path, manifest in manifests():
        if path.name in patches:
            continue  # only a part of what it changes
        try:
            kubernetes_validate.validate(manifest, "1.31", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{path.relative_to(ROOT)} {manifest['kind']}: {error.message}") from error
        kinds.add(manifest["kind"])
    assert {"Deployment", "Service", "PersistentVolumeClaim", "NetworkPolicy", "Secret"} <= kinds


def test_kustomizations_name_files_that_exist_and_patch_what_is_there() -> None:
    base = {(m["kind"], m["metadata"]["name"]) for path, m in manifests() if path.parent.name == "base"}
    for file in (INFRA / "k8s").rglob("kustomization.yaml"):
        value = yaml.safe_load(file.read_text())
        named = [*value["resources"], *(patch["path"] for patch in value.get("patches", ()))]
        named += [name for made in value.get("configMapGenerator", ()) for name in made["files"]]
        assert [name for name in named if not (file.parent / name).exists()] == []
        for patch in value.get("patches", ()):
            target = yaml.safe_load((file.parent / patch["path"]).read_text())
            assert (target["kind"], target["metadata"]["name"]) in base


def test_selectors_find_their_pods_and_commands_exist() -> None:
    from flows.stack.local_stack import OWN_PARTS

    pods = {}
    for _, manifest in manifests():
        if manifest["kind"] == "Deployment" and "template" in manifest["spec"] and "selector" in manifest["spec"]:
            labels = manifest["spec"]["template"]["metadata"]["labels"]
            assert manifest["spec"]["selector"]["matchLabels"].items() <= labels.items()
            pods[labels["app.kubernetes.io/name"]] = manifest["spec"]["template"]["spec"]["containers"][0]
    for _, manifest in manifests():
        if manifest["kind"] == "Service":
            container = pods[manifest["spec"]["selector"]["app.kubernetes.io/name"]]
            assert manifest["spec"]["ports"][0]["targetPort"] in {p["containerPort"] for p in container["ports"]}
    served = [c["args"][2] for c in pods.values() if c.get("args", [])[:2] == ["ratchet", "serve"]]
    served += [s["command"][2] for s in yaml.safe_load(COMPOSE.read_text())["services"].values()
               if s.get("command", [])[:2] == ["ratchet", "serve"]]  # fmt: skip
    assert sorted(served) == sorted([*OWN_PARTS, *OWN_PARTS])


def metric_names() -> set[str]:
    """Names as Prometheus stores them, with those of a histogram's parts."""
    found = set()
    for family in Metrics().registry.collect():
        if family.type == "counter":
            found.add(f"{family.name}_total")
        elif family.type == "histogram":
            found |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            found.add(family.name)
    return found


def label_names() -> dict[str, set[str]]:
    labels: dict[str, set[str]] = {}
    metrics = Metrics()
    for collector in vars(metrics).values():
        for family in getattr(collector, "describe", list)() or []:
            labels[family.name] = set(getattr(collector, "_labelnames", ()))
    return labels


def test_the_dashboard_uses_only_metrics_that_exist_and_every_one_of_ours() -> None:
    board = json.loads((INFRA / "grafana" / "dashboards" / "ratchet.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in board["templating"]["list"]]
    used = set(re.findall(r"\bratchet_[a-z_]+", " ".join(queries)))
    assert used <= metric_names(), f"these do not exist: {sorted(used - metric_names())}"
    families = {name.removesuffix("_total").removesuffix("_bucket") for name in used}
    unused = {f.name for f in Metrics().registry.collect()} - families
    assert unused == set(), "a metric that nobody looks at"
    labels = label_names()
    for query in queries:
        for metric, inside in re.findall(r"(ratchet_[a-z_]+)\{([^}]*)\}", query):
            known = labels[metric.removesuffix("_total").removesuffix("_bucket")]
            assert set(re.findall(r"(\w+)\s*[=!]~?=?", inside)) <= known | {"le"}, query


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    board = json.loads((INFRA / "grafana" / "dashboards" / "ratchet.json").read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
