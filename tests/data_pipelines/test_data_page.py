"""docs/data.md: its table and its folders are those the builders know."""

import re
from pathlib import Path

import pytest

from data_pipelines.prepare import BUILDERS
from larvseg_jax.vocabulary.class_lists import class_list
from tests.data_pipelines.mask_trees import jpeg, write

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
TREES = re.findall(r"^```text (\w+)\n((?:.*\n)*?)```$", PAGE, re.M)


def test_the_table_lists_every_builder():
    table = re.search(r"^\|---.*\n((?:\|.*\n)+)", PAGE, re.M).group(1)
    rows = {name: line for line in table.splitlines() for name in re.findall(r"`(\w+)`", line)}
    assert rows.keys() == BUILDERS.keys()
    for name, builder in BUILDERS.items():
        if builder.MASKS:
            assert f"| {builder.EXPECTED['train']:,} / {builder.EXPECTED['val']:,} |" in rows[name]


@pytest.mark.parametrize(("name", "tree"), TREES)
def test_every_folder_shown_is_found(name, tree, tmp_path):
    paths = tree.split()
    if name == "imagenet_s_919":  # all of its synsets must be there
        synsets = enumerate(class_list(name).ids)
        paths = [p.replace("n01440764", s).replace("00000293", f"{i:08}") for i, s in synsets for p in paths]
    lists = {"train": "2007_000032\n2008_000002\n", "val": "2007_000033\n2008_000003\n"}
    lists = {split: "\n".join(p for p in text.split() if p in tree) for split, text in lists.items()}
    picture = jpeg(4)
    root = write(tmp_path, {path: lists.get(Path(path).stem, picture) for path in paths})
    builder = BUILDERS[name](data_dir=str(tmp_path / "out"))
    assert builder.layout(root)
    pieces = builder.pieces(root)
    assert list(pieces) == (["train", "val"] if builder.MASKS else ["train"])
    if builder.MASKS:
        for split in pieces:
            assert len({file for piece in pieces[split] for file in piece.files}) == (919 if "919" in name else 1)


def test_every_data_set_has_a_folder_shown():
    shown = {name for name, _ in TREES}
    assert BUILDERS.keys() - shown == {"imagenet21k_subset_124", "imagenet21k_subset_585", "captions"}
