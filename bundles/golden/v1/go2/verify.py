#!/usr/bin/env python3
"""Checks a bundle, and rebuilds its images, with Python's standard library alone: python3 verify.py [FOLDER] [--rebuild DIR]

Every file is compared with its sha256; in a damaged pack the damaged frames are found, and the images that need them are
named. Exit 0: sound; 2: an image cannot be rebuilt here; 13: damaged or no bundle; 14: files missing. It finds accidents, not forgers: who made the bundle it
cannot tell, and whoever changed the bundle may have changed this script. Run the one you brought, not the one you found.
The format is described in FORMAT.md of the transfer project.
"""

import sys

if sys.version_info < (3, 6):
    sys.stderr.write(
        "verify.py: this is Python %d.%d, and 3.6 or later is needed: python3 verify.py\n" % sys.version_info[:2]
    )
    sys.exit(2)
try:
    import argparse
    import bisect
    import hashlib
    import json
    import os
    import re
    import stat
    import struct
    import subprocess
    import tempfile
    import zlib
except ImportError as error:
    sys.stderr.write("verify.py: this Python is not whole (%s): on Debian, apt install python3\n" % error)
    sys.exit(2)

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?\Z")
MAGIC = b"FRM1"
FIXED = struct.Struct("<4sIBBHIIIII")
PACK_MAX, RAW_MAX, HEADER_MAX, FRAMES_MAX = 256 << 20, 64 << 20, 64 << 20, 1 << 22
DIFFERENCE_MAX = 4 << 20
JSON_WEIGHT = 256 << 20
"""About the most memory (bytes) that parsing JSON may cost."""


USERS_MAX = 2000000
"""So often it is looked up whether an image needs a file that is damaged."""


class Broken(Exception):
    """What is wrong with the bundle, in words."""


def plain(text):
    """Text from anywhere, safe for a terminal."""
    return ascii(text)[1:-1] if isinstance(text, str) else ascii(text)[:200]


