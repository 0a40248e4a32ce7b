"""PyTorch files without PyTorch: every tensor as it was saved, and nothing in a file is ever run."""

import collections
import pickle
from pathlib import Path

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.weights.original import OriginalCheckpoint
from larvseg_jax.weights.torch_file import read_state_dict
from tests.weights.pth_files import TINY, Raw, call, numbers, opcodes, write_pth


def test_a_real_file_is_read_value_by_value():
    """The names and shapes are those of the script that made it; so are the odd layouts of four of its tensors."""
    tensors = read_state_dict(TINY)
    assert len(tensors) == 6 + 2 * 12 + 8
    for name, tensor in tensors.items():
        values = tensor.read()
        if name in ("decode_head.ptr", "decode_head.full"):
            assert values.dtype == np.int64
            np.testing.assert_array_equal(values, np.arange(247) % (2 if name.endswith("ptr") else 3))
            continue
        dtype = np.float16 if name == "backbone.ln1.bias" else np.float32
        assert values.dtype == dtype
        np.testing.assert_array_equal(values, numbers(name, values.shape, dtype), err_msg=name)
    assert tensors["decode_head.proj_classes"].strides == (1, 16)
    assert tensors["decode_head.proj_patch"].offset == 16


HOSTILE = {
    "system": lambda mark: call("os", "system", f"touch {mark}"),
    "posix": lambda mark: call("posix", "system", f"touch {mark}"),
    "eval": lambda mark: call("builtins", "eval", f"open({str(mark)!r}, 'w')"),
    "getattr": lambda mark: call("builtins", "getattr", call("builtins", "open", str(mark), "w"), "write"),
    "torch": lambda mark: call("torch._utils", "os.system", f"touch {mark}"),
    "storage": lambda mark: call("torch", "FloatStorage.__class__", f"touch {mark}"),
}


@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE)
def test_nothing_in_a_file_is_ever_run(tmp_path, attack):
    mark = tmp_path / "mark"
    weights = {"w": np.arange(3, dtype=np.float32)}
    path = write_pth(tmp_path / "bad.pth", {"meta": {"x": attack(mark)}, "state_dict": weights})
    np.testing.assert_array_equal(read_state_dict(path)["w"].read(), weights["w"])
    assert not mark.exists()
    # The attack itself works: plain pickle would have run it.
    if attack is HOSTILE["system"]:
        pickle.loads(b"\x80\x02" + attack(mark) + b".")
        assert mark.exists()


def test_a_pickle_cannot_change_the_classes_of_the_reader(tmp_path):
    """BUILD with a pair of dictionaries sets attributes of any object, of a class too."""
    state = b"(N}(X\x0b\x00\x00\x00__setitem__ccollections\nOrderedDict\nutb"
    before = vars(collections.OrderedDict).copy()
    for victim in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"cmmcv\nConfig\n", b"ctorch\nFloatStorage\n"):
        content = {"meta": {"x": Raw(victim + state)}, "w": np.ones(2, np.float32)}
        path = write_pth(tmp_path / "bad.pth", content)
        try:
            tensors = read_state_dict(path)
        except UserError:
            tensors = {}
        assert not tensors or tensors["w"].read().tolist() == [1, 1]
        good = write_pth(tmp_path / "good.pth", {"w": np.ones(2, np.float32)})
        assert read_state_dict(good)["w"].read().tolist() == [1, 1]
    assert vars(collections.OrderedDict) == before


def tensor_outside(path):
    storage = Raw(opcodes(("storage", Raw(b"ctorch\nFloatStorage\n"), "0", "cpu", 2)) + b"Q")
    tensor = call("torch._utils", "_rebuild_tensor_v2", storage, 1, (2,), (1,), False, {})
    return write_pth(path, {"w": tensor}, {"archive/data/0": bytes(8)})


def wrong_length(path):
    storage = Raw(opcodes(("storage", Raw(b"ctorch\nFloatStorage\n"), "0", "cpu", 2)) + b"Q")
    tensor = call("torch._utils", "_rebuild_tensor_v2", storage, 0, (2,), (1,), False, {})
    return write_pth(path, {"w": tensor}, {"archive/data/0": bytes(12)})


def endless(path):
    storage = Raw(opcodes(("storage", Raw(b"ctorch\nFloatStorage\n"), "0", "cpu", 2)) + b"Q")
    tensor = call("torch._utils", "_rebuild_tensor_v2", storage, 0, (2**30, 2**30), (0, 0), False, {})
    return write_pth(path, {"w": tensor}, {"archive/data/0": bytes(8)})


@pytest.mark.parametrize("write", [tensor_outside, wrong_length, endless])
def test_tensors_that_are_not_in_their_file_are_refused(tmp_path, write):
    with pytest.raises(UserError, match="is damaged"):
        read_state_dict(write(tmp_path / "bad.pth"))["w"].read()


def test_a_storage_is_read_in_its_own_type(tmp_path):
    values = {"a": np.array([1.5, -2], np.float16), "b": np.array([[2**40]]), "c": np.array(0.1)}
    read = {n: t.read() for n, t in read_state_dict(write_pth(tmp_path / "x.pth", values)).items()}
    for name, value in values.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / "bad.pth"
    if kind == "old":
        path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"rest")  # PyTorch's magic number
    elif kind == "text":
        path.write_text("no weights")
    elif kind == "cut off":
        path.write_bytes(TINY.read_bytes()[:-200])
    elif kind == "changed byte":
        content = bytearray(TINY.read_bytes())
        content[content.index(b"backbone.cls_token") + 200] ^= 0xFF
        path.write_bytes(content)
    elif kind == "no tensors":
        write_pth(path, {"state_dict": {"a": 1}})
    elif kind == "another network":
        write_pth(path, {"conv.weight": np.zeros(3, np.float32)})
    elif kind == "big-endian":
        write_pth(path, {"w": np.zeros(3, np.float32)}, {"archive/byteorder": b"big"})
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("absent", "cannot read .*bad.pth .No such file"),
        ("old", r"before 1\.6: convert it once .*torch\.save\(torch\.load\("),
        ("text", "cannot read .* as a PyTorch file"),
        ("cut off", "cannot read .* as a PyTorch file"),
        ("changed byte", "cannot read .* as a PyTorch file .BadZipFile"),
        ("no tensors", "holds no state dict"),
        ("another network", "has no backbone.cls_token .but conv.weight"),
        ("big-endian", "big-endian"),
    ],
)
def test_files_that_are_no_checkpoint_say_why(tmp_path, kind, message):
    with pytest.raises(UserError, match=message) as caught:
        OriginalCheckpoint.open(bad_file(tmp_path, kind))
    assert "\n" not in str(caught.value)
