"""What is done to a valid input: bytes, JSON, and the containers around them, whose checksums are made right again."""

from __future__ import annotations

import copy
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from larvseg_jax.errors import UserError

Mutation = Callable[[Random, bytes], bytes]

_NUMBERS = (
    0,
    1,
    2,
    7,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63,
    2**64 - 1,
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**400, -(2**70)),
    *("", "x", "0", "larvseg", "\ud800", "a\nb", "\x00", "é", "$x^{", "../..", "x" * 5000, "[", "(", "*"),
    *([], {}, [[]], [None], [0, 0], [1, 2, 3], ["x", "x"], {"": {}}, {"name": 3}),
)


def changed_bytes(rng: Random, data: bytes) -> bytes:
    """One to four of: bits flipped, cut off, a piece left out, repeated, moved, made random, or made a number."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        size = len(content)
        place = rng.randrange(size + 1)
        length = min(rng.choice((1, 2, 4, 8, 16, 64, 512, 4096)), size)
        piece = content[place : place + length]
        match rng.randrange(7):
            case 0:
                for _ in range(rng.choice((1, 1, 2, 8))):
                    if size:
                        content[rng.randrange(size)] ^= 1 << rng.randrange(8)
            case 1:
                del content[place:]
            case 2:
                del content[place : place + length]
            case 3:
                content[place:place] = piece * rng.choice((1, 2, 100))
            case 4:
                other = rng.randrange(size + 1)
                content[other : other + length] = piece
            case 5:
                content[place : place + length] = rng.randbytes(length)
            case 6:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(_NUMBERS) % 256**width
                content[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
    return bytes(content)


def changed_json(rng: Random, data: bytes) -> bytes:
    """JSON with one or a few values or names changed; now and then its text is, or it is nested beyond all measure."""
    if rng.random() < 0.2:
        return changed_bytes(rng, data)
    text = json.dumps(changed_value(rng, json.loads(data)))
    if rng.random() < 0.03:
        deep = rng.choice(("[" * 5000 + "]" * 5000, '{"a":' * 5000 + "0" + "}" * 5000, "9" * 5000))
        text = text.replace(rng.choice(("null", "true", "1", '"x"', "[]", "{}")), deep, 1)
    return text.encode()


def parsed(data: bytes) -> Any:
    """What JSON holds; UserError if it is none, as the readers of files say."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"no JSON ({error})") from error


