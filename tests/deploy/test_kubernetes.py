"""The Kubernetes manifests of the documentation: each part of one fits the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from stompbridge import config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/kubernetes"
FILES = ["deployment.yaml", "sidecar.yaml"]
USERS = '[users.alice]\npassword = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b4dWRWJTmaaJObG"\n'
SECRETS = {
    "broker-urls": "amqp://bridge:password@rabbitmq:5672/%2F\n",
    "redis-url": "redis://:password@redis:6379/0\n",
    "admin-token": "0123456789abcdef\n",
    "users.toml": USERS,
}


class Manifest:
    """One file, its objects by kind."""

    def __init__(self, name: str) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        for found in yaml.safe_load_all((FOLDER / name).read_text("utf-8")):
            assert found["apiVersion"]
            assert found["kind"] not in self.objects
            self.objects[found["kind"]] = found
        self.template = self.objects["Deployment"]["spec"]["template"]
        self.pod: dict[str, Any] = self.template["spec"]
        self.containers = self.pod["containers"] + self.pod.get("initContainers", [])
        (self.bridge,) = [one for one in self.containers if one["name"] == "stompbridge"]

    def settings(self, folder: Path) -> config.Settings:
        """The ConfigMap's configuration with a Secret in ``folder``."""
        mounts = {mount["name"]: mount["mountPath"] for mount in self.bridge["volumeMounts"]}
        (name,) = self.objects["ConfigMap"]["data"]
        (environ,) = self.bridge["env"]
        assert environ == {"name": "STOMPBRIDGE_CONFIG", "value": f"{mounts['config']}/{name}"}
        for file, text in SECRETS.items():
            (folder / file).touch(mode=0o600)
            (folder / file).write_text(text)
        path = folder / name
        path.write_text(self.objects["ConfigMap"]["data"][name].replace(mounts["secrets"], str(folder)), "utf-8")
        return config.load(path, {}, {})


@pytest.fixture(params=FILES)
def manifest(request: pytest.FixtureRequest) -> Manifest:
    return Manifest(request.param)


def test_labels_select_the_pods(manifest: Manifest) -> None:
    labels = manifest.template["metadata"]["labels"]
    objects = manifest.objects
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    if "NetworkPolicy" in objects:
        assert objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    for constraint in manifest.pod.get("topologySpreadConstraints", ()):
        assert constraint["labelSelector"]["matchLabels"] == labels


def test_ports_are_those_of_the_containers(manifest: Manifest, tmp_path: Path) -> None:
    ports = {port["name"]: port["containerPort"] for one in manifest.containers for port in one["ports"]}
    assert {port["targetPort"] for port in manifest.objects["Service"]["spec"]["ports"]} <= set(ports)
    settings = manifest.settings(tmp_path)
    own = {port["name"]: port["containerPort"] for port in manifest.bridge["ports"]}
    assert settings.listen.port in own.values()
    probed = [manifest.bridge.get(f"{name}Probe", {}).get("httpGet") for name in ("startup", "readiness", "liveness")]
    for probe in filter(None, probed):
        assert ports[probe["port"]] == settings.admin.port
        # The kubelet comes from outside of the pod.
        assert settings.admin.host == "0.0.0.0"
    if not any(probed):
        assert settings.admin.host == "127.0.0.1"


def test_the_pod_is_restricted(manifest: Manifest) -> None:
    """What the Pod Security Standard "restricted" asks for, and a read-only root file system."""
    pod = manifest.pod["securityContext"]
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["fsGroup"]) == (True, 10001, 10001)
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert manifest.pod["automountServiceAccountToken"] is False
    for one in manifest.containers:
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in one["resources"]["limits"]
        assert "cpu" not in one["resources"]["limits"]


def test_the_secret_is_not_readable_by_everybody(manifest: Manifest) -> None:
    volumes = {volume["name"]: volume for volume in manifest.pod["volumes"]}
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    mounts = {mount["name"] for mount in manifest.bridge["volumeMounts"]}
    assert mounts == set(volumes)
    assert volumes["config"]["configMap"]["name"] == manifest.objects["ConfigMap"]["metadata"]["name"]


def test_there_is_time_to_drain(manifest: Manifest, tmp_path: Path) -> None:
    settings = manifest.settings(tmp_path)
    hooks = [one["lifecycle"]["preStop"]["sleep"]["seconds"] for one in manifest.containers if "lifecycle" in one]
    needed = sum(hooks) + settings.drain_time + settings.shutdown_timeout
    assert manifest.pod["terminationGracePeriodSeconds"] >= needed + 5


def test_a_restart_is_no_answer_to_a_broker_that_is_away(manifest: Manifest) -> None:
    assert "readyz" not in str(manifest.bridge.get("livenessProbe"))
    assert "ready" in str(manifest.bridge["readinessProbe"])


def test_the_sidecar_is_a_native_one() -> None:
    manifest = Manifest("sidecar.yaml")
    assert manifest.bridge in manifest.pod["initContainers"]
    assert manifest.bridge["restartPolicy"] == "Always"
    assert manifest.bridge["startupProbe"]["exec"]["command"][0] == "stompbridge"
    assert all("restartPolicy" not in one for one in manifest.pod["containers"])
