"""Files of text vectors: read by name, in the order asked for, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest

from larvseg_jax.errors import UserError
from larvseg_jax.text.vectors import TextClasses, read_text_vectors, write_text_vectors

VECTORS = np.array([[3, 0, 4], [0, 2, 0], [1, 0, 0]], np.float32)


@pytest.fixture
def file(tmp_path):
    write_text_vectors(tmp_path / "v.npz", ["wall-brick", "Dog", "dog"], VECTORS, templates="a photo of a {}.")
    return tmp_path / "v.npz"


def test_vectors_come_in_the_order_of_the_names_and_have_length_one(file):
    found = read_text_vectors(file, ["dog", "wall brick", "Dog", "DOG"])
    np.testing.assert_allclose(found, [[1, 0, 0], [0.6, 0, 0.8], [0, 1, 0], [0, 1, 0]], rtol=1e-6)
    np.testing.assert_array_equal(TextClasses(str(file), 3).read(["dog"]), [[1, 0, 0]])


def test_what_is_missing_is_named(file):
    with pytest.raises(UserError, match="has no vector of 'cat', 'a', 'b' and 2 more"):
        read_text_vectors(file, ["cat", "dog", *"abcd"])
    with pytest.raises(UserError, match="vectors of 3 numbers, and width=512"):
        TextClasses(str(file), 512).read(["dog"])
    with pytest.raises(UserError, match="the file and its width, or neither"):
        TextClasses("", 512)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file: file.unlink(), "does not exist"),
        (lambda file: file.write_bytes(b"no archive"), "no file of text vectors"),
        (lambda file: file.write_bytes(file.read_bytes()[:200]), "no file of text vectors"),
        (lambda file: np.savez(file, vectors=VECTORS), "no file of text vectors"),
        (lambda file: np.savez(file, names=np.array(["a"]), vectors=VECTORS), "do not belong together"),
        (lambda file: np.savez(file, names=np.array(list("abc")), vectors=0 * VECTORS), "'a' is zero or not finite"),
    ],
)
def test_no_other_file_is_taken_for_one(file: Path, spoil, said):
    spoil(file)
    with pytest.raises(UserError, match=said):
        read_text_vectors(file, ["dog"])
