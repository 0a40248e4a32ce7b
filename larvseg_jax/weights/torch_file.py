"""Reads the tensors of a PyTorch file (.pth) without PyTorch, and without running anything the file asks for.

Such a file is a zip archive with a pickle and one entry per storage. A pickle can call any function;
here it gets four, which only describe tensors, and classes of modules (TorchScript archives, which `torch.jit.save`
writes), which hold what they are given. Everything else becomes an inert object without content.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from larvseg_jax.errors import UserError
from larvseg_jax.weights.zip_members import check_members, check_size, read_member

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_WRAPPERS = ("state_dict", "model")  # keys under which mmcv and many others keep the state dict
_DEEPEST = 100  # nesting of tuples in a pickle: one as a key is hashed by C code, which ends the process at some 60,000
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of PyTorch before 1.6 begin


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in its file; `read` gets it.

    Attributes:
      file, archive: the file, and the folder inside it that holds the storages.
      storage: name of its storage; `dtype` and `count` say what that holds.
      offset, shape, strides: which elements of the storage it has, in elements.
    """

    file: Path
    archive: str
    storage: str
    dtype: np.dtype
    count: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Its values; UserError if the file does not hold them."""
        entry = f"{self.archive}/data/{self.storage}"
        try:
            with zipfile.ZipFile(self.file) as archive:
                size, needed = archive.getinfo(entry).file_size, self.count * self.dtype.itemsize
                if size != needed:  # before anything is unpacked
                    raise ValueError(f"{entry} has {size} bytes and not {needed}")
                return self._view(np.frombuffer(read_member(archive, entry), self.dtype))
        except Exception as error:  # whatever a damaged archive may provoke
            raise UserError(f"{self.file} is damaged ({_reason(error)}): copy it anew") from error

    def _view(self, content: np.ndarray) -> np.ndarray:
        size = math.prod(self.shape)
        last = (
            self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)) if size else 0
        )
        if last >= max(len(content), 1) or size > len(content):
            raise ValueError(f"a tensor of shape {self.shape} lies outside its storage of {len(content)}")
        start, strides = content[self.offset :], [step * self.dtype.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(start, self.shape, strides).copy()


def read_state_dict(path: Path) -> dict[str, StoredTensor]:
    """The tensors of {"state_dict": ...}, {"model": ...}, a plain state dict or a TorchScript module.

    A prefix "module." is dropped. Tensors of a TorchScript module's parts have the parts' names in front, with dots.

    Raises:
      UserError: there is no such file, it has the format of PyTorch before 1.6, it cannot be read, or its tensors
        claim to be larger than the file can hold.
    """
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(_OLD_FORMAT))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): give a .pth file") from error
    if begin == _OLD_FORMAT:
        raise UserError(
            f"{path} has the format of PyTorch before 1.6: convert it once where PyTorch is installed, "
            f"python -c \"import torch; torch.save(torch.load('{path}', map_location='cpu'), 'new.pth')\""
        )
    content = _unpickle(path)
    try:
        content = _joined(content) if isinstance(content, _Module) else content
    except ValueError as error:
        raise UserError(f"{path} is damaged or of another kind ({error}): copy it anew") from error
    state = content if isinstance(content, Mapping) else {}
    state = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), state)
    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, StoredTensor)}
    if not tensors:
        raise UserError(f"{path} holds no state dict: give a file saved by mmcv, or by torch.save(model.state_dict())")
    named = {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}
    try:
        if len(named) < len(tensors):
            raise ValueError('two tensors have one name, with and without "module."')
        check_size(sum(math.prod(t.shape) * t.dtype.itemsize for t in named.values()), path, "its tensors are")
    except ValueError as error:
        raise UserError(f"{path} is damaged or of another kind ({error}): copy it anew") from error
    return named


def _unpickle(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, path)
            names = archive.namelist()
            (pickled,) = (name for name in names if name.count("/") == 1 and name.endswith("/data.pkl"))
            folder = pickled.removesuffix("/data.pkl")
            order = read_member(archive, f"{folder}/byteorder") if f"{folder}/byteorder" in names else b"little"
            if order.strip() != b"little":
                raise ValueError("its numbers are big-endian")
            program = read_member(archive, pickled)
        _check_pickle(program)
        return _Unpickler(io.BytesIO(program), path, folder).load()
    except Exception as error:  # whatever a damaged or hostile pickle may provoke
        raise UserError(
            f"cannot read {path} as a PyTorch file ({_reason(error)}): it is damaged or of another kind"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _check_pickle(program: bytes) -> None:
    """ValueError for a pickle whose reading takes more memory than it has bytes, or tuples too deep to be hashed.

    The stack of the program is gone through with the nesting of each value in the place of the value; None is a mark.
    """
    stack: list[int | None] = []
    memo: dict[int, int | None] = {}
    for opcode, argument, _ in pickletools.genops(program):
        name, key = opcode.name, argument or 0
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            if key > len(program):  # the unpickler's memo is as long as the largest number
                raise ValueError(f"a memo of {key} entries")
            memo[key] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[key])
        else:
            taken: list[int] = []
            for kind in reversed(opcode.stack_before):
                if kind is pickletools.stackslice:
                    while stack[-1] is not None:
                        taken.append(stack.pop() or 0)
                else:
                    taken.append(stack.pop() or 0)
            depth = max(taken, default=0) + name.startswith("TUPLE")
            if depth > _DEEPEST:
                raise ValueError(f"tuples nested more than {_DEEPEST} deep")
            stack += [None if kind is pickletools.markobject else depth for kind in opcode.stack_after]


class _Unpickler(pickle.Unpickler):
    """Knows tensors and ordered dictionaries; nothing from the file is imported or called."""

    def __init__(self, stream: Any, path: Path, archive: str) -> None:
        super().__init__(stream, encoding="utf-8")
        self._path, self._archive = path, archive

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Callable(lambda: collections.OrderedDict())  # with arguments it would copy them, again and again
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Callable(self._tensor)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _Callable(lambda tensor, *_: tensor)
        if module == "torch" and name in _DTYPES:
            return _StorageType(np.dtype(_DTYPES[name]))
        # A new class each time: whatever the pickle sets on it reaches nothing else.
        if module == "__torch__" or module.startswith("__torch__."):
            return type("Module", (_Module,), {})
        return type("Inert", (_Inert,), {})

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _location, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            return _Inert()
        return _Storage(str(key), storage_type.dtype, int(count))

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
        if not isinstance(storage, _Storage):
            return _Inert()
        for number in (offset, *shape, *strides):
            if type(number) is not int or not 0 <= number < 2**63:
                raise ValueError(f"a tensor with {str(number)[:40]} among its sizes")
        where = self._path, self._archive, storage.key, storage.dtype, storage.count
        return StoredTensor(*where, offset, tuple(shape), tuple(strides))


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    count: int


class _Callable:
    """One of the functions a pickle may call; it cannot be changed by the pickle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, _state: Any) -> None:
        pass


