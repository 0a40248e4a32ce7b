"""From a checkpoint or an exported file to a trained model: the one way, for everybody who uses one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from larvseg_jax.config import Experiment, from_config, network_sections
from larvseg_jax.console import console
from larvseg_jax.devices.mesh import WHOLE, make_mesh
from larvseg_jax.devices.sharding import path_name
from larvseg_jax.errors import UserError
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.evaluation.novel_offset import with_novel_offset
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.methods.method import Consults, Dense, Method, MethodConfig, Reader, ReadsText, Task
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.options import merged, read
from larvseg_jax.report.metric_log import FILE_NAME, read_history
from larvseg_jax.vocabulary import LabelSet, Vocabulary
from larvseg_jax.vocabulary.stated import aliases_in, lists_in
from larvseg_jax.weights.clip_model import ClipModel, clip_model
from larvseg_jax.weights.learnt import all_weights, check_needs_none
from larvseg_jax.weights.pretrained import fit
from larvseg_jax.weights.safetensors_file import SUFFIX, load_safetensors
from larvseg_jax.weights.stored_checkpoint import read_checkpoint


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
      method: with tables of just as many rows as there are classes.
      params: its parameters, whole on every device of its mesh.
      memory: its memory, likewise; None where it was not asked for or is not stored.
      vocabulary: the classes, row by row.
      settings: the config it was trained by; for files of the original what makes the network.
      source: run or file.
      step: steps of training; -1 where the source does not say.
      versions: of the packages it was trained with, and the commit.
    """

    method: Method
    params: PyTree
    memory: PyTree | None
    vocabulary: Vocabulary
    settings: Mapping[str, Any]
    source: Path
    step: int
    versions: Mapping[str, str]

    @property
    def windows(self) -> Windows:
        """How its own first evaluation, by name, cuts photos; as the original does where nothing is said."""
        return self._evaluation.windows

    @property
    def novel_offset(self) -> float:
        """What that evaluation adds to the scores of novel classes."""
        return self._evaluation.novel_offset

    @property
    def _evaluation(self) -> EvalConfig:
        evaluations = self.settings.get("evals", {})
        if not evaluations:
            return EvalConfig()
        first = min(evaluations)
        return read(EvalConfig, evaluations[first], f"evals.{first}")

    def with_novel_offset(self, offset: float) -> Trained:
        """The same model with another `novel_offset`; UserError if it is not finite."""
        evaluations = self.settings.get("evals", {})
        first = min(evaluations, default="val")
        changed = {**evaluations.get(first, {}), "choose_novel_offset": False, "novel_offset": offset}
        trained = dataclasses.replace(self, settings={**self.settings, "evals": {**evaluations, first: changed}})
        _ = trained.novel_offset
        return trained

    def scorer(self, label_set: LabelSet) -> Dense:
        """How it scores the classes of a label set of its vocabulary, `novel_offset` included."""
        return with_novel_offset(self.method.scorer(label_set), label_set.names, self.vocabulary, self.novel_offset)

    @property
    def class_lists(self) -> tuple[str, ...]:
        """The class lists that its vocabulary was made of, if it was."""
        return lists_in(self.settings)

    def experiment(self, config: ml_collections.ConfigDict | None = None, data_root: str | None = None) -> Experiment:
        """The run it comes from, or another config of the same classes; UserError if these differ."""
        run = _experiment(self.source, config if config is not None else self.settings)
        if run.vocabulary.classes != self.vocabulary.classes:
            there, here = len(self.vocabulary.classes), len(run.vocabulary.classes)
            raise UserError(
                f"{self.source} was trained with another vocabulary ({there} classes, here {here}): "
                "give a config with the same classes in the same order"
            )
        return run if data_root is None else dataclasses.replace(run, data_root=Path(data_root))