def opened(path):
    """A regular file, whatever lies there: no link is followed, and a pipe is not waited for."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Broken("%s cannot be read: %s" % (path, error.strerror))
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Broken("%s is no regular file" % path)
    return os.fdopen(fd, "rb")


def parsed_json(data, path):
    """A JSON object. Broken for anything else, and for what would take too much memory."""
    weight = 256 * data.count(b"{") + 96 * data.count(b"[") + 72 * (data.count(b",") + data.count(b":"))
    if weight + len(data) * (9 if max(data or b"\0") > 127 else 2) > JSON_WEIGHT:
        raise Broken("%s has more members than this script accepts" % path)
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Broken("%s is not valid JSON: %s" % (path, plain(str(error))[:100]))
    if not isinstance(value, dict):
        raise Broken("%s is no JSON object" % path)
    return value


def member(value, name, kind, where):
    """A member of an object, of the type it has to have."""
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, kind) or (kind is int and (isinstance(found, bool) or not 0 <= found < 1 << 60)):
        raise Broken("%s: %s is missing or of another kind" % (where, name))
    return found


def path_of(folder, digest):
    if not isinstance(digest, str) or not DIGEST.match(digest):
        raise Broken("%s is not a digest" % plain(digest)[:100])
    return os.path.join(folder, "blobs", "sha256", digest[7:])


def hash_file(path, algorithm="sha256"):
    digest, size = hashlib.new(algorithm), 0
    with opened(path) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return "%s:%s" % (algorithm, digest.hexdigest()), size


def load(folder, descriptor, where):
    """A JSON blob, after its digest was found right."""
    digest = member(descriptor, "digest", str, where)
    path = path_of(folder, digest)
    with opened(path) as file:
        data = file.read(HEADER_MAX + 1)
    if "sha256:" + hashlib.sha256(data).hexdigest() != digest or len(data) != member(descriptor, "size", int, where):
        raise Broken("%s is damaged: copy it from the bundle again" % path)
    return parsed_json(data, path)


def ranges(text, limit):
    """Pairs of first and last number, rising."""
    out, before = [], -1
    for part in text.split(",") if text else []:
        found = RANGE.match(part)
        low = int(found.group(1)) if found else -1
        high = int(found.group(2) or low) if found else -1
        if not before < low <= high < limit:
            raise Broken("the header: a list of frames that is none")
        out.append((low, high))
        before = high
    return out


def checked_header(header):
    """The members this script uses are there and of their kinds, so that nothing else has to look."""
    where = "the header"
    if header.get("format") != "transfer.bundle" or header.get("version") != 1:
        raise Broken("a bundle of another version")
    if set(map(str, member(header, "features", list, where))) - {"deflate", "difference", "folds", "patch"}:
        raise Broken("a bundle with features that this script does not know")
    for name in ("catalog", "packs"):
        for blob in member(header, name, list, where):
            path_of("", member(blob, "digest", str, where))
            member(blob, "size", int, where)
            member(blob, "frames", int, where)
    total = sum(pack["frames"] for pack in header["packs"])
    if total > FRAMES_MAX:
        raise Broken("the header: %d frames in all packs, more than there can be" % total)
    for image in member(header, "images", list, where):
        if not all(isinstance(name, str) for name in member(image, "names", list, where)):
            raise Broken("the header: a name that is none")
        path_like(member(member(image, "root", dict, where), "digest", str, where))
        image["frames"] = ranges(member(image, "frames", str, where), total)
        for layer in member(image, "layers", list, where):
            path_like(member(layer, "digest", str, where))
        for digest in member(image, "documents", list, where):
            path_like(digest)
    needs = member(header, "prerequisites", dict, where)
    member(needs, "chunks", int, where)
    for digest in member(needs, "bundles", list, where):
        path_of("", digest)
    if not isinstance(needs.setdefault("about", {}), dict):
        raise Broken("the header: prerequisites in words that are none")
    return header


def path_like(digest):
    if not isinstance(digest, str) or not re.match(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z", digest):
        raise Broken("%s is not a digest" % plain(digest)[:100])


def sound_frames(path):
    """(start, end) of the frames whose bytes agree with their header, whatever else is damaged."""
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > PACK_MAX:
            return []
        data = file.read(PACK_MAX)
    out, at = [], 16
    whole = memoryview(data)
    while at < len(data):
        if data[at : at + 4] == MAGIC and at + FIXED.size <= len(data):
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            header = whole[at : at + size]
            if FIXED.size + 4 <= size == len(header) and zlib.crc32(header[:-4]) == int.from_bytes(
                header[-4:], "little"
            ):
                fields = FIXED.unpack_from(header)
                packed = whole[at + size : at + size + fields[7]]
                if len(packed) == fields[7] and zlib.crc32(packed) == fields[9]:
                    out.append((at, at + size + fields[7]))
                at += size + fields[7]
                continue
        found = data.find(MAGIC, at + 1)
        at = found if found > 0 else len(data)
    return out


def lost_frames(path, first, count):
    """First and last number of the frames a damaged pack has lost; None if it has lost none. All, where they cannot be told apart."""
    sound = sound_frames(path)
    if len(sound) == count:
        return None
    before, expected = 0, 16
    for start, end in sound:
        if start != expected:
            break
        before, expected = before + 1, end
    behind, backwards = 0, os.path.getsize(path)
    for start, end in reversed(sound):
        if end != backwards:
            break
        behind, backwards = behind + 1, start
    if before + behind >= count:
        return (first, first + count - 1) if count else None
    return first + before, first + count - behind - 1


def on_this_medium(folder):
    """The names of the packs that one medium of a set should have, and which it is of how many; None for a bundle that is all in one place.

    A list that cannot be read is advice that is not there (FORMAT.md, section 11).
    """
    path = os.path.join(folder, "medium.json")
    try:
        with opened(path) as file:
            media = parsed_json(file.read(16 << 20), path)
        names, number, listed = set(), 0, member(media, "media", list, path)
        for at, each in enumerate(listed, 1):
            if member(each, "id", str, path) == member(media, "this", str, path):
                number = at
                names.update(str(name).split("/")[-1] for name in member(each, "files", list, path))
    except (Broken, EnvironmentError):
        return None
    return names, number, len(listed)


def check(folder):
    """The header, and what is wrong: a file each, with the frames that are lost and the images that need them."""
    path = os.path.join(folder, "index.json")
    with opened(path) as file:
        index = parsed_json(file.read(8 << 20), path)
    entries = member(index, "manifests", list, path)
    if len(entries) != 1:
        raise Broken("%s: not the index of a bundle" % path)
    manifest = load(folder, entries[0], path)
    header = checked_header(load(folder, member(manifest, "config", dict, "the manifest"), "the manifest"))
    media = on_this_medium(folder)
    found, first, looked = [], 0, 0
    listed = [(each, False) for each in header["catalog"]] + [(each, True) for each in header["packs"]]
    for blob, is_pack in listed:
        path, frames = path_of(folder, blob["digest"]), blob["frames"]
        lost, why = (first, first + frames - 1), ""
        if is_pack and media is not None and not os.path.lexists(path) and blob["digest"][7:] not in media[0]:
            pass
        elif os.path.islink(path) or not os.path.isfile(path):
            why = "damaged" if os.path.lexists(path) else "missing"
        elif hash_file(path) != (blob["digest"], blob["size"]):
            why = "damaged"
            lost = lost_frames(path, first, frames) if is_pack else lost
        if why:
            looked += len(header["images"])
            if looked > USERS_MAX:
                found.append({"file": blob["digest"], "why": why, "frames": "", "images": ["more than are listed"]})
                first += frames if is_pack else 0
                continue
            users = [image for image in header["images"] if not is_pack or (lost and meets(image["frames"], lost))]
            found.append(
                {
                    "file": blob["digest"],
                    "why": why,
                    "frames": "%d-%d" % lost if is_pack and lost and lost[0] <= lost[1] else "",
                    "images": [label(image) for image in users[:1000]],
                }
            )
        first += frames if is_pack else 0
    return header, found, media


def meets(pairs, span):
    at = bisect.bisect_right(pairs, (span[1], FRAMES_MAX)) - 1
    return at >= 0 and pairs[at][1] >= span[0]


def label(image):
    return image["names"][0] if image["names"] else image["root"]["digest"]


class Rebuilder:
    """Blobs out of packs, as FORMAT.md says: recipes, chunks, frames. Needs the zstd program, or Python 3.14."""

    CACHE = 128 << 20
    ROOM, GROWTH = 128 << 20, 16
    FREE, RATIO = 4 << 30, 1000

    def __init__(self, folder, header):
        self.folder, self.header = folder, header
        self.documents, self.recipes, self.frames, self.where, self.folded = {}, {}, [], {}, set()
        self.held, self.held_size = {}, 0
        self.room = self.ROOM + self.GROWTH * sum(blob["size"] for blob in header["catalog"])
        for blob in header["catalog"]:
            path = path_of(folder, blob["digest"])
            if hash_file(path) != (blob["digest"], blob["size"]):
                raise Broken("%s is damaged: copy it from the bundle again" % path)
            at = 16
            while at < blob["size"]:
                sizes, raw, at = self.read_frame(path, at)
                start = 0
                for size in sizes:
                    self.add(raw[start : start + size])
                    start += size
        layers = sum(size for size, _, _ in self.recipes.values())
        if layers > self.FREE + self.RATIO * sum(blob["size"] for blob in header["packs"]):
            raise Broken("its layers come to %d bytes, more than its packs may become" % layers)

    def add(self, record):
        self.room -= len(record) + 512
        if self.room < 0:
            raise Broken("a catalog that grows beyond the limits")
        kind = record[:1]
        if kind == b"F":
            (pack, at, _, _, _, _, _, chunks, prefixes), i = varints(record, 1, 9)
            self.room -= 200 * chunks
            if pack >= len(self.header["packs"]) or i + 32 * (chunks + prefixes) > len(record) or self.room < 0:
                raise Broken("a catalog record that contradicts itself")
            sizes, _ = varints(record, i + 32 * (chunks + prefixes), chunks)
            start = 0
            for n, size in enumerate(sizes):
                self.where.setdefault(record[i + 32 * n : i + 32 * n + 32], (len(self.frames), start, size))
                start += size
            self.frames.append((pack, at))
            return
        end = 2 + (record[1] if len(record) > 1 else 0)
        digest = record[2:end].decode("ascii", "replace")
        path_like(digest)
        if kind == b"D":
            self.documents[digest] = record[end:]
        elif kind == b"R":
            (size, encoding, _, _, skeletons, payloads), i = varints(record, end, 6)
            if encoding > 3:
                raise Broken("a recipe with encoding %d, which this script does not know" % encoding)
            middle, last = i + 32 * skeletons, i + 32 * (skeletons + payloads)
            if last > len(record):
                raise Broken("a recipe that is cut short")
            gaps, last_gap = varints(record, last, payloads + 1)
            held = record[last_gap + 1 :].decode("ascii", "replace") if encoding == 2 else None
            if held is not None:
                path_like(held)
            if encoding == 3:
                self.folded.add(digest)
                size = max(size, varints(record, last_gap, 2)[0][0])
            self.recipes.setdefault(digest, (size, [], held))[1].append((record[i:middle], record[middle:last], gaps))
        else:
            raise Broken("a catalog record of kind %s, which this script does not know" % ascii(kind))

    def read_frame(self, path, at, steps=0):
        """Chunk sizes, uncompressed bytes, and where the next frame starts. `steps`: how far it is from what was asked for."""
        with opened(path) as file:
            file.seek(at)
            start = file.read(8)
            header = start + file.read(max(0, min(int.from_bytes(start[4:8], "little"), 16 << 20) - 8))
            if (
                len(header) < FIXED.size + 4
                or header[:4] != MAGIC
                or zlib.crc32(header[:-4]) != int.from_bytes(header[-4:], "little")
            ):
                raise Broken("%s: no sound frame at byte %d" % (path, at))
            _, size, _, codec, flags, chunks, raw_size, packed_size, prefixes, crc = FIXED.unpack_from(header)
            if (
                codec > 2
                or flags
                or (codec == 2 and raw_size > DIFFERENCE_MAX)
                or raw_size > RAW_MAX
                or packed_size > 2 * RAW_MAX
            ):
                raise Broken("%s: a kind of frame that this script does not know" % path)
            packed = file.read(packed_size)
        if zlib.crc32(packed) != crc:
            raise Broken("%s: the frame at byte %d is damaged" % (path, at))
        sizes, end = varints(header, FIXED.size, chunks)
        names = [header[end + 32 * n : end + 32 * n + 32] for n in range(min(prefixes, len(header) // 32))]
        if names and steps >= 16:
            raise Broken("%s: frames that build on each other without end" % path)
        if sum(self.where.get(name, (0, 0, 0))[2] for name in names) > RAW_MAX:
            raise Broken("%s: a prefix beyond the limits" % path)
        prefix = b"".join([self.chunk(name, steps + 1) for name in names])
        if codec == 2:
            raw = undiffer(packed, raw_size, prefix)
        else:
            raw = unzstd(packed, raw_size, prefix) if codec else packed
        if len(raw) != raw_size:
            raise Broken("%s: the frame at byte %d does not decompress" % (path, at))
        return sizes, raw, at + size + packed_size

    def chunk(self, name, steps=0):
        if name not in self.where:
            raise Broken("chunk %s is in another bundle" % name.hex()[:12])
        frame, start, size = self.where[name]
        if frame not in self.held:
            pack, at = self.frames[frame]
            raw = self.read_frame(path_of(self.folder, self.header["packs"][pack]["digest"]), at, steps)[1]
            while self.held and self.held_size + len(raw) > self.CACHE:
                self.held_size -= len(self.held.pop(next(iter(self.held))))
            self.held[frame] = raw
            self.held_size += len(raw)
        return self.held[frame][start : start + size]

    def held_as(self, digest):
        """What a layer is held as: the digest of its plain bytes if it is a gzip stream that was taken apart, else its own."""
        if digest not in self.recipes:
            raise Broken("%s has no recipe: the bundle is not whole" % digest)
        return self.recipes[digest][2] or digest

    def cannot(self, image):
        """Why an image cannot be rebuilt here; "" if it can."""
        held = [self.held_as(layer["digest"]) for layer in image["layers"]]
        found = sum(each in self.folded for each in held)
        return "%d of its layers have compressed files (jars, wheels) that were taken apart" % found if found else ""

    def blob(self, digest):
        if self.held_as(digest) != digest:
            raise Broken("%s was taken apart: only `transfer import` can put it together" % digest)
        for skeleton, payload, gaps in self.recipes[digest][1]:
            names = iter([skeleton[i : i + 32] for i in range(0, len(skeleton), 32)])
            rest = b""
            for n, gap in enumerate(gaps):
                while gap:
                    if not rest:
                        name = next(names, None)
                        if name is None:
                            raise Broken("a recipe takes more skeleton than there is")
                        rest = self.chunk(name)
                    piece, rest = rest[:gap], rest[gap:]
                    gap -= len(piece)
                    yield piece
                if n < len(gaps) - 1:
                    yield self.chunk(payload[32 * n : 32 * n + 32])


def varints(data, at, count):
    out = []
    if count > len(data) - at:
        raise Broken("a record that is cut short")
    for _ in range(count):
        value = shift = 0
        while True:
            if at >= len(data) or shift > 56:
                raise Broken("a malformed number")
            value |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                break
        out.append(value)
    return out, at


def undiffer(data, size, prefix):
    """The bytes of a frame by subtraction: what is new, and what the prefix has with something added to each value."""
    (width, count), at = varints(data, 0, 2)
    if width not in (1, 2, 4, 8) or count > 1 << 16:
        raise Broken("a difference beyond the limits")
    numbers, at = varints(data, at, 2 * count + 1)
    stretches = list(zip(numbers[0:-1:2], numbers[1:-1:2]))
    fresh = sum(length for length, source in stretches if not source)
    moved = size - fresh
    if sum(length for length, _ in stretches) != size or any(
        source and (source - 1 + length > len(prefix) or length % width) for length, source in stretches
    ):
        raise Broken("a difference that contradicts itself")
    end = at + numbers[-1]
    new = unzstd(data[at:end], fresh, prefix) if fresh else b""
    planes = unzstd(data[end:], moved, b"") if moved else b""
    if len(new) != fresh or len(planes) != moved:
        raise Broken("a difference that does not decompress")
    added = bytearray(moved)
    for n in range(width):
        added[n::width] = planes[n * (moved // width) : (n + 1) * (moved // width)]
    older = b"".join([prefix[source - 1 : source - 1 + length] for length, source in stretches if source])
    one, two = int.from_bytes(added, "little"), int.from_bytes(older, "little")
    high = int.from_bytes((bytes(width - 1) + b"\x80") * (moved // width), "little")
    low = high ^ ((1 << 8 * moved) - 1)
    if width > 1:
        first = int.from_bytes((b"\x01" + bytes(width - 1)) * (moved // width), "little")
        one = ((one >> 1) & low) ^ ((one & first) * ((1 << 8 * width) - 1))
    both = (((one & low) + (two & low)) ^ ((one ^ two) & high)).to_bytes(moved, "little")
    out, taken, given = [], 0, 0
    for length, source in stretches:
        if source:
            out.append(both[given : given + length])
            given += length
        else:
            out.append(new[taken : taken + length])
            taken += length
    return b"".join(out)


def unzstd(packed, size, prefix):
    """At most `size` bytes, by Python 3.14's own module or the zstd program."""
    try:
        from compression import zstd
    except ImportError:
        with tempfile.TemporaryFile() as given, tempfile.NamedTemporaryFile() as older:
            given.write(packed)
            given.seek(0)
            older.write(prefix)
            older.flush()
            command = ["zstd", "-dcq", "--long=27"] + (["--patch-from=" + older.name] if prefix else [])
            process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            raw = process.stdout.read(size + 1)
            process.stdout.close()
            process.wait()
            return raw
    older = zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    options = {zstd.DecompressionParameter.window_log_max: 27}
    try:
        return zstd.ZstdDecompressor(older, options).decompress(packed, size + 1)
    except zstd.ZstdError as error:
        raise Broken("a frame does not decompress: %s" % plain(str(error)))


