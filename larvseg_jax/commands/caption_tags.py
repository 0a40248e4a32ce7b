"""Tags photos by their captions: python -m data_pipelines.caption_tags --from=DIR --wordnet=DIR --out=DIR."""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.vocabulary.free_names import free_names


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("from", None, "Folder with images/, captions.json and splits.json.", required=True)
    flags.text("wordnet", "/usr/share/wordnet", "Folder of WordNet's files (Debian: wordnet-base).")
    flags.text("out", None, "Data folder to be written.", required=True)
    flags.whole("classes", 200, "How many classes, the most frequent ones.", 1)
    flags.texts("include", "Of these, names, class lists or files of names that are there in any case.")


def main(given: Given) -> None:
    """Writes the folder and says what is in it."""
    from data_pipelines.caption_tags import write_tags

    source, wordnet, out = (Path(given.value(flag)).expanduser() for flag in ("from", "wordnet", "out"))
    include = free_names(given.include) if given.include else ()
    counts = write_tags(source, wordnet, out, given.classes, include)
    print(f"{given.out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
