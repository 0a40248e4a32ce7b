"""Writes .pth files by hand, and knows what is in the one that PyTorch wrote (tests/data/README.md)."""

import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np

TINY = Path(__file__).parent.parent / "data" / "original_tiny.pth"
STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "float64": "DoubleStorage"}


class Raw(bytes):
    """Pickle opcodes to be taken as they are."""


def opcodes(value) -> bytes:
    """A value as pickle opcodes of protocol 2."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, dict):
        return b"ccollections\nOrderedDict\n)R(" + b"".join(opcodes(k) + opcodes(v) for k, v in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def call(module: str, name: str, *args) -> Raw:
    """What calls a function when it is unpickled."""
    return Raw(f"c{module}\n{name}\n".encode() + opcodes(args) + b"R")


def write_pth(path: Path, content: dict, extra: dict | None = None) -> Path:
    """Writes nested dictionaries of NumPy arrays as torch.save does, without PyTorch."""
    storages = {}

    def prepared(value):
        if isinstance(value, dict):
            return {k: prepared(v) for k, v in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        key = str(len(storages))
        storages[key] = value.tobytes()
        kind = Raw(f"ctorch\n{STORAGES[value.dtype.name]}\n".encode())
        storage = Raw(opcodes(("storage", kind, key, "cuda:0", value.size)) + b"Q")
        strides = tuple(s // value.itemsize for s in value.strides)
        return call("torch._utils", "_rebuild_tensor_v2", storage, 0, value.shape, strides, False, {})

    with zipfile.ZipFile(path, "w") as archive:
        pickle = zipfile.ZipInfo("archive/data.pkl")  # as of 1980: the same bytes at any time
        archive.writestr(pickle, b"\x80\x02" + opcodes(prepared(content)) + b".")
        for key, value in storages.items():
            archive.writestr(zipfile.ZipInfo(f"archive/data/{key}"), value)
        for name, value in (extra or {}).items():
            archive.writestr(zipfile.ZipInfo(name), value)
    return path


def numbers(name, shape, dtype=np.float32):
    """The formula of tests/data/README.md."""
    places = np.arange(np.prod(shape, dtype=int)) * 2654435761 + zlib.crc32(name.encode())
    return (places % 2**16 / 2**16 - 0.5).astype("float32").reshape(shape).astype(dtype)
