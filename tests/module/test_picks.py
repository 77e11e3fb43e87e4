"""Images that files need: compose, Kubernetes, sets; and files that mean harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer.errors import NotFound, UsageError
from transfer.flows.charts import ChartFailed, rendered
from transfer.flows.picks import picks

COMPOSE = """
x-base: &base
  restart: always
  image: registry.hq/app/base:1
services:
  web:
    <<: *base
    image: ${REGISTRY:-docker.io}/library/nginx:${TAG:?say which}
  worker:
    extends: {service: web}
  db:
    image: postgres:${PG-16}
    profiles: [full]
  built:
    build: .
  plain: {image: "redis:7$$"}
"""

DEPLOYMENT = """
# Source: chart/templates/deploy.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      initContainers:
        - {name: init, image: "busybox:1"}
      containers:
        - name: web
          image: registry.hq/app/web:1.4@sha256:%s
          args: ["--sidecar=registry.hq/app/side:2", "registry.hq/app/tool:3"]
      volumes:
        - name: data
          image: {reference: "registry.hq/data/model:1"}
---
---
apiVersion: v1
kind: List
items:
  - kind: CronJob
    metadata: {name: nightly}
    spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: "app/cron:1"}]}}}}}
---
kind: CustomResourceDefinition
spec: {image: {type: string}, properties: {image: "not/an:image", name: x}}
---
kind: Dashboard
spec: {logo: {image: "pictures/logo:1"}}
""" % ("0" * 64)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_compose_file(tmp_path: Path) -> None:
    path = write(tmp_path, "compose.yaml", COMPOSE.replace("redis:7$$", "redis:7"))
    write(tmp_path, ".env", "TAG='1.27'\n# PG=1\nREGISTRY=mirror.hq  # ours\n")
    found = picks([path], environ={"TAG": "1.28"})
    assert list(found.names) == ["mirror.hq/library/nginx:1.28", "redis:7"]
    assert [each.partition(": ")[2] for each in found.passed] == [
        "service db: only with --profile full",
        "service built: is built and has no image name",
    ]
    assert "postgres:16" in picks([path], ["full"], {"TAG": "1"}).names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$A", "a"),
        ("${A}b", "ab"),
        ("${NONE:-x}", "x"),
        ("${EMPTY:-x}${EMPTY-y}", "x"),
        ("${NONE:-${A}}", "a"),
        ("${A:+set}${NONE:+set}b", "setb"),
    ],
)
def test_variables(text: str, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", f"services:\n  s: {{image: 'x/{text}:1'}}\n")
    assert list(picks([path], environ={"A": "a", "EMPTY": ""}).names) == [f"x/{expected}:1"]


@pytest.mark.parametrize("text", ["$NONE", "${NONE}", "${NONE:?why}", "${NONE?}", "${EMPTY:?}"])
def test_a_variable_that_is_not_set_is_told(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", f"services:\n  s: {{image: 'x/{text}:1'}}\n")
    with pytest.raises(UsageError, match="is not set"):
        picks([path], environ={"EMPTY": ""})


def test_included_and_extended_files_stay_in_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "sub/more.yaml", "services:\n  more: {image: 'more:1'}\n")
    write(tmp_path, "sub/base.yaml", "services:\n  base: {image: 'base:1'}\n")
    path = write(
        tmp_path,
        "sub/c.yaml",
        "include: [more.yaml, {path: more.yaml}]\nservices:\n  s: {extends: {file: base.yaml, service: base}}\n",
    )
    assert set(picks([path], environ={}).names) == {"more:1", "base:1"}
    write(tmp_path, "outside.yaml", "services:\n  o: {image: 'o:1'}\n")
    (tmp_path / "sub" / "link.yaml").symlink_to("../outside.yaml")
    for wrong in ("include: [../outside.yaml]", "include: [link.yaml]", "include: [/etc/passwd]"):
        path = write(tmp_path, "sub/w.yaml", f"{wrong}\nservices: {{}}\n")
        with pytest.raises(UsageError, match="outside of"):
            picks([path], environ={})
    path = write(tmp_path, "sub/w.yaml", "services:\n  s: {extends: {file: ../outside.yaml, service: o}}\n")
    with pytest.raises(UsageError, match="outside of"):
        picks([path], environ={})


def test_manifests_of_any_kind(tmp_path: Path) -> None:
    found = picks([write(tmp_path, "deploy.yaml", DEPLOYMENT)])
    assert list(found.names) == [
        "busybox:1",
        f"registry.hq/app/web:1.4@sha256:{'0' * 64}",
        "registry.hq/data/model:1",
        "app/cron:1",
    ]
    assert any("registry.hq/app/tool:3" in each for each in found.passed)
    assert any("pictures/logo:1" in each for each in found.passed)
    assert not any("not/an:image" in each for each in found.passed)


def test_a_set(tmp_path: Path) -> None:
    write(tmp_path, "c.yaml", "services: {s: {image: 'from/compose:1'}}")
    write(tmp_path, "other.toml", '[[image]]\nname = "other:1"\n')
    path = write(tmp_path, "s.toml", '[[image]]\nname = "one:1"\n\ninclude = []\n')
    path = write(tmp_path, "s.toml", 'include = ["other.toml"]\nfiles = ["c.yaml"]\n[[image]]\nname = "one:1"\n')
    assert list(picks([path]).names) == ["one:1", "other:1", "from/compose:1"]


@pytest.mark.parametrize(
    "text",
    [
        "services:\n  a: {image: 'x:1'}\n  a: {image: 'y:1'}\n",
        "a: !!python/object/apply:os.system ['id']",
        "services:\n\ta: {}",
        "a: [",
        "services: {a: {image: 'NOT A NAME'}}",
        "services: {a: 5}",
        "&a [*a]",
        "[" * 3000,
    ],
)
def test_what_is_malformed_or_means_harm_is_told_with_its_file(text: str, tmp_path: Path) -> None:
    path = write(tmp_path, "bad.yaml", text)
    try:
        found = picks([path], environ={})
    except UsageError as error:
        assert "bad.yaml" in error.message
    else:
        assert not found.names


def test_a_bomb_costs_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = write(tmp_path, "bomb.yaml", "\n".join(lines))
    assert not picks([path]).names
    with pytest.raises(UsageError, match="larger"):
        picks([write(tmp_path, "large.yaml", "#" * (3 << 20))])


@pytest.mark.parametrize("text", ["[[image]]\n", '[[image]]\nname = "a:1"\nx = 1\n', "nonsense = 1\n", "= 5"])
def test_a_malformed_set_is_told(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"s\.toml"):
        picks([write(tmp_path, "s.toml", text)])


def test_the_examples_are_sets() -> None:
    folder = Path(__file__).parents[2] / "bundles" / "sets"
    assert len(picks([folder / "site.toml"], environ={}).names) == 4


HELM = """#!/bin/sh
[ "$3" = broken ] && { echo "Error: template: no such value" >&2; exit 1; }
[ "$1" = show ] && { printf 'name: web\\nannotations:\\n  artifacthub.io/images: |\\n    - {name: x, image: "listed/by:author"}\\n'; exit; }
printf '%s\\n' "$@" > "$HELM_SAW"
printf -- '---\\n# Source: web/templates/hook.yaml\\nkind: Job\\nmetadata: {name: hook, annotations: {"helm.sh/hook": pre-install}}\\n'
printf 'spec: {template: {spec: {containers: [{name: c, image: "app/hook:1"}]}}}\\n'
"""


@pytest.fixture
def helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A helm that says what it was asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "helm").write_text(HELM, encoding="utf-8")
    (tmp_path / "bin" / "helm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("HELM_SAW", str(tmp_path / "saw"))
    return tmp_path


def test_a_chart_is_rendered_with_its_values_and_its_authors_list_counts(helm: Path) -> None:
    manifests, about = rendered("oci://registry.hq/charts/web", [helm / "a.yaml"])
    found = picks([], given={"the chart": manifests}, charts={"Chart.yaml": about})
    assert list(found.names) == ["app/hook:1", "listed/by:author"]
    saw = (helm / "saw").read_text(encoding="utf-8").split()
    assert saw == [
        "template",
        "transfer",
        "oci://registry.hq/charts/web",
        "--include-crds",
        "--values",
        f"{helm}/a.yaml",
    ]


def test_what_helm_says_is_passed_on(helm: Path) -> None:
    with pytest.raises(ChartFailed, match="no such value"):
        rendered("broken", [])
    with pytest.raises(UsageError):
        rendered("--post-renderer=/bin/sh", [])


def test_without_helm_the_pipe_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound) as caught:
        rendered("web", [])
    assert "-f -" in str(caught.value.hint)


def test_what_is_piped_in_is_read(tmp_path: Path) -> None:
    given = {"standard input": DEPLOYMENT.encode()}
    assert "app/cron:1" in picks([], given=given).names
    with pytest.raises(UsageError, match="standard input"):
        picks([], given={"standard input": b"a: [\n"})
    with pytest.raises(UsageError, match="larger than"):
        picks([], given={"standard input": b" " * (3 << 20)})


def test_a_link_to_a_file_elsewhere_is_no_env_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("TAG=taken\n", encoding="utf-8")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ".env").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "c.yaml").write_text("services: {a: {image: 'x:${TAG}'}}", encoding="utf-8")
    with pytest.raises(UsageError, match="outside"):
        picks([tmp_path / "in" / "c.yaml"], environ={})
