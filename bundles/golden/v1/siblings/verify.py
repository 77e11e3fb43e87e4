#!/usr/bin/env python3
"""Checks a bundle, and rebuilds its images, with Python's standard library alone: python3 verify.py [FOLDER] [--rebuild DIR]

Every file is compared with its sha256; in a damaged pack the damaged frames are found, and the images that need them are
named. Exit 0: sound; 13: damaged; 14: files missing. The format is described in FORMAT.md of the transfer project.
"""

import argparse
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
MAGIC = b"FRM1"
FIXED = struct.Struct("<4sIBBHIIIII")


def path_of(folder, digest):
    if not isinstance(digest, str) or not DIGEST.match(digest):
        raise ValueError("%r is not a digest" % (digest,))
    return os.path.join(folder, "blobs", "sha256", digest[7:])


def hash_file(path):
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return "sha256:" + digest.hexdigest(), size


def load(folder, descriptor):
    path = path_of(folder, descriptor["digest"])
    with open(path, "rb") as file:
        data = file.read(64 << 20)
    if "sha256:" + hashlib.sha256(data).hexdigest() != descriptor["digest"]:
        raise ValueError("%s is damaged: copy it from the bundle again" % path)
    return json.loads(data)


def ranges(text):
    out = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        out.update(range(int(first), int(last or first) + 1))
    return out


def sound_frames(path):
    """Offsets of the frames whose bytes agree with their header, whatever else is damaged."""
    with open(path, "rb") as file:
        data = file.read()
    out, at = [], 16
    while at < len(data):
        if data[at : at + 4] == MAGIC and at + FIXED.size <= len(data):
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            header = data[at : at + size]
            if FIXED.size + 4 <= size == len(header) and zlib.crc32(header[:-4]) == int.from_bytes(
                header[-4:], "little"
            ):
                fields = FIXED.unpack_from(header)
                packed = data[at + size : at + size + fields[7]]
                if len(packed) == fields[7] and zlib.crc32(packed) == fields[9]:
                    out.append((at, at + size + fields[7]))
                at += size + fields[7]
                continue
        found = data.find(MAGIC, at + 1)
        at = found if found > 0 else len(data)
    return out


def lost_frames(path, first, count):
    """Numbers of the frames a damaged pack has lost: all of them where they cannot be told apart."""
    sound = sound_frames(path)
    everything = set(range(first, first + count))
    if len(sound) == count:
        return set()
    lost = set(everything)
    expected = 16
    for number, (start, end) in zip(sorted(everything), sound):
        if start != expected:
            break
        lost.discard(number)
        expected = end
    size = os.path.getsize(path)
    backwards = size
    for number, (start, end) in zip(sorted(everything, reverse=True), reversed(sound)):
        if end != backwards:
            break
        lost.discard(number)
        backwards = start
    return lost


def on_this_medium(folder):
    """The names of the packs that one medium of a set should have; None for a bundle that is all in one place."""
    try:
        with open(os.path.join(folder, "medium.json"), "rb") as file:
            media = json.loads(file.read(16 << 20))
    except FileNotFoundError:
        return None
    return {name.split("/")[-1] for each in media["media"] if each["id"] == media["this"] for name in each["files"]}


def check(folder):
    with open(os.path.join(folder, "index.json"), "rb") as file:
        index = json.loads(file.read(8 << 20))
    manifest = load(folder, index["manifests"][0])
    header = load(folder, manifest["config"])
    if header.get("format") != "transfer.bundle" or header.get("version") != 1 or set(header["features"]) - {"patch"}:
        raise ValueError("a bundle of another version, or with features that this script does not know")
    found, first = [], 0
    packs, here = [(pack, True) for pack in header["packs"]], on_this_medium(folder)
    for blob, is_pack in [(each, False) for each in header["catalog"]] + packs:
        path, frames = path_of(folder, blob["digest"]), blob["frames"]
        lost, why = set(range(first, first + frames)), ""
        if is_pack and here is not None and not os.path.lexists(path) and blob["digest"][7:] not in here:
            pass
        elif os.path.islink(path) or not os.path.isfile(path):
            why = "damaged" if os.path.lexists(path) else "missing"
        else:
            digest, size = hash_file(path)
            if (digest, size) != (blob["digest"], blob["size"]):
                why = "damaged"
                lost = lost_frames(path, first, frames) if is_pack else lost
        if why:
            images = [
                (image["names"] or [image["root"]["digest"]])[0]
                for image in header["images"]
                if not is_pack or lost & ranges(image["frames"])
            ]
            found.append(
                {"file": blob["digest"], "why": why, "frames": sorted(lost) if is_pack else [], "images": images}
            )
        first += frames if is_pack else 0
    return header, found