def load_trained(
    path: Path | str,
    step: int | None = None,
    *,
    memory: bool = False,
    mesh: Mesh | None = None,
    pretrained: Path | str | None = None,
    classes: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Trained:
    """Reads a model; no data set is needed.

    Args:
      path: folder of a run (its newest checkpoint, or that of `step`), of a checkpoint, a .safetensors file; or a CLIP
        as OpenAI, open_clip or Hugging Face store it, which has no list of classes.
      step: which checkpoint of the run.
      memory: read the method's memory, too; else only if its scores need it.
      mesh: where it is to live; by default on one device.
      pretrained: the weights that were left out of a file (`export --learnt`), in what `config.pretrained` named.
      classes: names, the vocabulary of a CLIP. Other models have their own, but where they read text and some of the
        names are not in it, these are it.
      options: the section `method` of a config that says how to score, if not as in training (ViL-Seg: K-means in
        place of its head, CEL: a CLIP's help), or some options of it; passed over if it names another method. A CLIP
        knows its sizes itself.

    Raises:
      UserError: there is nothing of the kind, it is damaged, it does not fit its own description, or `pretrained` is
        missing, another file, or not needed; or no classes are given for a CLIP.
    """
    path, mesh = Path(path), mesh or make_mesh(1, 1, jax.devices()[:1])
    pretrained = None if pretrained is None else Path(pretrained)
    if path.suffix == SUFFIX or path.is_file():
        if step is not None:
            raise UserError(f"{path} is one file: leave the step {step} out")
        clip = clip_model(path)
        if clip is not None:
            check_needs_none(path, pretrained)
            return _clip(path, clip, classes, options or {}, mesh)
        saved = load_safetensors(path)
        about = saved.metadata
        vocabulary = Vocabulary(
            about.classes, about.base, about.novel, about.background, aliases=aliases_in(about.settings, path)
        )
        settings = _with_options(about.settings, options)
        network = _network(path, settings, len(saved.params) + len(about.frozen))
        params = dict(all_weights(saved, path, pretrained, network[1]))
        stored = dict(saved.memory)
        method = _method(network, vocabulary, mesh)
        step, versions = about.step, about.versions
    else:
        check_needs_none(path, pretrained)
        found = read_checkpoint(path, step)
        record = found.record
        vocabulary = _experiment(path, record.settings).vocabulary
        if vocabulary.classes != record.classes:
            raise UserError(f"{path}: its settings give other classes than its record: it is damaged")
        settings = _with_options(record.settings, options)
        method = _method(_network(path, settings, len(found.params)), vocabulary, mesh)
        params, stored = dict(found.params), {}
        settings, step, versions = _with_chosen_offset(settings, path, found.step), found.step, record.versions
        if memory or method.scorer(vocabulary.label_set()).reads_memory:
            stored = dict(read_checkpoint(path, found.step, memory=True).memory)
    if isinstance(method, ReadsText) and not {*(classes or ())} <= {*vocabulary.classes}:
        vocabulary = Vocabulary(tuple(classes or ()))
        method = _method(network_sections(settings), vocabulary, mesh)
    layout, memory_layout = jax.eval_shape(method.init, jax.random.key(0))
    filled = _filled(layout, params, mesh, path), _filled(memory_layout, stored, mesh, path) if stored else None
    return _with_reader(Trained(method, *filled, vocabulary, settings, path, step, versions), mesh)


def _with_reader(trained: Trained, mesh: Mesh) -> Trained:
    """The model with the one that its scores need besides, if they do."""
    method = trained.method
    if not isinstance(method, Consults) or not method.consulted or trained.memory is None:
        return trained
    found = load_trained(Path(method.consulted).expanduser(), mesh=mesh, classes=trained.vocabulary.classes)
    if not isinstance(found.method, ReadsText):
        raise UserError(f"{method.consulted} does not read text: give a model of CLIP or ViL-Seg")
    reader = Reader(found.method, found.params, network_sections(found.settings)[1])
    advised, memory = method.with_reader(reader, trained.memory, trained.vocabulary)
    return dataclasses.replace(trained, method=advised, memory=memory)


def _clip(
    path: Path, clip: ClipModel, classes: Sequence[str] | None, options: Mapping[str, Any], mesh: Mesh
) -> Trained:
    """A CLIP that segments the classes asked for; says what was taken from the file."""
    if not classes:
        raise UserError(
            f"{path} is a CLIP, which knows words and no list of classes: say which, --classes=cat,dog, or in an "
            "evaluation by a --config (docs/clip.md)"
        )
    settings = {"model": clip.model, "method": {**options, **clip.method}, "evals": {}}
    vocabulary = Vocabulary(tuple(classes))
    network = network_sections(settings)
    method = _method(network, vocabulary, mesh)
    layout, _ = jax.eval_shape(method.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(layout)
    params, report = fit(clip.stored, {path_name(keys): leaf.shape for keys, leaf in leaves}, network[1], path)
    console.print(str(report))
    return Trained(method, _filled(layout, params, mesh, path), None, vocabulary, settings, path, -1, {})


def _with_options(settings: Mapping[str, Any], options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The settings with the options of another config of the same method."""
    own = settings.get("method", {})
    if not options or options.get("name", own.get("name")) != own.get("name"):
        return settings
    return {**settings, "method": merged(own, options)}


def _with_chosen_offset(settings: Mapping[str, Any], path: Path, step: int) -> Mapping[str, Any]:
    """The settings of a run with the offset of novel scores that its first evaluation chose last, up to a step, if any.

    `path`: folder of the run or of its checkpoint.
    """
    evaluations = settings.get("evals", {})
    first = min(evaluations, default="")
    if not first or not evaluations[first].get("choose_novel_offset", False):
        return settings
    run = next((folder for folder in (path, *path.parents[:2]) if (folder / FILE_NAME).exists()), path)
    chosen = [
        line["novel_offset"]
        for line in read_history(run)
        if line["kind"] == "eval" and line.get("name") == first and line["step"] <= step and "novel_offset" in line
    ]
    if not chosen:
        console.print(f"{run} has chosen no novel_offset yet: nothing is added to the scores of novel classes")
    fixed = {**evaluations[first], "choose_novel_offset": False, "novel_offset": chosen[-1] if chosen else 0.0}
    return {**settings, "evals": {**evaluations, first: fixed}}


def _network(path: Path, settings: Mapping[str, Any], arrays: int) -> tuple[MethodConfig, ViTConfig]:
    """The sections that make the network. `arrays`: how many its parameters are."""
    try:
        config, vit = network_sections(settings)
    except KeyError as error:
        raise UserError(f"{path} does not say what network it holds (no section {error})") from error
    if vit.depth > arrays:  # before so many blocks are laid out
        raise UserError(f"{path} does not fit its own description: {vit.depth} blocks in {arrays} arrays")
    return config, vit


def with_classes(trained: Trained, vocabulary: Vocabulary, params: PyTree, memory: PyTree | None) -> Trained:
    """The same model with other classes, whose rows `params` and `memory` have; its settings say so, too."""
    mesh = jax.tree.leaves(trained.params)[0].sharding.mesh
    params, memory = jax.device_put((params, memory), NamedSharding(mesh, WHOLE))
    method = _method(network_sections(trained.settings), vocabulary, mesh)
    settings = dict(trained.settings)
    if "vocabulary" in settings:
        settings["vocabulary"] = json.loads(json.dumps(dataclasses.asdict(vocabulary)))  # lists, as files have them
    return dataclasses.replace(
        trained, method=method, params=params, memory=memory, vocabulary=vocabulary, settings=settings
    )


def _method(network: tuple[MethodConfig, ViTConfig], vocabulary: Vocabulary, mesh: Mesh) -> Method:
    """The method with one row per class, without streams: for inference."""
    config, vit = network
    return config.make(Task(len(vocabulary.classes), vit, {}, mesh, vocabulary.classes))


def _experiment(path: Path, settings: ml_collections.ConfigDict | Mapping[str, Any]) -> Experiment:
    try:
        return from_config(settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"the config in {path} is of another version ({reason}): give one by --config") from error


def _filled(layout: PyTree, arrays: Mapping[str, np.ndarray], mesh: Mesh, path: Path) -> PyTree:
    """The arrays in the places of a layout, cut to its rows: a run fills tables of classes up for its mesh."""
    left = set(arrays)

    def place(keys: tuple, wanted: jax.ShapeDtypeStruct) -> jax.Array:
        name = path_name(keys)
        value = arrays.get(name)
        if value is None or value.shape[1:] != wanted.shape[1:] or value.shape[:1] < wanted.shape[:1]:
            found = "none" if value is None else str(list(value.shape))
            raise UserError(f"{path} does not fit its own description: {name} is {found}, not {list(wanted.shape)}")
        left.discard(name)
        whole = value[: wanted.shape[0]] if wanted.shape else value
        return jax.make_array_from_callback(wanted.shape, NamedSharding(mesh, WHOLE), lambda index: whole[index])

    filled = jax.tree_util.tree_map_with_path(place, layout)
    if left:
        raise UserError(f"{path} does not fit its own description: it has {sorted(left)[0]}, which the model has not")
    return filled
