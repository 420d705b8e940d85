"""The Helm chart: rendered by Helm, checked against Kubernetes' schemas, and that the program knows what it names."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from reid_core.on_ray.cluster import OBJECTS_BYTES
from schemas.settings import Settings
from tests.helpers.deployed import DEPLOY, parse, unknown_settings

CHART = DEPLOY / "helm/urban-reid"
HELM = shutil.which("helm")
needs_helm = pytest.mark.skipif(HELM is None, reason="Helm is not installed")
#: Everything that a chart's user can turn on.
FULL: dict[str, Any] = {
    "modelsClaim": "models",
    "caConfigMap": "ca",
    "imagePullSecrets": [{"name": "pull"}],
    "city": {"gpus": 1},
    "core": {"enabled": True, "gpus": 1, "maxReplicasOfModel": 3, "settings": {"URBAN_REID_BATCH_SIZE": 64}},
    "workers": {
        name: {
            "roles": roles,
            "gpus": gpus,
            "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}},
            "replicas": {"min": 2, "max": 8, "targetCpuPercent": 75},
        }
        for name, roles, gpus in (("flows", ["resolve", "search", "training"], 0), ("cameras", ["cameras"], 1))
    },
    "console": {"ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls", "annotations": {"a": "b"}}},
}


def helm(*words: str, values: dict[str, Any] | None = None) -> "subprocess.CompletedProcess[str]":
    assert HELM is not None
    given = ["--values", "-"] if values is not None else []
    return subprocess.run(
        [HELM, *words, *given], input=json.dumps(values), capture_output=True, text=True, check=False, env=os.environ
    )


def rendered(values: dict[str, Any] | None) -> list[dict[str, Any]]:
    done = helm("template", "city", str(CHART), values=values)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pods' specifications by the names of what makes them."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in objects if "template" in one.get("spec", {})
    }


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def test_the_values_are_of_their_schema() -> None:
    found = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(found)
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    jsonschema.validate(values, found)
    for name, value in values.items():
        if isinstance(value, dict) and name not in ("settings", "workers"):
            assert value.keys() <= found["properties"][name]["properties"].keys()


def test_the_settings_that_the_chart_names_are_there() -> None:
    for path in (*CHART.rglob("*.yaml"), *CHART.rglob("*.tpl"), CHART / "values.schema.json"):
        assert unknown_settings(path.read_text()) == set(), path


@needs_helm
@pytest.mark.parametrize("values", [None, FULL], ids=["as it comes", "with everything"])
class TestRendered:
    def test_lint_finds_nothing(self, values: dict[str, Any] | None) -> None:
        done = helm("lint", "--strict", str(CHART), values=values)
        assert done.returncode == 0, done.stdout

    @pytest.mark.parametrize("version", ["1.27", "1.37"])
    def test_every_object_is_of_kubernetes_schema(self, values: dict[str, Any] | None, version: str) -> None:
        objects = rendered(values)
        for one in objects:
            kubernetes_validate.validate(one, version, strict=True)
        broken = next(one for one in objects if one["kind"] == "Service")
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken | {"spec": {"prots": []}}, version, strict=True)

    def test_a_container_may_do_little(self, values: dict[str, Any] | None) -> None:
        for name, pod in pods(rendered(values)).items():
            assert pod["automountServiceAccountToken"] is False
            who = pod["securityContext"]
            assert who["runAsNonRoot"] and who["runAsUser"] > 0 and who["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in containers(pod):
                may = container["securityContext"]
                assert may["readOnlyRootFilesystem"] is True and may["allowPrivilegeEscalation"] is False
                assert may["capabilities"]["drop"] == ["ALL"], name
                assert may["capabilities"].get("add", []) == (
                    ["NET_BIND_SERVICE"] if container["name"] == "proxy" else []
                )
                assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]
                assert not container["image"].endswith(":latest") and ":" in container["image"]
                mounted = {mount["name"] for mount in container["volumeMounts"]}
                claims = {"home"} if name == "city-city" else set()
                assert mounted <= {volume["name"] for volume in pod["volumes"]} | claims, name
            if "migrate" not in name:
                assert any("readinessProbe" in one or "startupProbe" in one for one in pod["containers"])

    def test_the_commands_are_there(self, values: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch) -> None:
        run = [one["args"] for pod in pods(rendered(values)).values() for one in pod["containers"] if "args" in one]
        ours = [words for words in run if words[0] == "urban-reid"]
        assert len(ours) == (2 if values is None else 5)
        for words in ours:
            parse([word.replace("$(POD_IP)", "10.0.0.7") for word in words])

    def test_secrets_are_named_and_not_made(self, values: dict[str, Any] | None) -> None:
        objects = rendered(values)
        assert not [one for one in objects if one["kind"] == "Secret"]
        for pod in pods(objects).values():
            for container in containers(pod):
                assert not [
                    one for one in container.get("env", []) if "PASSWORD" in one["name"] or "TOKEN" in one["name"]
                ]

    def test_tables_are_migrated_before_everything_else(self, values: dict[str, Any] | None) -> None:
        hooks = [one for one in rendered(values) if "helm.sh/hook" in one["metadata"].get("annotations", {})]
        (job,) = hooks
        assert job["kind"] == "Job" and job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert pods([job])["city-migrate"]["containers"][0]["args"] == ["urban-reid", "db", "upgrade"]


@needs_helm
def test_the_core_has_room_for_what_it_serves() -> None:
    """A detector, the model in use and a candidate fit on the pod's GPU; and requests in memory, never on a disk."""
    core = pods(rendered(FULL))["city-core"]
    (container,) = core["containers"]
    given = Settings(**{one["name"].removeprefix("URBAN_REID_").lower(): one.get("value") for one in container["env"]})
    assert 3 * given.ray_gpus <= container["resources"]["limits"]["nvidia.com/gpu"]
    (shared,) = (one["emptyDir"]["sizeLimit"] for one in core["volumes"] if one["name"] == "shm")
    assert shared.endswith("Gi") and int(shared[:-2]) * 2**30 > OBJECTS_BYTES * given.ray_max_replicas


