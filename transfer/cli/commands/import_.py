"""The options of `transfer import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transfer.cli import completing
from transfer.cli.options import (
    ImportOptions,
    Jobs,
    Json,
    Names,
    NoStore,
    NoTlsVerify,
    Output,
    PlainHttp,
    Quiet,
    Seeds,
    StoreOption,
    StoreOptions,
    To,
    epilog,
    listed,
)
from transfer.engines.base import RegistryOptions

EXAMPLES = epilog(
    "transfer import night.bundle",
    "transfer import /media/usb1 /media/usb2 --to oci:mirror",
    "transfer import night.bundle app/web:1.4 --retag app/web:1.4=web:prod",
    "transfer import night.bundle --to docker://harbor.plant/mirror",
    "transfer import night.bundle --repair small.bundle",
)


def import_(
    bundle: Annotated[
        str,
        typer.Argument(
            help="The bundle folder, a medium, or spool:DIR for all bundles that have arrived in DIR.",
            autocompletion=completing.bundles,
        ),
    ],
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            help="More media of the same set; then image names or patterns. Default: all images.",
            autocompletion=completing.images_or_media,
        ),
    ] = None,
    names: Names = None,
    to: To = "",
    retag: Annotated[
        list[str] | None,
        typer.Option("--retag", help="OLD=NEW: import the image OLD under the name NEW. Can be given several times."),
    ] = None,
    platform: Annotated[
        str,
        typer.Option(
            "--platform",
            help="Which platform of a multi-platform image Docker gets, or a registry with --index platform. Default: the platform of the daemon or of this host.",
        ),
    ] = "",
    via: Annotated[
        str,
        typer.Option(
            "--via",
            help="How the Docker daemon gets the images: auto, pull or load.",
            autocompletion=completing.load_ways,
        ),
    ] = "auto",
    index: Annotated[
        str,
        typer.Option(
            "--index",
            help="What a registry gets of a multi-platform image: keep (the index as it is) or platform (one platform alone, which has another digest).",
        ),
    ] = "keep",
    seed: Seeds = None,
    plain_http: PlainHttp = False,
    no_tls_verify: NoTlsVerify = False,
    keep_tags: Annotated[bool, typer.Option("--keep-tags", help="Do not move a name that another image has.")] = False,
    no_pin: Annotated[
        bool,
        typer.Option(
            "--no-pin", help="With containerd under Kubernetes: do not keep the kubelet from deleting the images."
        ),
    ] = False,
    repair: Annotated[
        list[Path] | None,
        typer.Option("--repair", help="Repair damaged files with this answer to a `verify --repair-request`."),
    ] = None,
    stage: Annotated[
        bool,
        typer.Option(
            "--stage",
            help="If a bundle this delta depends on is missing, keep the delta in the store and import it automatically once that bundle arrives.",
        ),
    ] = False,
    done: Annotated[
        str,
        typer.Option(
            "--done", help="With spool: what becomes of a bundle that is imported: leave, move (into .done) or remove."
        ),
    ] = "leave",
    medium_types: Annotated[
        str, typer.Option("--medium-types", help="With medium:DEVICE: the types of filesystems that may be mounted.")
    ] = "vfat,exfat,iso9660,udf",
    answer: Annotated[
        bool, typer.Option("--answer", help="With medium:DEVICE: leave a receipt and a text for people on it.")
    ] = False,
    in_turn: Annotated[
        bool,
        typer.Option(
            "--in-turn", help="For scripts: if the bundle of a sync comes after a newer one, do not move names back."
        ),
    ] = False,
    store: StoreOption = None,
    no_store: NoStore = False,
    jobs: Jobs = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the images that would be imported, and their names.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import the images of a bundle into an engine.

    Layers that the engine has are not sent. Afterwards the engine is asked for each image, and IDs and digests are compared.
    If an import is interrupted, run the same command again.
    """
    from transfer.cli.import_ import MediumRequest
    from transfer.cli.import_ import import_ as run

    options = ImportOptions(
        listed(patterns, names),
        to,
        tuple(retag or ()),
        platform,
        via,
        stage,
        keep_tags,
        tuple(repair or ()),
        RegistryOptions(plain_http, not no_tls_verify, index=index),
        in_turn,
        not no_pin,
    )
    medium = MediumRequest(to, tuple(medium_types.split(",")), answer)
    run(
        bundle,
        options,
        done,
        medium,
        StoreOptions((), tuple(seed or ()), store, no_store),
        Output(json, quiet, jobs, dry_run),
    )
