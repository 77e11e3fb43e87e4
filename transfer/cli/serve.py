"""serve: bundles or a store as a read-only registry."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from transfer.cli.exits import printable
from transfer.cli.options import ServeOptions
from transfer.cli.render import parse_size, several
from transfer.cli.service import Service, listening
from transfer.engines.http import is_loopback
from transfer.errors import UsageError
from transfer.flows import site as site_flow
from transfer.flows.blobcache import BlobCache
from transfer.flows.serve import BundleHoldings, opened_bundles
from transfer.serve.app import App
from transfer.serve.server import Tls, listen, run
from transfer.sites.values import duration
from transfer.streams import read_small
from transfer.work import keep_memory


def serve(
    folders: Sequence[Path],
    from_store: bool,
    options: ServeOptions,
    seeds: tuple[Path, ...],
    store: Path | None,
    quiet: bool,
) -> None:
    """Serve until it is stopped."""
    if bool(folders) == from_store:
        raise UsageError("name the bundles to serve, or --from-store", hint="transfer serve night.bundle")
    if not options.activated:
        _is_safe(options)
    keep_memory()
    choice = site_flow.choose_store(store, False)
    held = site_flow.need_store(choice) if from_store else None
    bundles = opened_bundles(folders, site_flow.library(seeds, choice.store))
    users = read_users(options.htpasswd) if options.htpasswd else None
    holdings = BundleHoldings(bundles, held, _cache(options.cache), options.only)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(contextlib.closing(_socket(options)))
        host, port = sock.getsockname()[:2]
        tls = _tls(options, stack, str(host), quiet)
        if not quiet:
            scheme = "https" if tls else "http"
            shown = f"[{host}]" if ":" in str(host) else str(host)
            print(
                f"serving {several(len(holdings.repositories()), 'repository')} at {scheme}://{shown}:{port}",
                flush=True,
            )
        service = Service()
        run(
            App(holdings, users=users),
            sock,
            tls,
            idle=_idle(options.idle),
            ready=lambda: service.ready(f"serving {several(len(holdings.repositories()), 'repository')}"),
        )
        service.stopping()


def _socket(options: ServeOptions) -> socket.socket:
    """The one that the service manager gives, or a new one. UsageError for one that strangers reach without TLS."""
    if not options.activated:
        return listen(options.listen)
    given = listening()
    if len(given) != 1:
        raise UsageError(
            f"the service manager gave {len(given)} sockets, and --activated needs one",
            hint="start it by transfer-serve.socket, or leave out --activated",
        )
    host, port = given[0].getsockname()[:2]
    _is_safe(replace(options, listen=f"{host}:{port}"))
    return given[0]


def _idle(text: str) -> float:
    try:
        return float(duration(text)) if text else 0.0
    except ValueError:
        raise UsageError(f"--idle {text!r:.40}", hint="write 90s, 15min or 2h") from None


def _is_safe(options: ServeOptions) -> None:
    """UsageError for what would let strangers read, or passwords be read."""
    host = options.listen.rpartition(":")[0].strip("[]")
    loopback = is_loopback(host)
    secure = bool(options.tls_cert or options.self_signed)
    if not loopback and not secure and not options.plain_http:
        raise UsageError(
            f"{options.listen} can be reached from other hosts, and there is no TLS",
            hint="use --tls-cert and --tls-key, or --self-signed; --plain-http serves without TLS",
        )
    if options.htpasswd and not secure:
        raise UsageError("passwords would be sent without TLS", hint="use --tls-cert and --tls-key, or --self-signed")
    if bool(options.tls_cert) != bool(options.tls_key):
        raise UsageError("--tls-cert and --tls-key belong together")
    if options.client_ca and not secure:
        raise UsageError("--client-ca needs TLS", hint="use --tls-cert and --tls-key, or --self-signed")


def _cache(text: str) -> BlobCache | None:
    if not text:
        return None
    folder, colon, size = text.rpartition(":")
    if not colon or not folder:
        raise UsageError(f"--cache {text!r:.100}", hint="write DIR:SIZE, such as /var/cache/transfer:20G")
    return BlobCache(Path(folder), parse_size("--cache", size))


def read_users(path: Path) -> Callable[[str, str], bool]:
    """Whether a user and a password are in an htpasswd file with bcrypt hashes. UsageError for another kind of hash."""
    import bcrypt

    users: dict[str, bytes] = {}
    for number, line in enumerate(read_small(path).decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, hashed = line.strip().partition(":")
        if not user or not hashed.startswith(("$2y$", "$2a$", "$2b$")):
            raise UsageError(
                f"{path}: line {number} has no bcrypt hash", hint="make the file with: htpasswd -B -c FILE USER"
            )
        users[user] = b"$2b$" + hashed[4:].encode()
    known: set[tuple[str, str]] = set()

    def may(user: str, password: str) -> bool:
        if (user, password) in known:
            return True
        hashed = users.get(user)
        try:
            right = hashed is not None and bcrypt.checkpw(password.encode()[:72], hashed)
        except ValueError:
            right = False
        if right and len(known) < 1000:
            known.add((user, password))
        return right

    return may


def _tls(options: ServeOptions, stack: contextlib.ExitStack, host: str, quiet: bool) -> Tls | None:
    if options.tls_cert and options.tls_key:
        return Tls(options.tls_cert, options.tls_key, options.client_ca)
    if not options.self_signed:
        return None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transfer-tls-")))
    certificate, key = make_certificate(folder, host)
    if not quiet:
        print(f"the CA file for clients is {printable(str(certificate))}", flush=True)
    return Tls(certificate, key, options.client_ca)


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate of this host's names that is its own CA, for 30 days; its path and its key's."""
    import datetime
    import ipaddress
    import os

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "transfer serve")])
    addresses = {"127.0.0.1", "::1", *([] if host in ("0.0.0.0", "::") else [host])}
    with contextlib.suppress(OSError):
        addresses |= {str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None)}
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.DNSName(socket.gethostname())]
    names += [x509.IPAddress(ipaddress.ip_address(each.partition("%")[0])) for each in sorted(addresses)]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "ca.crt", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    fd = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return certificate, private