def changed_value(rng: Random, value: Any) -> Any:
    """The same for a value itself, which is left as it is."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        value = _change(rng, value)
    return value


def _change(rng: Random, value: Any) -> Any:
    """Goes down a random way and changes what is there."""
    inner = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    if not inner or rng.random() < 0.1:
        if isinstance(value, int | float) and rng.random() < 0.3:
            return rng.choice((-value, value * 2, value * 1000, value // 3, str(value), [value]))
        if isinstance(value, str) and rng.random() < 0.3:
            return rng.choice((value[:-1], value * 2, value.upper(), [value], list(value)))
        return copy.deepcopy(rng.choice(_VALUES))
    key = rng.choice(list(inner))
    match rng.randrange(10):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[rng.choice(("", "x", "name", "kind", f"{key}x", "\ud800", "__proto__"))] = value.pop(key)
        case 1 if isinstance(value, list):
            value.append(copy.deepcopy(value[key]))
        case 2:
            value[rng.choice(list(inner))] = copy.deepcopy(value[key])
        case _:
            value[key] = _change(rng, value[key])
    return value


def changed_lines(change: Mutation) -> Mutation:
    """Changes one line of several, or their order and number."""

    def mutate(rng: Random, data: bytes) -> bytes:
        lines = data.split(b"\n")
        place = rng.randrange(len(lines))
        if rng.random() < 0.7 and lines[place]:
            lines[place] = change(rng, lines[place])
        elif rng.random() < 0.5:
            lines.insert(place, rng.choice((b"", b"{}", b"null", b"[" * 9000, rng.randbytes(20), lines[-1])))
        else:
            return changed_bytes(rng, data)
        return b"\n".join(lines)

    return mutate


def changed_zip(members: Callable[[Random, str, bytes], bytes]) -> Mutation:
    """One member of an archive changed and its checksum right, a member renamed or left out; or just bytes."""

    def mutate(rng: Random, data: bytes) -> bytes:
        if rng.random() < 0.4:
            return changed_bytes(rng, data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            content = [(name, archive.read(name)) for name in archive.namelist()]
        place = rng.randrange(len(content))
        name, member = content[place]
        match rng.randrange(12):
            case 0:
                del content[place]
            case 1:
                content[place] = (rng.choice(("x", "x/y", name[1:], f"{name}x", name.upper(), "../x")), member)
            case 2:
                content.append((f"{name}.npy", bytes(rng.choice((0, 10, 2**20)))))
            case _:
                content[place] = (name, members(rng, name, member))
        stream = io.BytesIO()
        packed = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
        with zipfile.ZipFile(stream, "w") as archive:
            for name, member in content:  # as of 1980: the same bytes at any time
                archive.writestr(zipfile.ZipInfo(name), member, packed)
        return changed_bytes(rng, stream.getvalue()) if rng.random() < 0.1 else stream.getvalue()

    return mutate


def changed_npy(rng: Random, _name: str, data: bytes) -> bytes:
    """A .npy file with another shape, dtype or order in its header, or with other bytes."""
    if rng.random() < 0.3:
        return changed_bytes(rng, data)
    end = 10 + struct.unpack("<H", data[8:10])[0]
    header = data[10:end].decode("latin1")
    parts = {
        "'descr': '": (
            "<f2",
            "<f4",
            ">f8",
            "|V2",
            "|O",
            "<U9",
            "|b1",
            "<c8",
            "|S0",
            "V2000000000",
            "<i8",
            "<M8[s]",
            "x",
        ),
        "'shape': (": ("", "0,", "3,", "-1,", "2**9,", f"{2**40},", f"{2**62},{2**62},", "1,1,8,1,1", "1.5,", "'x',"),
        "'fortran_order': ": ("True", "None", "3", "[]", "x"),
    }
    name = rng.choice(list(parts))
    begin = header.index(name) + len(name)
    stop = min(place for place in (header.find(c, begin) for c in ("'", ")", ",", "}")) if place >= 0)
    stop = header.index(")", begin) if "shape" in name else stop
    header = header[:begin] + rng.choice(parts[name]) + header[stop:]
    text = header.encode("latin1")[:60_000]
    return data[:8] + struct.pack("<H", len(text)) + text + data[end:]


def changed_safetensors(rng: Random, data: bytes) -> bytes:
    """A header with other entries, or other bytes."""
    if rng.random() < 0.3:
        return changed_bytes(rng, data)
    (length,) = struct.unpack("<Q", data[:8])
    header = changed_json(rng, data[8 : 8 + length])
    claimed = len(header) if rng.random() < 0.95 else rng.choice(_NUMBERS)
    return struct.pack("<Q", claimed) + header + data[8 + length :]


def changed_png(rng: Random, data: bytes) -> bytes:
    """A chunk with other content and a right checksum, or other bytes."""
    if not data.startswith(b"\x89PNG") or rng.random() < 0.3:
        return changed_bytes(rng, data)
    chunks, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    i = rng.randrange(len(chunks))
    kind, content = chunks[i]
    if kind == b"IHDR" and rng.random() < 0.8:
        fields = list(struct.unpack(">IIBBBBB", content))
        j = rng.randrange(7)
        fields[j] = rng.choice(_NUMBERS) % (2**32 if j < 2 else 17)
        content = struct.pack(">IIBBBBB", *fields)
    elif kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(changed_bytes(rng, zlib.decompress(content)))
    else:
        content = changed_bytes(rng, content)
    match rng.randrange(8):
        case 0:
            kind = rng.choice(
                (b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"eXIf", b"tEXt", b"iTXt", b"acTL", b"IDAT")
            )
        case 1:
            chunks.insert(rng.randrange(len(chunks)), chunks[i])
    chunks[i] = (kind, content)
    pieces = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return data[:8] + b"".join(pieces)


def changed_tar(rng: Random, data: bytes) -> bytes:
    """A header with other fields and a right checksum, or other bytes."""
    if rng.random() < 0.3:
        return changed_bytes(rng, data)
    content = bytearray(data)
    starts = [place for place in range(0, len(data), 512) if data[place + 257 : place + 262] == b"ustar"]
    for _ in range(rng.choice((1, 1, 2))):
        begin = rng.choice(starts)
        sizes = (
            b"\x80" + (2**40).to_bytes(11, "big"),
            b"\xff" * 11 + b"\x00",
            b"00000001000\x00",
            bytes(12),
            b"x" * 12,
        )
        kinds = (b"0", b"\x00", b"1", b"2", b"5", b"L", b"K", b"x", b"g", b"S", b"7", b"X", b"9")
        fields = {
            0: (b"b.jpg", b"../x.jpg", b"\xff\xfe.jpg", b"", b"x" * 100),
            124: sizes,
            156: kinds,
            257: (b"ustar",),
        }
        place = rng.choice(list(fields))
        piece = rng.choice(fields[place])
        content[begin + place : begin + place + len(piece)] = piece
        if rng.random() < 0.3:
            content[begin + rng.randrange(500)] = rng.randrange(256)
        block = content[begin : begin + 512]
        content[begin + 148 : begin + 156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:]))
    with_end = bytes(content)
    return with_end[: tarfile.BLOCKSIZE * rng.randrange(1, 12)] if rng.random() < 0.1 else with_end


def spliced(rng: Random, seeds: Sequence[bytes]) -> bytes:
    """The beginning of one input and the end of another."""
    first, second = rng.choice(seeds), rng.choice(seeds)
    return first[: rng.randrange(len(first) + 1)] + second[rng.randrange(len(second) + 1) :]
