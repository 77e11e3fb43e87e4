"""Every failure with a name: what happened, what to do now, and the exit code that says which kind it was."""

from __future__ import annotations

import errno


class TransferError(Exception):
    """A failure the user is told in one line. `hint` is what to do now; `slug` names the kind for programs."""

    slug = "internal"
    exit_code = 1
    advice = ""
    """What to do now, where no hint says it better."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(TransferError):
    """The command line asks for something that does not make sense."""

    slug, exit_code = "usage", 2
    advice = "see transfer --help"


class SomeImagesFailed(TransferError):
    """Part of the images made it; the others are named."""

    slug, exit_code = "some-images-failed", 3


class NotFound(TransferError):
    """An image, a bundle or an engine that was named is not there."""

    slug, exit_code = "not-found", 10
    advice = "check the name or the path"


class Locked(TransferError):
    """Another run is at work in the same place."""

    slug, exit_code = "locked", 11
    advice = "wait for the other run to end, then run again"


class Damaged(TransferError):
    """Bytes are not what their digest says."""

    slug, exit_code = "damaged", 13
    advice = "get it again from its source"


class OtherContent(Damaged):
    """A blob that came to its end, of the right size, and does not match its digest."""


class FormatError(Damaged):
    """Bytes that do not follow their format: malformed, hostile or cut off."""

    slug = "malformed"


class Unsupported(FormatError):
    """A well-formed thing of a version or with a feature this program does not know: refused, naming it."""

    slug = "unsupported"
    advice = "use a newer version of transfer"


class MissingPart(TransferError):
    """A pack, a medium or a prerequisite chunk is not at hand."""

    slug, exit_code = "missing", 14
    advice = "bring what is missing, then run the same command again"


class RolledBack(TransferError):
    """Something older than what is known already, or a second thing with the same number."""

    slug, exit_code = "rolled-back", 15
    advice = "get the newest receipt"


class EngineError(TransferError):
    """The engine refused, failed or lied."""

    slug, exit_code = "engine", 20
    advice = "the engine's own log may say more"


class EngineAway(EngineError):
    """An engine does not answer: it is not running, or not there."""

    slug = "engine-away"


class InUse(EngineError):
    """An image is used by a container, so its name stays."""

    slug = "in-use"
    advice = "remove the containers first, or leave the image where it is"


class LinkError(TransferError):
    """The line to another host cannot be had, or breaks again and again."""

    slug, exit_code = "link", 21
    advice = "check the host, the port and the network, then run the same command again: it resumes"


class CutOff(LinkError):
    """The line broke while it was in use; a new one may work at once."""

    slug = "cut-off"


class Nonsense(LinkError):
    """What answers there does not speak as this program does."""

    slug = "nonsense"
    advice = "compare `transfer --version` on both sides; if the versions are equal, do not trust that host"


class HostKeyError(TransferError):
    """The far host has not proved that it is the one that is meant."""

    slug, exit_code = "host-key", 22


class CredentialsError(TransferError):
    """The far host does not let this user in."""

    slug, exit_code = "credentials", 24
    advice = "check user, key and agent (ssh -v says more), or name a key with --identity"


class NoSpace(TransferError):
    """A disk is full, a quota is spent, or a file is larger than the filesystem takes."""

    slug, exit_code = "no-space", 23
    advice = "free some space there and run the same command again"


class TryAgain(TransferError):
    """It may work later: the engine went away, a line was cut."""

    slug, exit_code = "try-again", 75
    advice = "run the same command again later"


class NotNow(TryAgain):
    """A site cannot be reached now: its window is shut, its medium is not there, its line is down. The next run tries again."""

    slug = "not-now"
    advice = "nothing: the next run tries again"


class MediumError(TransferError):
    """The operating system could not read or write a file."""

    slug, exit_code = "medium", 13
    advice = "check the medium and run the same command again"


class Unexpected(TransferError):
    """Something that this program did not expect: a bug, told as the failure of what it happened to."""

    slug = "unexpected"
    advice = "this is a bug; run again with TRANSFER_DEBUG=1 for the details"


def one_failure(error: Exception, doing: str) -> TransferError:
    """The failure of one image or bundle, whatever exception it is, so that its neighbours go on."""
    if isinstance(error, TransferError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error, doing)
    return Unexpected(f"{doing}: unexpected {type(error).__name__}: {str(error)[:200]}")


class NotAllowed(MediumError):
    """The operating system does not let this user read or write there."""

    slug, exit_code = "not-allowed", 24
    advice = "check the owner and the permissions, or run as a user with access"


class TrustRefused(TransferError):
    """Something is not signed as it has to be."""

    slug, exit_code = "trust-refused", 12


EXIT_CODES = {
    0: "done, or nothing to do",
    1: "a bug",
    2: "wrong use; for `doctor --offline`: something is not ready",
    3: "some images failed, the others are done",
    10: "not found",
    11: "locked by another run",
    12: "trust refused (nothing is signed yet: not used)",
    13: "damaged, malformed or unreadable",
    14: "a part, or what a delta depends on, is missing",
    15: "older than what is known",
    20: "the engine refused",
    21: "no line to the other host, or it makes no sense",
    22: "the host key is not the one that is meant",
    23: "no space",
    24: "not let in: by the other host, or by this one's permissions",
    75: "try again later",
    129: "stopped by a signal: the terminal went away",
    130: "stopped by a signal: Ctrl-C",
    141: "what read the output went away",
    143: "stopped by a signal: SIGTERM",
}
"""What every exit code means; the operator's guide has the same table."""


def named(slug: str) -> type[TransferError]:
    """The class with this slug, for a failure that was told by another host; MediumError for one that is not known here."""
    waiting: list[type[TransferError]] = [TransferError]
    while waiting:
        each = waiting.pop()
        if each.slug == slug:
            return each
        waiting += each.__subclasses__()
    return MediumError


def from_os_error(error: OSError, doing: str) -> TransferError:
    """The named failure for an operating system's one. `doing` reads like "writing /media/usb/night.bundle"."""
    what = f"{doing}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(what, hint="free some space there and run the same command again; finished work is kept")
    if error.errno == errno.EFBIG:
        return NoSpace(
            what,
            hint="this filesystem does not allow a file of this size; choose another folder, or another format for the medium",
        )
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG):
        return UsageError(what, hint="name another place")
    if error.errno == errno.ENOENT:
        return NotFound(what, hint="check the path")
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotAllowed(what)
    if error.errno == errno.EROFS:
        return MediumError(what, hint="the filesystem is read-only; choose another folder or remount it")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TryAgain(what, hint="too many open files; raise the limit (ulimit -n) and run again")
    return MediumError(what, hint="check the medium and run the same command again")