class Rebuilder:
    """Blobs out of packs, as FORMAT.md says: recipes, chunks, frames. Needs the zstd program, or Python 3.14."""

    CACHE = 256 << 20

    def __init__(self, folder, header):
        self.folder, self.header = folder, header
        self.documents, self.recipes, self.frames, self.where = {}, {}, [], {}
        self.held, self.held_size = {}, 0
        for blob in header["catalog"]:
            path = path_of(folder, blob["digest"])
            if hash_file(path) != (blob["digest"], blob["size"]):
                raise ValueError("%s is damaged: copy it from the bundle again" % path)
            at = 16
            while at < blob["size"]:
                sizes, raw, at = self.read_frame(path, at)
                start = 0
                for size in sizes:
                    self.add(raw[start : start + size])
                    start += size

    def add(self, record):
        kind = record[:1]
        if kind == b"F":
            (pack, at, _, _, _, _, _, chunks, prefixes), i = varints(record, 1, 9)
            sizes, _ = varints(record, i + 32 * (chunks + prefixes), chunks)
            start = 0
            for n, size in enumerate(sizes):
                self.where.setdefault(record[i + 32 * n : i + 32 * n + 32], (len(self.frames), start, size))
                start += size
            self.frames.append((pack, at))
            return
        end = 2 + record[1]
        digest = record[2:end].decode("ascii")
        if kind == b"D":
            self.documents[digest] = record[end:]
        elif kind == b"R":
            (size, encoding, _, _, skeletons, payloads), i = varints(record, end, 6)
            if encoding > 1:
                raise ValueError("a recipe with encoding %d, which this script does not know" % encoding)
            middle, last = i + 32 * skeletons, i + 32 * (skeletons + payloads)
            gaps, _ = varints(record, last, payloads + 1)
            self.recipes.setdefault(digest, (size, []))[1].append((record[i:middle], record[middle:last], gaps))
        else:
            raise ValueError("a catalog record of kind %r, which this script does not know" % kind)

    def read_frame(self, path, at, steps=0):
        """Chunk sizes, uncompressed bytes, and where the next frame starts. `steps`: how far it is from what was asked for."""
        with open(path, "rb") as file:
            file.seek(at)
            start = file.read(8)
            header = start + file.read(max(0, min(int.from_bytes(start[4:8], "little"), 16 << 20) - 8))
            if (
                len(header) < FIXED.size + 4
                or header[:4] != MAGIC
                or zlib.crc32(header[:-4]) != int.from_bytes(header[-4:], "little")
            ):
                raise ValueError("%s: no sound frame at byte %d" % (path, at))
            _, size, _, codec, flags, chunks, raw_size, packed_size, prefixes, crc = FIXED.unpack_from(header)
            if codec > 1 or flags:
                raise ValueError("%s: a kind of frame that this script does not know" % path)
            packed = file.read(packed_size)
        if zlib.crc32(packed) != crc:
            raise ValueError("%s: the frame at byte %d is damaged" % (path, at))
        sizes, end = varints(header, FIXED.size, chunks)
        names = [header[end + 32 * n : end + 32 * n + 32] for n in range(prefixes)]
        if names and steps >= 4:
            raise ValueError("%s: frames that build on each other without end" % path)
        prefix = b"".join(self.chunk(name, steps + 1) for name in names)
        raw = unzstd(packed, raw_size, prefix) if codec else packed
        if len(raw) != raw_size:
            raise ValueError("%s: the frame at byte %d does not decompress" % (path, at))
        return sizes, raw, at + size + packed_size

    def chunk(self, name, steps=0):
        if name not in self.where:
            raise ValueError("chunk %s is in another bundle" % name.hex()[:12])
        frame, start, size = self.where[name]
        if frame not in self.held:
            pack, at = self.frames[frame]
            raw = self.read_frame(path_of(self.folder, self.header["packs"][pack]["digest"]), at, steps)[1]
            while self.held and self.held_size + len(raw) > self.CACHE:
                self.held_size -= len(self.held.pop(next(iter(self.held))))
            self.held[frame] = raw
            self.held_size += len(raw)
        return self.held[frame][start : start + size]

    def blob(self, digest):
        for skeleton, payload, gaps in self.recipes[digest][1]:
            frame = b"".join(self.chunk(skeleton[i : i + 32]) for i in range(0, len(skeleton), 32))
            at = 0
            for n, gap in enumerate(gaps):
                if gap:
                    yield frame[at : at + gap]
                    at += gap
                if n < len(gaps) - 1:
                    yield self.chunk(payload[32 * n : 32 * n + 32])