def rebuild(folder, header, target, names):
    """The images as an OCI layout that `tar -C TARGET -c . | docker load` takes as well; each blob checked by digest. Whether it was all of them.

    Of a gzip layer that was taken apart only the plain bytes are made: that is enough for `docker load`, and no OCI layout.
    """
    if header["prerequisites"]["chunks"] or header["prerequisites"]["bundles"]:
        raise Broken("it builds on other bundles: only `transfer import` can rebuild its images")
    source = Rebuilder(folder, header)
    os.makedirs(target, exist_ok=True)
    entries, saved, apart, whole = [], [], False, True
    for image in header["images"]:
        if names and not set(names) & set(image["names"]):
            continue
        why = source.cannot(image)
        if why:
            print("NOT REBUILT  %s: %s; only `transfer import` can put them together" % (plain(label(image)), why))
            whole = False
            continue
        for digest in image["documents"]:
            if digest not in source.documents:
                raise Broken("document %s is not in the bundle" % digest)
            keep(target, digest, [source.documents[digest]])
        for layer in image["layers"]:
            held = source.held_as(layer["digest"])
            apart = apart or held != layer["digest"]
            keep(target, held, source.blob(held))
        for name in image["names"] or [None]:
            entries.append(dict(image["root"], annotations={"org.opencontainers.image.ref.name": name} if name else {}))
        root = source.documents.get(image["root"]["digest"])
        if root is None:
            raise Broken("%s: its manifest is not in the bundle" % plain(label(image)))
        manifest = parsed_json(root, "a manifest")
        if "layers" in manifest:
            config = member(member(manifest, "config", dict, "a manifest"), "digest", str, "a manifest")
            layers = [source.held_as(member(each, "digest", str, "a manifest")) for each in manifest["layers"] or []]
            where = ["blobs/" + each.replace(":", "/") for each in [config, *layers]]
            saved.append({"Config": where[0], "RepoTags": image["names"] or None, "Layers": where[1:]})
        print("rebuilt  %s" % plain(label(image)))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    layout = [("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index)]
    if apart:
        print("gzip layers are there uncompressed: `docker load` takes them; registries need `transfer import`")
    for name, value in [("manifest.json", saved)] + ([] if apart else layout):
        write(os.path.join(target, name), [json.dumps(value).encode()])
    return whole


def write(path, blocks, algorithm="sha256"):
    """A file under its name when it is whole; nothing is written through a link. The digest of what was written."""
    hasher, part = hashlib.new(algorithm), path + ".part"
    if os.path.lexists(part):
        os.unlink(part)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with os.fdopen(fd, "wb") as file:
        for block in blocks:
            hasher.update(block)
            file.write(block)
    os.replace(part, path)
    return "%s:%s" % (algorithm, hasher.hexdigest())


def keep(target, digest, blocks):
    """Write a blob under its name if its bytes are what the name says."""
    path_like(digest)
    algorithm, name = digest.split(":")
    folder = os.path.join(target, "blobs", algorithm)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    if os.path.isfile(path) and not os.path.islink(path) and hash_file(path, algorithm)[0] == digest:
        return
    if write(path, blocks, algorithm) != digest:
        os.unlink(path)
        raise Broken("%s does not come out right: the bundle is damaged" % digest)


def parsed(arguments):
    parser = argparse.ArgumentParser(prog="verify.py", description=__doc__.split("\n")[0])
    parser.add_argument(
        "folder",
        nargs="?",
        default=os.path.dirname(os.path.abspath(__file__)),
        help="the bundle (default: where this script lies)",
    )
    parser.add_argument("images", nargs="*", help="with --rebuild: only these")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--rebuild",
        metavar="DIR",
        help="also write the images into DIR, an OCI layout; needs the zstd program or Python 3.14",
    )
    wanted, more = parser.parse_known_args(arguments)
    unknown = [word for word in more if word.startswith("-")]
    if unknown:
        parser.error("unknown: %s" % plain(" ".join(unknown)))
    wanted.images += more
    return wanted


def main(arguments):
    wanted = parsed(arguments)
    try:
        return run(wanted)
    except FileNotFoundError as error:
        if error.filename == "zstd":
            say("--rebuild needs the zstd program (apt install zstd) or Python 3.14")
            return 2
        say("%s is missing: not a bundle, or not all of it" % plain(str(error.filename)))
        return 14
    except Broken as error:
        say("%s: not a sound bundle: %s" % (plain(wanted.folder), plain(str(error))))
    except Exception as error:
        say(
            "%s: cannot be read as a bundle (%s: %s)"
            % (plain(wanted.folder), type(error).__name__, plain(str(error))[:200])
        )
    return 13


def say(text):
    sys.stderr.write("verify.py: %s\n" % text)


def run(wanted):
    header, found, media = check(wanted.folder)
    whole = True
    if wanted.rebuild and not found:
        whole = rebuild(wanted.folder, header, wanted.rebuild, wanted.images)
    if wanted.json:
        print(json.dumps({"sound": not found, "damage": found, "images": [each["names"] for each in header["images"]]}))
    else:
        report(header, found, media)
    if not found:
        return 0 if whole else 2
    return 13 if any(each["why"] == "damaged" for each in found) else 14


def report(header, found, media):
    for image in header["images"]:
        print("image  %s" % plain(", ".join(image["names"]) or image["root"]["digest"]))
    for each in found:
        frames = ", frames %s" % each["frames"] if each["frames"] else ""
        images = ", ".join(plain(name) for name in each["images"]) or "no image"
        print("blobs/sha256/%s: %s%s; cannot be imported: %s" % (each["file"][7:], each["why"], frames, images))
    for digest in header["prerequisites"]["bundles"]:
        print("builds on bundle %s  %s" % (digest[7:19], plain(header["prerequisites"]["about"].get(digest, ""))))
    if media is not None:
        print(
            "medium %d of %d of a set: %d of its files are here; the others are on other media"
            % (media[1], media[2], len(media[0]))
        )
    print("sound" if not found else "NOT SOUND: copy the named files from the bundle again")


if __name__ == "__main__":
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except (BrokenPipeError, OSError):
        code = 141
    os._exit(code) if code == 141 else sys.exit(code)
