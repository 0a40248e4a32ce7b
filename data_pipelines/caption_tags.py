"""Photos with captions -> photos with tags: python -m data_pipelines.caption_tags; flags: commands/caption_tags.py.

    FROM/images/            photos
    FROM/captions.json      {file name of a photo: [captions]}
    FROM/splits.json        {"train": [stems], "val": [stems], ...}

    OUT/images              a link to FROM/images
    OUT/classes.txt         the classes: those of --include, then others by how many training photos they are in
    OUT/splits.json         the same splits without the photos that have no tag, and "image_labels"
    OUT/tags.json           {stem: [classes]}, tags beside the masks of the same photos elsewhere (source.tags_file)

OUT is a data folder (listing.py) that a stream of tags reads. A class is a noun of a thing or ground (wordnet.py) that
is, in the singular, in the captions of many training photos; all persons are the class "person", because "man" and
"player" are names of the same region. Classes of --include are there whatever captions say; those of several words are
found as they stand, in the plural, too. A photo has a tag if one of its captions says so. What is not said is not
there: tags are far from complete.
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.caption_lists import read_caption_list
from data_pipelines.files import read_json
from data_pipelines.wordnet import WordNet
from larvseg_jax import cli
from larvseg_jax.disk import write_text
from larvseg_jax.errors import UserError

_NO_REGION = """
air arms camera closeup colors eats equipment facing female giant grinding hanging helping hind landing light male metal
neon orange photo photograph picture piece plaid plastic strip structure surface wind
"""
LEFT_OUT = frozenset(_NO_REGION.split())
"""Frequent nouns by which captions name no region: "in the air", "looks at the camera", "an orange shirt", and words
that WordNet has as another noun: "arms" (weapons), "eats" (food), "a skateboarder grinding"."""


def things_of(captions: Iterable[str], wordnet: WordNet) -> set[str]:
    """The things that captions name."""
    words = {word for caption in captions for word in re.findall(r"[^\W\d_]+", caption.lower())}
    found = (wordnet.thing(word) for word in words)
    return {"person" if thing[1] == "person" else thing[0] for thing in found if thing} - LEFT_OUT


def phrases_of(captions: Iterable[str], phrases: Iterable[str]) -> set[str]:
    """Those of some names of several words that captions have, also in the plural: "bus stop" in "Bus stops"."""
    text = "\n".join(" ".join(caption.lower().split()) for caption in captions)
    return {name for name in phrases if re.search(rf"\b{re.escape(name.lower())}(?:s|es)?\b", text)}


def most_frequent(things: Iterable[set[str]], count: int) -> list[str]:
    """The `count` names that are in most sets, most frequent first; of equally frequent ones the first by alphabet."""
    photos = collections.Counter(name for found in things for name in found)
    return sorted(photos, key=lambda name: (-photos[name], name))[:count]


def write_tags(source: Path, wordnet: Path, out: Path, count: int, include: Sequence[str] = ()) -> dict[str, int]:
    """Writes the folder `out`; how many classes and photos it has.

    Args:
      source: folder with images/, captions.json and splits.json.
      wordnet: folder of WordNet's files.
      out: must not exist.
      count: how many classes, at most.
      include: classes that are among them whatever captions say.

    Raises:
      UserError: a file is missing or has another form, `out` exists, or `include` is longer than `count`.
    """
    if out.exists():
        raise UserError(f"{out} exists: give --out a folder that does not exist yet")
    if len(include) > count:
        raise UserError(f"--classes={count} is less than the {len(include)} classes of --include: give more")
    if not (source / "images").is_dir():
        raise UserError(f"{source} has no folder images: give --from a folder with photos and captions.json")
    captions = _captions(source / "captions.json")
    splits = _splits(source / "splits.json", captions)
    nouns = WordNet(wordnet)
    phrases = [name for name in include if " " in name]
    things = {stem: things_of(lines, nouns) | phrases_of(lines, phrases) for stem, lines in captions.items()}
    others = ({*things[stem]} - {*include} for stem in splits["train"])
    names = [*include, *most_frequent(others, count - len(include))]
    ids = {name: i for i, name in enumerate(names)}
    tags = {stem: sorted(ids[name] for name in found if name in ids) for stem, found in sorted(things.items())}
    kept: dict[str, Any] = {name: [stem for stem in stems if tags[stem]] for name, stems in splits.items()}
    named = {stem for stems in kept.values() for stem in stems}
    kept["image_labels"] = {stem: labels for stem, labels in tags.items() if stem in named}
    out.mkdir(parents=True)
    (out / "images").symlink_to((source / "images").absolute())
    write_text(out / "classes.txt", "".join(f"{name}\n" for name in names), "make room")
    write_text(out / "splits.json", json.dumps(kept), "make room")
    listed = {stem: [names[label] for label in labels] for stem, labels in tags.items()}
    write_text(out / "tags.json", json.dumps(listed, ensure_ascii=False), "make room")
    return {"classes": len(names), **{name: len(stems) for name, stems in kept.items() if name != "image_labels"}}


def _captions(path: Path) -> dict[str, Sequence[str]]:
    """Stem -> captions."""
    return {Path(name).stem: lines for name, lines in read_caption_list(path, ()).items()}


def _splits(path: Path, captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The lists of stems in splits.json; a name with the ending of a file counts as its stem."""
    found = read_json(path)
    lists = {name: stems for name, stems in found.items() if _is_texts(stems)}
    if "train" not in lists:
        raise UserError(f'{path}: write {{"train": [names of photos], ...}}')
    stems = {name: [s if s in captions else Path(s).stem for s in listed] for name, listed in lists.items()}
    for name, listed in stems.items():
        if unknown := [stem for stem in listed if stem not in captions]:
            raise UserError(f"{path}: {unknown[0]} in {name} has no captions: add them, or leave it out of the split")
    return stems


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


if __name__ == "__main__":
    cli.run("caption_tags")
