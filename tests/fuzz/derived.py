"""Readers of what goes with photos besides masks: cached features, captions, WordNet's files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from random import Random

import numpy as np

from data_pipelines.caption_tags import write_tags
from data_pipelines.feature_files import DESCRIPTION, FeatureFacts, FeatureRecords, id_array, read_facts, write_shard
from data_pipelines.wordnet import WordNet, synsets
from larvseg_jax.evaluation.path_similarity import PathSimilarity
from tests.fuzz import mutations
from tests.fuzz.reader import Reader

_NOUNS = {
    "data.noun": "00001000 05 n 01 dog 0 001 @ 00001100 n 0000 | an animal\n00001100 18 n 01 man 0 000 | a person\n",
    "index.noun": "dog n 1 1 @ 1 1 00001000\nman n 1 1 @ 1 1 00001100\n",
    "noun.exc": "men man\n",
    "verb.exc": "does do\n",
    "cntlist.rev": "dog%1:05:00:: 1 42\nman%1:18:00:: 1 90\n",
}


def features_reader(folder: Path) -> Reader:
    """The description of cached features, and their records."""
    arrays = {"leading": ((1, 4), "float16"), "patches": ((2, 2, 4), "float16"), "tags": ((3,), "int32")}
    facts = FeatureFacts(
        *({"backbone/cls": 7}, {"width": 4}, {"crop_size": 4}, ("cat", "dog"), 1), photos=2, views=2, seed=0,
        arrays=arrays, records_per_shard=4, made={"weights": "x.npz"},
    )  # fmt: skip
    record = {"id": id_array("a"), **{name: np.zeros(shape, dtype) for name, (shape, dtype) in arrays.items()}}
    (kept := folder / "features").mkdir()
    ((shard, _),) = facts.shards(kept)
    write_shard(shard, [record] * 4)

    def mutate(rng: Random, data: bytes) -> bytes:
        """Half of the time of the shard, which then follows a mark."""
        if rng.random() < 0.5:
            return b"S" + mutations.changed_bytes(rng, shard.read_bytes())
        return mutations.changed_json(rng, data)

    def read(content: bytes, own: Path) -> None:
        own = own / "features"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        described = json.dumps(dataclasses.asdict(facts)).encode()
        (own / DESCRIPTION).write_bytes(described if content[:1] == b"S" else content)
        (own / shard.name).write_bytes(content[1:] if content[:1] == b"S" else shard.read_bytes())
        records = FeatureRecords(own, read_facts(own))
        for photo in range(min(len(records), 3)):
            records.read(photo, 0)

    return Reader("features", [json.dumps(dataclasses.asdict(facts)).encode()], mutate, read, 3)


def captions_reader(folder: Path) -> Reader:
    """captions.json and splits.json, one inside the other."""
    nouns = _wordnet(folder / "nouns", _NOUNS)
    both = {"captions": {"a.jpg": ["A dog", "two men"], "b.jpg": []}, "splits": {"train": ["a", "b.jpg"], "val": []}}

    def read(content: bytes, own: Path) -> None:
        source, out = own / "captions", own / "captions_out"
        for each in (source, out):
            shutil.rmtree(each, ignore_errors=True)
        (source / "images").mkdir(parents=True)
        found = mutations.parsed(content)
        for part in both:
            (source / f"{part}.json").write_text(json.dumps(found.get(part) if isinstance(found, dict) else found))
        write_tags(source, nouns, out, 10)

    return Reader("captions", [json.dumps(both).encode()], mutations.changed_json, read, 2)


def wordnet_reader() -> Reader:
    """WordNet's files, one after the other behind a line with its name."""

    def mutate(rng: Random, data: bytes) -> bytes:
        name = rng.choice(list(_NOUNS))
        changed = mutations.changed_bytes(rng, _NOUNS[name].encode()).decode("utf-8", "replace")
        return json.dumps({**json.loads(data), name: changed}).encode()

    def read(content: bytes, own: Path) -> None:
        files = _wordnet(own / "wordnet", mutations.parsed(content))
        nouns = WordNet(files)
        for word in ("dogs", "men", "x"):
            nouns.thing(word)
        kinds = {synset.id: synset.hypernyms for synset in synsets(files)}
        PathSimilarity(kinds, [("n00001000",), ("n00001100",)])(np.array([0]), np.array([1]))

    return Reader("wordnet", [json.dumps(_NOUNS).encode()], mutate, read, 2)


def _wordnet(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder
