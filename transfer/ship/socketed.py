"""A wire channel over a connected socket, such as one end of a pair whose other end is a program's standard input and output."""

from __future__ import annotations

import contextlib
import socket

from transfer.errors import CutOff


class SocketChannel:
    """`where` is how messages name the far side."""

    def __init__(self, connection: socket.socket, where: str) -> None:
        self.connection, self._where = connection, where

    def send(self, data: bytes | memoryview) -> None:
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise CutOff(f"{self._where}: the connection broke: {error.strerror or error}") from error

    def recv(self, size: int) -> bytes:
        try:
            return self.connection.recv(size)
        except OSError as error:
            raise CutOff(f"{self._where}: the connection broke: {error.strerror or error}") from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
