"""Looks around in vocabularies: which classes there are, what they are called, what is a kind of what.

    larvseg vocab search dog               # classes called so or by a synonym, and branches of WordNet
    larvseg vocab list                     # the class lists of the package
    larvseg vocab list ade20k_150          # the classes of one
    larvseg vocab tree vehicle.n.01        # what is below a synset, with numbers of classes

Without --model it is about the class lists that ship with the package, with --model about the classes of that model;
`list` with --model and no name lists these (docs/vocabulary.md).
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from larvseg_jax.cli import Flags, Given
from larvseg_jax.console import printable
from larvseg_jax.errors import UserError
from larvseg_jax.shipped.shipped import path_of
from larvseg_jax.vocabulary import Vocabulary, browse
from larvseg_jax.vocabulary.choice import Names
from larvseg_jax.vocabulary.class_lists import class_list, keys, raw
from larvseg_jax.vocabulary.hierarchy import wordnet
from larvseg_jax.vocabulary.stated import aliases_in, lists_in
from larvseg_jax.weights.places import check_model, find_run, steps_named

TAKES_REST = True  # what to do, and with what
_TAKES = {"search": "TEXT", "list": "[NAME]", "tree": "SYNSET"}


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("model", None, "Folder of a run or of a checkpoint, or a .safetensors file; else all class lists.")
    flags.whole("step", None, "Step of the checkpoint; by default the newest.", least=0)
    flags.whole("depth", 2, "How far down the tree.", least=0)
    flags.whole("most", 30, "How many classes a search shows.", least=1)


def main(given: Given) -> None:
    """Prints what was asked for."""
    action, words = (given.rest or [""])[0], given.rest[1:]
    if action not in _TAKES:
        close = difflib.get_close_matches(action, _TAKES, n=1)
        does = " or ".join(f"{name} {takes}" for name, takes in _TAKES.items())
        raise UserError(f"vocab does not know {action!r}: {f'did you mean {close[0]}?' if close else f'give {does}'}")
    text = " ".join(words)
    if not text.strip() and action != "list":
        raise UserError(f"vocab {action} needs a word: give vocab {action} {_TAKES[action]}")
    if action == "list" and text:
        class_list(text)  # a mistyped name is answered at once
    if given.model is None:
        _print(_of_lists(action, text, given))
    else:
        check_model(path_of(given.model), given.step)
        _print(_of_model(action, text, given))


def _of_lists(action: str, text: str, given: Given) -> Sequence[str]:
    if action == "list":
        named = [f"{key}: {raw(key)['name']}" for key in keys()]
        return browse.listing(text, wordnet()) if text else named
    entries = browse.entries_of_lists(wordnet())
    if action == "tree":
        return browse.tree(text, entries, wordnet(), given.depth)
    return browse.search(text, entries, wordnet(), given.most)


def _of_model(action: str, text: str, given: Given) -> Sequence[str]:
    vocabulary, lists = vocabulary_of(path_of(given.model), given.step)
    names = Names(vocabulary, lists)
    if action == "list" and text:
        return browse.listing_in(text, names)
    entries = browse.entries_of_model(vocabulary, names)
    if action == "list":
        return browse.listing_of(entries, names.hierarchy)
    if action == "tree":
        return browse.tree(text, entries, names.hierarchy, given.depth)
    return browse.search(text, entries, names.hierarchy, given.most)


def vocabulary_of(path: Path, step: int | None) -> tuple[Vocabulary, tuple[str, ...]]:
    """The classes of a model, and the class lists that they were made of; its arrays stay where they are.

    Raises:
      UserError: it is damaged, or another's.
    """
    # Imported late: a mistyped word is answered before JAX has started.
    if path.is_file():
        from larvseg_jax.weights.safetensors_file import load_safetensors

        about = load_safetensors(path).metadata
        settings: Mapping[str, Any] = about.settings
        aliases = aliases_in(settings, path)
        vocabulary = Vocabulary(about.classes, about.base, about.novel, about.background, aliases=aliases)
    else:
        from larvseg_jax.config import from_config
        from larvseg_jax.weights.saved_step import read_record

        run, step = find_run(path, step)
        settings = read_record(run / "checkpoints" / str(steps_named(run)[-1] if step is None else step)).settings
        vocabulary = from_config(settings).vocabulary
    return vocabulary, lists_in(settings)


def _print(lines: Sequence[str]) -> None:
    try:
        print(*map(printable, lines), sep="\n", flush=True)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