def _joined(module: _Module) -> dict[str, StoredTensor]:
    """The tensors of a module and of the modules in it, by their names joined with dots.

    ValueError if a module is in more than one place: a file could name so many tensors that way, or end in itself.
    """
    found: dict[str, StoredTensor] = {}
    seen, waiting = {id(module)}, [("", module)]
    while waiting:
        prefix, of = waiting.pop()
        for name, value in of.state.items():
            if isinstance(value, StoredTensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, _Module):
                if id(value) in seen:
                    raise ValueError(f"the module {name!r} is in two places")
                seen.add(id(value))
                waiting.append((f"{prefix}{name}.", value))
    return found


class _Inert:
    """Stands for an object that is not read; takes everything a pickle can do to one."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _item: Any) -> None:
        """List items of a pickle."""

    def extend(self, _items: Any) -> None:
        """Likewise."""

    def add(self, _item: Any) -> None:
        """Set items of a pickle."""


class _Module(_Inert):
    """A module of a TorchScript archive: the attributes it was saved with, submodules among them."""

    state: Mapping[Any, Any]

    def __new__(cls, *_args: Any, **_kwargs: Any) -> _Module:
        module = object.__new__(cls)
        module.state = {}  # a pickle makes objects without __init__
        return module

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, Mapping) else {}