def varints(data, at, count):
    out = []
    for _ in range(count):
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                break
        out.append(value)
    return out, at


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
            process = subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE)
            raw = process.stdout.read(size + 1)
            process.stdout.close()
            process.wait()
            return raw
    older = zstd.ZstdDict(prefix, is_raw=True).as_prefix if prefix else None
    options = {zstd.DecompressionParameter.window_log_max: 27}
    return zstd.ZstdDecompressor(older, options).decompress(packed, size + 1)


def rebuild(folder, header, target, names):
    """The images as an OCI layout that `tar -C TARGET -c . | docker load` takes as well; each blob checked by digest."""
    if header["prerequisites"]["chunks"] or header["prerequisites"]["bundles"]:
        raise ValueError("it builds on other bundles: only `transfer import` can rebuild its images")
    source = Rebuilder(folder, header)
    os.makedirs(os.path.join(target, "blobs", "sha256"), exist_ok=True)
    entries, saved = [], []
    for image in header["images"]:
        if names and not set(names) & set(image["names"]):
            continue
        for digest in image["documents"]:
            keep(target, digest, [source.documents[digest]])
        for layer in image["layers"]:
            keep(target, layer["digest"], source.blob(layer["digest"]))
        for name in image["names"] or [None]:
            entries.append(dict(image["root"], annotations={"org.opencontainers.image.ref.name": name} if name else {}))
        manifest = json.loads(source.documents[image["root"]["digest"]])
        if "layers" in manifest:
            where = ["blobs/sha256/" + each["digest"][7:] for each in [manifest["config"]] + manifest["layers"]]
            saved.append({"Config": where[0], "RepoTags": image["names"] or None, "Layers": where[1:]})
        print("rebuilt  %s" % ascii((image["names"] or [image["root"]["digest"]])[0]).strip("'"))
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    for name, value in (
        ("manifest.json", saved),
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ("index.json", index),
    ):
        with open(os.path.join(target, name), "w") as file:
            json.dump(value, file)


def keep(target, digest, blocks):
    """Write a blob under its name if its bytes are what the name says."""
    path = path_of(target, digest)
    if os.path.exists(path) and hash_file(path)[0] == digest:
        return
    hasher = hashlib.sha256()
    with open(path + ".part", "wb") as file:
        for block in blocks:
            hasher.update(block)
            file.write(block)
    if "sha256:" + hasher.hexdigest() != digest:
        os.unlink(path + ".part")
        raise ValueError("%s does not come out right: the bundle is damaged" % digest)
    os.replace(path + ".part", path)


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
    return parser.parse_intermixed_args(arguments)


def main(arguments):
    wanted = parsed(arguments)
    folder = wanted.folder
    try:
        header, found = check(folder)
        if wanted.rebuild and not found:
            rebuild(folder, header, wanted.rebuild, wanted.images)
    except FileNotFoundError as error:
        if error.filename == "zstd":
            print("verify.py: --rebuild needs the zstd program (apt install zstd) or Python 3.14", file=sys.stderr)
            return 2
        print("verify.py: %s is missing: not a bundle, or not all of it" % error.filename, file=sys.stderr)
        return 14
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        print("verify.py: %s: cannot be read as a bundle: %s" % (folder, error), file=sys.stderr)
        return 13
    if wanted.json:
        print(
            json.dumps({"sound": not found, "damage": found, "images": [image["names"] for image in header["images"]]})
        )
    else:
        for image in header["images"]:
            print("image  %s" % ascii(", ".join(image["names"]) or image["root"]["digest"]).strip("'"))
        for each in found:
            frames = ", frames %s" % ",".join(map(str, each["frames"])) if each["frames"] else ""
            print(
                "%s: %s%s; cannot be imported: %s"
                % (each["file"], each["why"], frames, ", ".join(each["images"]) or "-")
            )
        for digest in header["prerequisites"]["bundles"]:
            about = header["prerequisites"].get("about", {}).get(digest, "")
            print("builds on bundle %s  %s" % (digest[7:19], ascii(about).strip("'")))
        media = on_this_medium(folder)
        if media is not None:
            print("one medium of a set: %d of its files are here" % len(media))
        print("sound" if not found else "NOT SOUND: copy the named files from the bundle again")
    if not found:
        return 0
    return 13 if any(each["why"] == "damaged" for each in found) else 14


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
