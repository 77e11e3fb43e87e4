"""Files in the form of well-known ones: what is picked was checked by hand, once, against what their projects pull."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer.flows.picks import picks

DATA = Path(__file__).parents[1] / "data" / "needs"
IMMICH = "ghcr.io/immich-app"
LONG = (
    f"{IMMICH}/postgres:14-vectorchord0.4.3-pgvectors0.2.0"
    "@sha256:32324a2f41df5de9efe1af166b7008c3f55646f8d0e00d9550c16c9822366b4a"
)
VALKEY = "docker.io/valkey/valkey:8-bookworm@sha256:fec42f399876eb6faf9e008570597741c87ff7662a54185593e74b09ce83d177"
PROMETHEUS = "quay.io/prometheus"
EXPECTED: dict[str, tuple[list[str], list[str]]] = {
    "wordpress.compose.yaml": (["mariadb:10.6.4-focal", "wordpress:latest"], []),
    "airflow.compose.yaml": (["postgres:13", "redis:7.2-bookworm", "apache/airflow:2.9.2"], ["flower"]),
    "mailcow.compose.yaml": (
        [
            "ghcr.io/mailcow/unbound:1.23",
            "mariadb:10.5",
            "redis:7-alpine",
            "ghcr.io/mailcow/sogo:1.127.1",
            "ghcr.io/mailcow/watchdog:2.06",
        ],
        ["custom-mailcow"],
    ),
    "immich.compose.yaml": (
        [f"{IMMICH}/immich-server:v1.135", f"{IMMICH}/immich-machine-learning:v1.135-cuda", VALKEY, LONG],
        [],
    ),
    "supabase.compose.yaml": (
        [
            "supabase/studio:2025.06.02-sha-8f2993d",
            "kong:2.8.1",
            "postgrest/postgrest:v12.2.12",
            "supabase/postgres:15",
        ],
        ["vector"],
    ),
    "guestbook.k8s.yaml": (
        ["us-docker.pkg.dev/google-samples/containers/gke/gb-frontend:v5", "docker.io/redis:6.0.5"],
        [],
    ),
    "certmanager.k8s.yaml": (
        ["quay.io/jetstack/cert-manager-controller:v1.15.1", "quay.io/jetstack/cert-manager-webhook:v1.15.1"],
        ["quay.io/jetstack/cert-manager-acmesolver:v1.15.1"],
    ),
    "prometheus.k8s.yaml": (
        [
            "quay.io/prometheus-operator/prometheus-operator:v0.76.2",
            f"{PROMETHEUS}/node-exporter:v1.8.2",
            "quay.io/brancz/kube-rbac-proxy:v0.18.1",
        ],
        [
            f"{PROMETHEUS}/prometheus:v2.54.1",
            f"{PROMETHEUS}/alertmanager:v0.27.0",
            "quay.io/prometheus-operator/prometheus-config-reloader:v0.76.2",
        ],
    ),
    "longhorn.k8s.yaml": (
        ["busybox:1.36", "longhornio/longhorn-manager:v1.7.1"],
        [
            "longhornio/longhorn-engine:v1.7.1",
            "longhornio/longhorn-instance-manager:v1.7.1",
            "longhornio/csi-attacher:v4.6.1",
        ],
    ),
    "nightly.k8s.yaml": (
        ["postgres:16.4-alpine", "quay.io/crio/artifact:v2", f"registry.hq/ml/serve@sha256:{'a' * 64}", "busybox"],
        [],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_a_well_known_file_needs(name: str) -> None:
    """What is taken, and that whatever else looks like an image is named as not taken."""
    taken, passed = EXPECTED[name]
    found = picks([DATA / name], environ={"IMMICH_VERSION": "v1.135", "POSTGRES_VERSION": "15"})
    assert sorted(found.names) == sorted(taken)
    assert len(found.passed) == len(passed), found.passed
    assert all(any(each in said for said in found.passed) for each in passed), found.passed


@pytest.mark.parametrize("name", [name for name in EXPECTED if ".k8s." in name])
def test_what_only_looks_like_an_image_is_taken_when_asked_for(name: str) -> None:
    taken, passed = EXPECTED[name]
    found = picks([DATA / name], environ={}, deep=True)
    assert (sorted(found.names), found.passed) == (sorted([*taken, *passed]), [])


def test_every_file_here_is_looked_at() -> None:
    assert {path.name for path in DATA.iterdir()} == set(EXPECTED)
