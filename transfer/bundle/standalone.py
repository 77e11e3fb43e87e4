#!/usr/bin/env python3
"""Checks a bundle with Python's standard library alone: python3 verify.py [FOLDER] [--json]

Every file is compared with its sha256; in a damaged pack the damaged frames are found, and the images that need them are
named. Exit 0: sound; 13: damaged; 14: files missing. The format is described in FORMAT.md of the transfer project.
"""

import hashlib
import json
import os
import re
import struct
import sys
import zlib

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
MAGIC = b"FRM1"
FIXED = struct.Struct("<4sIBBHIIII32s")


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
                if len(packed) == fields[7] and hashlib.sha256(packed).digest() == fields[9]:
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


def check(folder):
    with open(os.path.join(folder, "index.json"), "rb") as file:
        index = json.loads(file.read(8 << 20))
    manifest = load(folder, index["manifests"][0])
    header = load(folder, manifest["config"])
    if header.get("format") != "transfer.bundle" or header.get("version") != 1 or header.get("features"):
        raise ValueError("a bundle of another version, or with features that this script does not know")
    found, first = [], 0
    packs = [(pack, True) for pack in header["packs"]]
    for blob, is_pack in [(each, False) for each in header["catalog"]] + packs:
        path, frames = path_of(folder, blob["digest"]), blob["frames"]
        lost, why = set(range(first, first + frames)), ""
        if not os.path.isfile(path):
            why = "missing"
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


def main(arguments):
    folder = next((a for a in arguments if not a.startswith("-")), os.path.dirname(os.path.abspath(__file__)))
    try:
        header, found = check(folder)
    except FileNotFoundError as error:
        print("verify.py: %s is missing: not a bundle, or not all of it" % error.filename, file=sys.stderr)
        return 14
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        print("verify.py: %s: cannot be read as a bundle: %s" % (folder, error), file=sys.stderr)
        return 13
    if "--json" in arguments:
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
        print("sound" if not found else "NOT SOUND: copy the named files from the bundle again")
    if not found:
        return 0
    return 13 if any(each["why"] == "damaged" for each in found) else 14


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
