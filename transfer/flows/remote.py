"""Reach a host: by the program over there where it is installed, by SFTP where nothing can be."""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfer.errors import CutOff, LinkError, NotFound, TransferError, UsageError
from transfer.events import Noted, Observer
from transfer.ship.address import Address, Options
from transfer.ship.base import WINDOW, Depot
from transfer.ship.openssh import OpensshLine, SshProcess
from transfer.ship.receiver import NoReceiver, ReceiverDepot
from transfer.ship.retrying import Retrying
from transfer.ship.throttled import Pacer, Throttled, TokenBucket

if TYPE_CHECKING:
    from transfer.ship.ssh import ParamikoLine

LOG = logging.getLogger(__name__)
PROGRAM = "transfer"
WARY = 512 << 10
"""Bytes on their way over a line that was cut before."""
OPENSSH, PARAMIKO = "openssh", "paramiko"


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How to get there. `ssh`: openssh, paramiko, or "" for openssh where it is installed. `program`: what transfer is called over there."""

    address: Address
    options: Options
    ssh: str = ""
    program: str = PROGRAM
    limit: int = 0


class Connector:
    """Depots on one host, as many as are asked for: what the first one found out holds for all."""

    def __init__(self, way: RemoteOptions, observer: Observer, pacer: Pacer | None = None) -> None:
        """`pacer`: instead of the rate in `way`."""
        self.way, self._observer = way, observer
        self._ssh = way.ssh or (OPENSSH if shutil.which("ssh") else PARAMIKO)
        if self._ssh not in (OPENSSH, PARAMIKO):
            raise UsageError(f"--ssh {way.ssh!r:.40}: openssh or paramiko")
        self._pacer = pacer or (TokenBucket(way.limit) if way.limit else None)
        self._lock = threading.Lock()
        self._met = self._files_only = False

    @property
    def spoken(self) -> str:
        """How files go: "receiver" or "sftp"."""
        return "sftp" if self._files_only else "receiver"

    def depot(self) -> Depot:
        """One that comes back when the line drops, and keeps to the rate."""
        opened = itertools.count()

        def connect() -> Depot:
            """Over a line that was cut less is sent ahead: what is on its way is lost with it."""
            return self.raw(WINDOW if next(opened) == 0 else WARY)

        depot: Depot = Retrying(connect, self._observer)
        return Throttled(depot, self._pacer) if self._pacer else depot

    def raw(self, window: int = WINDOW) -> Depot:
        """One over one line. LinkError, HostKeyError or CredentialsError if there is none."""
        if not self._files_only:
            try:
                return self.receiver(window)
            except NotFound as none:
                with self._lock:
                    told, self._files_only = self._files_only, True
                if not told:
                    self._observer(Noted(f"{none.message}: files go by sftp"))
        line = self._line()
        channel = line.sftp()
        try:
            from transfer.ship.sftp import SftpDepot

            address = self.way.address
            depot = SftpDepot(
                lambda: channel, line.run, address.where, address.folder, window=window, also_close=line.close
            )
        except CutOff as error:
            raise self._fault(line, channel) or LinkError(f"{self.way.address.where}: {error.message}") from error
        self._met = True
        return depot

    def receiver(self, window: int = WINDOW) -> ReceiverDepot:
        """The program over there. NotFound if it is not installed, or may not be run."""
        line, address = self._line(), self.way.address
        channel = line.run(f"{self.way.program} receive --stdio")
        try:
            depot = ReceiverDepot(channel, address.where, address.folder, window=window, also_close=line.close)
        except NoReceiver as none:
            fault = self._fault(line, channel)
            if fault:
                raise fault from none
            said = " ".join(f"{channel.said} {none}".split())[-200:]
            raise NotFound(
                f"{address.where} has no transfer program" + (f" ({said})" if said else ""),
                hint="install it on that host, or name its path: --remote /path/to/transfer",
            ) from none
        except TransferError:
            channel.close()
            line.close()
            raise
        self._met = True
        return depot

    def _line(self) -> OpensshLine | ParamikoLine:
        LOG.info("connecting to %s with %s", self.way.address.where, self._ssh)
        if self._ssh == OPENSSH:
            return OpensshLine(self.way.address, self.way.options, quietly=self._met)
        from transfer.ship.ssh import ParamikoLine

        return ParamikoLine(self.way.address, self.way.options)

    def _fault(self, line: OpensshLine | ParamikoLine, channel: object) -> TransferError | None:
        """Why the line failed; it is closed either way."""
        try:
            return line.fault(channel)  # type: ignore[arg-type]
        finally:
            if isinstance(channel, SshProcess):
                channel.close()
            line.close()
