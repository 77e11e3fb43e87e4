"""What a Helm chart needs: `helm template` is asked for its manifests, `helm show chart` for the images its author lists."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from transfer.errors import NotFound, TransferError, UsageError

SECONDS = 120
OUTPUT_MAX = 64 << 20
IMAGES = ("artifacthub.io/images", "helm.sh/images")
"""Annotations of a Chart.yaml whose value is a list of images, written as YAML (Artifact Hub, annotations)."""


class ChartFailed(TransferError):
    """Helm could not make the manifests of a chart."""

    slug, exit_code = "chart", 2
    advice = "run the same helm command by hand"


def rendered(chart: str, values: Sequence[Path]) -> tuple[bytes, bytes]:
    """The manifests of a chart with these values, hooks and CRDs too; and its Chart.yaml. NotFound where no helm is installed."""
    if chart.startswith("-"):
        raise UsageError(f"{chart!r:.100} is not a chart", hint="name a folder, a .tgz file or oci://HOST/CHART")
    program = shutil.which("helm")
    if program is None:
        raise NotFound(
            "helm is not installed on this host",
            hint="render the chart elsewhere and pipe it in: helm template CHART | transfer export -f - -o FOLDER",
        )
    options = [word for path in values for word in ("--values", str(path))]
    manifests = _run([program, "template", "transfer", chart, "--include-crds", *options], chart)
    return manifests, _run([program, "show", "chart", chart], chart)


def _run(command: list[str], chart: str) -> bytes:
    """The output of helm; what is too much of it, or takes too long, is a failure."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as complaints:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=complaints, timeout=SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ChartFailed(f"helm did not end for {chart:.200}: {type(error).__name__}") from error
        complaints.seek(0)
        if done.returncode:
            said = " ".join(complaints.read(4096).decode("utf-8", "replace").split())
            raise ChartFailed(f"helm failed for {chart:.200}: {said[:400] or done.returncode}")
        if out.seek(0, 2) > OUTPUT_MAX:
            raise ChartFailed(f"helm makes more than {OUTPUT_MAX} bytes of {chart:.200}")
        out.seek(0)
        return out.read()