@needs_helm
def test_no_database_is_needed_to_go_on_living() -> None:
    for name, pod in pods(rendered(FULL)).items():
        for container in pod["containers"]:
            assert "/metrics" not in json.dumps(container.get("livenessProbe")), name


@needs_helm
def test_every_pod_says_which_secrets_it_needs() -> None:
    for name, pod in pods(rendered(FULL)).items():
        for container in pod["containers"]:
            if container.get("args", [""])[0] in ("urban-reid", "prefect"):
                needed = [one["value"].split() for one in container["env"] if one["name"] == "SECRETS_NEEDED"]
                assert needed and needed[0], name


@needs_helm
def test_the_core_is_given_no_database_and_no_key() -> None:
    objects = rendered(FULL)
    (service,) = (one for one in objects if (one["kind"], one["metadata"]["name"]) == ("Service", "city-core"))
    assert service["spec"]["clusterIP"] == "None"  # callers see the pod's own, private address
    core = pods(objects)["city-core"]
    (secrets,) = (volume["secret"] for volume in core["volumes"] if "secret" in volume)
    assert [item["key"] for item in secrets["items"]] == ["URBAN_REID_CORE_TOKEN"]


@needs_helm
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"image": {"tag": "latest"}}, "/image/tag"),
        ({"settings": {"URBAN_REID_DATABASE_URL": "postgresql://me:secret@db/city"}}, "URBAN_REID_DATABASE_URL"),
        ({"console": {"ingress": {"enabled": True}}}, "tlsSecret"),
        ({"core": {"enabled": True}}, "core needs modelsClaim"),
        ({"workers": FULL["workers"]}, "workers need modelsClaim"),
        ({"citty": {}}, "citty"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(values: dict[str, Any], said: str) -> None:
    done = helm("template", "city", str(CHART), values=values)
    assert done.returncode != 0 and said in done.stderr


def test_the_proxys_configuration_is_taken_by_caddy(tmp_path: Path) -> None:
    if shutil.which("caddy") is None:
        pytest.skip("caddy is not installed: apt-get install caddy")
    found = yaml.safe_load((CHART / "templates/proxy.yaml").read_text().split("\ndata:\n")[1])
    (tmp_path / "Caddyfile").write_text(found["Caddyfile"])
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_helm
def test_pods_are_scaled_where_there_may_be_more_of_them() -> None:
    scaled = {one["metadata"]["name"] for one in rendered(FULL) if one["kind"] == "HorizontalPodAutoscaler"}
    assert scaled == {"city-core", "city-worker-flows", "city-worker-cameras"}
    fixed = FULL | {"core": FULL["core"] | {"replicas": {"min": 2, "max": 2}}}
    objects = [one for one in rendered(fixed) if one["metadata"]["name"] == "city-core"]
    assert {one["kind"] for one in objects} == {"Deployment", "PodDisruptionBudget", "Service", "NetworkPolicy"}
    assert next(one for one in objects if one["kind"] == "Deployment")["spec"]["replicas"] == 2
