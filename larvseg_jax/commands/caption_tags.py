"""Tags photos by their captions: python -m data_pipelines.caption_tags --from=DIR --wordnet=DIR --out=DIR."""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("from", None, "Folder with images/, captions.json and splits.json.", required=True)
    flags.text("wordnet", "/usr/share/wordnet", "Folder of WordNet's files (Debian: wordnet-base).")
    flags.text("out", None, "Data folder to be written.", required=True)
    flags.whole("classes", 200, "How many classes, the most frequent ones.", 1)


def main(given: Given) -> None:
    """Writes the folder and says what is in it."""
    from data_pipelines.caption_tags import write_tags

    source, wordnet, out = (Path(given.value(flag)).expanduser() for flag in ("from", "wordnet", "out"))
    counts = write_tags(source, wordnet, out, given.classes)
    print(f"{given.out}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
