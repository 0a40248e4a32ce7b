"""Makes the file of WordNet's nouns in the package: python -m data_pipelines.pack_wordnet --wordnet=DIR --out=FILE.

For who maintains it: what it was made of is WordNet 3.0 (Debian: wordnet-base), whose numbers ImageNet's ids are.
"""

from __future__ import annotations

from pathlib import Path

from larvseg_jax.cli import Flags, Given
from larvseg_jax.commands._places import check_folder, check_output


def define(flags: Flags) -> None:
    """Adds the flags."""
    flags.text("wordnet", "/usr/share/wordnet", "Folder of WordNet's files (Debian: wordnet-base).")
    flags.text("out", None, "The file to be written, a name that ends in .gz.", required=True)


def main(given: Given) -> None:
    """Writes the file and says how large it is."""
    check_folder(given.wordnet, "wordnet")
    check_output(given.out, "out", ".gz")
    from data_pipelines.pack_wordnet import write_packed

    size = write_packed(Path(given.wordnet).expanduser(), Path(given.out))
    print(f"{given.out}: {size:,} bytes")
