"""The options of `transfer ready`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli.needed import Needs
from transfer.cli.options import (
    Deep,
    Files,
    Helm,
    HelmValues,
    Json,
    NoStore,
    Profiles,
    StoreOption,
    StoreOptions,
    To,
    epilog,
)

EXAMPLES = epilog(
    "transfer ready -f compose.yaml",
    "helm template web ./chart | transfer ready -f - --to containerd:k8s.io/",
    "transfer ready -f deploy.yaml --to podman: night.bundle",
)


def ready(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(help="Bundles in which to look for what is missing, beside the store.", metavar="BUNDLE..."),
    ] = None,
    file: Files = None,
    profile: Profiles = None,
    helm: Helm = None,
    values: HelmValues = None,
    deep: Deep = False,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Also look for this image. Can be given several times.")
    ] = None,
    to: To = "",
    platform: Annotated[
        str, typer.Option("--platform", help="What the images have to run on. Default: what the engine runs.")
    ] = "",
    store: StoreOption = None,
    no_store: NoStore = False,
    json: Json = False,
) -> None:
    """Say whether what a file or chart needs would start here.

    Every image must be in the engine, whole, by its digest where one is named, for this platform, and pinned under Kubernetes.
    Exit code 0 if all of them are; else a list of what is missing, why, and which bundle has it.
    """
    from transfer.cli.ready import ready as run

    needs = Needs(file or (), profile or (), helm or (), values or (), deep)
    run(bundles or [], needs, name or [], to, platform, StoreOptions((), (), store, no_store), json)
