"""Generated scenes with captions that are made of their classes: pairs to learn from, and masks to measure by.

  images/, masks/     train_00000.png, ..., val_00000.png, ...; masks with all classes, by their numbers in CLASSES
  classes.txt         CLASSES
  captions.json       up to CAPTIONS different captions a picture
  splits.json         "train", "val"; and "image_labels": the classes of each picture

A caption names the objects of the picture, and its grounds behind "on", "in front of" or the like: "a photo of a sheep
and a tree on grass". Drawn for each: the frame, the order, now and then another word for a class, and classes that it
does not mention. Picture i and its captions are a pure function of (split, i, grounds), as all scenes are.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.scenes.classes import BASE_GROUNDS, CLASSES, Grounds
from data_pipelines.scenes.drawing import Dice
from data_pipelines.scenes.pictures import SEED, captioned_scene
from larvseg_jax.console import track
from larvseg_jax.disk import write_bytes, write_text
from larvseg_jax.errors import UserError
from larvseg_jax.text.word_tokenizer import words_in

CAPTIONS = 3
"""Captions of a picture, at most."""
VALIDATION = 500
"""Pictures of the split "val"."""

_FRAMES = ("a photo of {}", "a picture of {}", "an image of {}", "there is {}", "we see {}", "{}")
_BEHIND = {
    "sky": ("under the {}", "in front of the {}"),
    "brick": ("in front of {}", "in front of the {}"),
    "wood": ("on {}", "in front of {}"),
    "water": ("on {}", "in {}", "in the {}"),
    "snow": ("on {}", "in {}", "in the {}"),
}
_ON = ("on {}", "on the {}")
_SYNONYMS = {
    "grass": ("lawn", "meadow"), "water": ("lake", "sea"), "sand": ("beach",), "road": ("street",),
    "brick": ("bricks",), "wood": ("planks",), "boat": ("ship",), "house": ("building",), "flower": ("blossom",),
    "sign": ("signpost",), "sheep": ("lamb",), "bus": ("coach",), "cow": ("bull",), "ball": ("globe",),
}  # fmt: skip
_GROUNDS = (*BASE_GROUNDS, "ice")
_SMALL_WORDS = ("a", "an", "and", "with")

_PHRASES = (*_FRAMES, *_ON, *(phrase for phrases in _BEHIND.values() for phrase in phrases), *_SMALL_WORDS)
WORDS = tuple(
    dict.fromkeys(
        [*CLASSES, *(word for words in _SYNONYMS.values() for word in words)]
        + [word for phrase in _PHRASES for word in words_in(phrase)]
    )
)
"""All words of the captions, for TokenizerConfig(kind="words")."""


_SPLITS = ("train", "val")


def caption(classes: Sequence[str], dice: Dice) -> str:
    """A sentence on a picture that shows these classes, at least one of them."""
    spoken = [name for name in classes if not dice.chance(1, 6)] or [dice.pick(classes)]
    spoken = _shuffled(spoken, dice)
    objects = [_article(_word(name, dice)) for name in spoken if name not in _GROUNDS]
    grounds = [name for name in spoken if name in _GROUNDS]
    frame = dice.pick(_FRAMES)
    if not objects:
        return frame.format(_joined([_word(name, dice) for name in grounds]))
    places = [dice.pick(_BEHIND.get(name, _ON)).format(_word(name, dice)) for name in grounds]
    return frame.format(" ".join([_joined(objects, dice), *places]))


def captions_of(classes: Sequence[str], split: str, index: int) -> list[str]:
    """The captions of picture `index` of a split, none twice."""
    dice = Dice(SEED, _SPLITS.index(split), index, 1)
    return list(dict.fromkeys(caption(classes, dice) for _ in range(CAPTIONS)))


def write_captioned(folder: str | Path, pairs: int, grounds: Grounds = "several") -> Path:
    """Writes `pairs` pictures to learn from and VALIDATION others, with captions and masks; returns the folder.

    Raises:
      UserError: there is something in it already, or it cannot be written.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: give a new folder")
    names = [(split, i) for split, count in zip(_SPLITS, (pairs, VALIDATION), strict=True) for i in range(count)]
    captions: dict[str, list[str]] = {}
    splits: dict[str, list[str]] = {split: [] for split in _SPLITS}
    labels: dict[str, list[int]] = {}
    for split, i in track(names, len(names), "scenes"):
        stem = f"{split}_{i:05d}"
        image, mask = captioned_scene(_SPLITS.index(split), i, grounds)
        labels[stem] = np.unique(mask).tolist()
        captions[f"{stem}.png"] = captions_of([CLASSES[c] for c in labels[stem]], split, i)
        splits[split].append(stem)
        write_bytes(folder / "images" / f"{stem}.png", _png(image))
        write_bytes(folder / "masks" / f"{stem}.png", _png(mask.astype(np.uint8)))
    write_text(folder / "classes.txt", "".join(f"{name}\n" for name in CLASSES))
    write_text(folder / "captions.json", json.dumps(captions, indent=0))
    write_text(folder / "splits.json", json.dumps({**splits, "image_labels": labels}))
    return folder


def _word(name: str, dice: Dice) -> str:
    """The class's name, or in one case of four another word where there is one."""
    return dice.pick(_SYNONYMS[name]) if name in _SYNONYMS and dice.chance(1, 4) else name


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _joined(words: Sequence[str], dice: Dice | None = None) -> str:
    """As "x", "x and y", "x, y and z"; with dice, in one case of four "with" instead of "and"."""
    link = " with " if dice is not None and dice.chance(1, 4) else " and "
    return link.join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _shuffled(names: Sequence[str], dice: Dice) -> list[str]:
    left = list(names)
    return [left.pop(dice.below(len(left))) for _ in names]


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()
