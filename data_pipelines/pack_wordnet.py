"""WordNet's nouns as one file, that of the package: python -m data_pipelines.pack_wordnet --wordnet=DIR --out=FILE.

The file, which vocabulary/hierarchy.py reads, is text in UTF-8, compressed by gzip: WordNet's licence notice, indented,
an empty line, and then a line for each synset, in ascending order of ids, of three columns separated by tabs:

    how far its id is from the one before it
    how many lines above this one its hypernyms stand, separated by commas, the first hypernym first
    its words, separated by blanks, "dog" for the word's first sense, "dog%2" for its second

All of this is to be small: half of what ids and words would be as they are.
"""

from __future__ import annotations

import gzip
import textwrap
from pathlib import Path

from data_pipelines.wordnet import licence, synsets
from larvseg_jax import cli
from larvseg_jax.disk import write_bytes


def packed(folder: Path) -> str:
    """The file's text.

    Args:
      folder: of WordNet's files; data.noun and index.noun are read.

    Raises:
      UserError: a file is missing or is not WordNet's.
    """
    found = list(synsets(folder))
    place = {synset.id: i for i, synset in enumerate(found)}
    lines = [textwrap.indent(licence(folder), "  ", lambda _: True), "\n"]
    before = 0
    for i, synset in enumerate(found):
        number = int(synset.id[1:])
        above = ",".join(str(i - place[up]) for up in synset.hypernyms)
        words = " ".join(word if sense == 1 else f"{word}%{sense}" for word, sense in synset.words)
        lines.append(f"{number - before}\t{above}\t{words}\n")
        before = number
    return "".join(lines)


def write_packed(folder: Path, out: Path) -> int:
    """Writes the file `out` and returns its size in bytes."""
    data = gzip.compress(packed(folder).encode(), 9, mtime=0)
    write_bytes(out, data)
    return len(data)


if __name__ == "__main__":
    cli.run("pack_wordnet")
