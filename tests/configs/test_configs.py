"""Every config, with every argument that its header documents, is loaded, built and lowered on abstract shapes."""

import dataclasses
import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import common, paper
from larvseg_jax import options
from larvseg_jax.assemble import lower_step, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.evaluation.windows import Windows
from larvseg_jax.models.vit import VisionTransformer, ViTConfig

FOLDER = Path(common.__file__).parent
# Not experiments: what several configs share, and the template whose classes come from a folder (test_own_data.py).
EXPERIMENTS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "common", "paper", "own_data"))
PAPER = [name for name in EXPERIMENTS if name[0] in "ac" and name not in ("captions", "clothing")]


def documented(name: str) -> list[str]:
    """Arguments in the commands of a config's header, and in its lines `... :x :y`."""
    header = importlib.import_module(f"configs.{name}").__doc__
    commands = re.findall(rf"configs/{name}\.py(?::([\w=,]+))?", header)
    alone = [a for line in re.findall(r"^ *\.\.\. (:.*)$", header, re.M) for a in re.findall(r":([\w=,]+)", line)]
    return list(dict.fromkeys(["", *commands, *alone]))


CASES = [(name, arguments) for name in EXPERIMENTS for arguments in documented(name)]


def load(name: str, arguments: str = ""):
    get_config = importlib.import_module(f"configs.{name}").get_config
    return from_config(get_config(arguments) if arguments else get_config())


def test_all_rows_of_the_tables_are_there():
    arguments = {name: documented(name) for name in EXPERIMENTS}
    assert {"c171", "a150", "a847", "c171_wa150", "c171_wa847", "c171_wa150_i124", "c171_wa847_i585", "c171_i21k"} <= {
        *EXPERIMENTS
    }
    for name in ("c171_wa150", "c171_wa847", "c171_wa150_i124", "c171_wa847_i585", "c171_i21k"):
        assert {"", "ca=off", "paper", "share=none", "duplicates=separate"} <= {*arguments[name]}
    assert {f"bank={m},topk=40" for m in (10, 20, 40, 80)} <= {*arguments["c171_wa150"]}
    assert {f"topk={k}" for k in (10, 20, 40, 80)} <= {*arguments["c171_wa150"]}
    assert {"ca=ade", "ca=imagenet"} <= {*arguments["c171_wa150_i124"]}
    assert "baseline" in arguments["quickstart"]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_config_builds(name, arguments):
    run = load(name, arguments)
    assert not set(run.vocabulary.base) & set(run.vocabulary.novel)
    masks = [run.catalogue.label_set(s) for s in run.streams.values() if s.view.labels_pixels]
    # Novel classes are never learnt from masks: the mask streams do not know them.
    known = {run.vocabulary.classes[row] for label_set in masks for row in label_set.rows}
    assert known
    assert not known & set(run.vocabulary.novel)


SIZES_ONLY = ("bank=", "topk=", "share=", "duplicates=", "imagenet_s", "grounds=")
# Their steps are those of c171, c171_wa150, c171_wa150_i124 and voc_animals with other numbers of classes.
OTHER_SIZES = ("a150", "a847", "c171_wa847", "c171_wa847_i585", "clothing")
# Two options at once that others have alone.
COMBINED = ("ca=ade", "ca=imagenet", "ca=off,sample=100")
# Steps that tests of the method itself run: without attention, on a region, with text vectors from a file.
RUN_ELSEWHERE = ("ca=off", "paper", "variant=region", "text=")


def programs():
    """Every argument with the first config that has it, and every config, but where steps differ in sizes only."""
    seen = set()
    for name, arguments in CASES:
        if arguments in seen - {""} or arguments.startswith((*SIZES_ONLY, *RUN_ELSEWHERE)) or arguments in COMBINED:
            continue
        if not arguments and name in OTHER_SIZES:
            continue
        seen.add(arguments)
        marks = [] if (name, arguments) == ("quickstart", "") else [pytest.mark.slow]
        yield pytest.param(name, arguments, id=f"{name}:{arguments}", marks=marks)


@pytest.mark.parametrize(("name", "arguments"), list(programs()))
def test_its_step_lowers(name, arguments):
    """With two blocks: all are alike, and test_config_builds has made them all."""
    run, mesh = load(name, arguments), make_mesh(1, 1, jax.devices()[:1])
    run = dataclasses.replace(run, vit=dataclasses.replace(run.vit, depth=2))
    assert "stablehlo" in lower_step(run, mesh, state_layout(run, mesh)).as_text()[:2000]


@pytest.mark.parametrize("name", PAPER)
def test_recipe_of_the_paper(name):
    run = load(name)
    assert sum(s.batch_size for s in run.streams.values()) == 16
    assert sum(s.loss.weight for s in run.streams.values()) == 1.0  # gradients averaged over ranks
    assert run.total_steps == (1_280_000 if name == "c171_i21k" else 320_000)
    assert (run.vit.width, run.vit.depth, run.vit.patch_size, run.vit.drop_path) == (768, 12, 16, 0.1)
    optimizer = run.optimizer
    assert (optimizer.name, optimizer.learning_rate, optimizer.min_learning_rate) == ("sgd", 1e-3, 1e-5)
    assert run.pretrained.endswith("--imagenet2012-steps_20k-lr_0.01-res_384.npz")
    assert run.evals["val"].windows == Windows((2048, 512), 512, 512)


@pytest.mark.parametrize(
    ("name", "arguments", "lambdas", "topk", "thresholds"),
    [
        # Released configs, one line per row of the tables; (L_cls, L_aux) of ADE and of ImageNet.
        ("c171_wa150", "", {"ade": (0.1, 0.1)}, 20, (0.2, 1.0)),
        ("c171_wa150", "ca=off", {"ade": (0.1, 0.0)}, 20, (0.2, 1.0)),
        ("c171_wa847", "", {"ade": (0.2, 0.1)}, 20, (0.2, 1.0)),
        ("c171_wa150_i124", "", {"ade": (0.2, 0.1), "imagenet": (0.2, 0.1)}, 40, (0.35, 2.0)),
        ("c171_wa150_i124", "ca=ade", {"ade": (0.2, 0.1), "imagenet": (0.2, 0.0)}, 40, (0.35, 2.0)),
        ("c171_wa150_i124", "ca=imagenet", {"ade": (0.2, 0.0), "imagenet": (0.2, 0.1)}, 40, (0.35, 2.0)),
        ("c171_wa150_i124", "paper", {"ade": (0.1, 0.1), "imagenet": (0.1, 0.1)}, 20, (0.35, 2.0)),
        ("c171_wa847_i585", "", {"ade": (0.2, 0.1), "imagenet": (0.2, 0.1)}, 20, (0.35, 2.0)),
    ],
)
def test_hyperparameters_of_the_rows(name, arguments, lambdas, topk, thresholds):
    run = load(name, arguments)
    tagged = {k: (s.loss.lambda_cls, s.loss.lambda_aux) for k, s in run.streams.items() if not s.view.labels_pixels}
    ca = run.method.ca_classifier
    assert tagged == lambdas
    assert (ca.memory_bank_size, ca.warmup, ca.foreground_topk, ca.background_topk) == (20, 1, topk, 5)
    assert (ca.background_threshold, ca.background_mse_threshold) == thresholds
    assert {s.loss.weight for s in run.streams.values()} <= ({1.0} if arguments == "paper" else {1 / 2, 3 / 8, 2 / 8})


@pytest.mark.parametrize(
    ("name", "rows", "base", "labels"),
    [
        ("c171", 160, 160, []),
        ("c171_wa150", 247, 160, ["63/87", "58/92"]),
        ("c171_wa847", 913, 160, ["94/753", "92/755"]),
        ("c171_wa150_i124", 247, 160, ["63/87", "58/92"]),
        ("c171_wa847_i585", 913, 160, ["94/753", "92/755"]),
        ("c171_i21k", 21925, 160, []),  # 21,841 + 160 - 76 that are the first lemma of one synset only
    ],
)
def test_sizes_of_the_vocabularies(name, rows, base, labels):
    run = load(name)
    assert (len(run.vocabulary.classes), len(run.vocabulary.base)) == (rows, base)
    evaluation = run.evals["val"]
    definitions = run.catalogue.definitions(evaluation.class_list, evaluation.base_novel)
    assert [definition.label for definition in definitions] == labels
    for definition in definitions:  # both lists are in names of the evaluation's columns
        assert definition.base <= set(run.catalogue.label_set(evaluation, evaluation=True).names)


@pytest.mark.parametrize(
    ("arguments", "scored", "rivals"),
    [
        ("imagenet_s", 919, 21_841 - 918),
        # By title some synsets are one row: cranes, cardigans, ... are scored together.
        ("imagenet_s,share=title", 918, 20_117 - 917),
        ("imagenet_s,share=none", 919, 21_841 - 918),
    ],
)
def test_imagenet_s_is_scored_alone_and_among_all_synsets(arguments, scored, rivals):
    run = load("c171_i21k", arguments)
    assert list(run.evals) == ["val", "val_imagenet_s", "val_imagenet_s_open"]  # the first chooses the best checkpoint
    alone, among = (run.catalogue.label_set(run.evals[name], evaluation=True) for name in list(run.evals)[1:])
    assert (len(alone), alone.rivals) == (scored, 0)
    assert (len(among), among.rivals) == (scored + 1 + rivals, rivals)
    assert among.names[:scored] == alone.names
    synsets = run.catalogue.shared.names["imagenet_21k"]
    assert {*among.names} - {"other"} == {*synsets, "teddy bear"}


def test_imagenet_s_has_to_be_asked_for():
    assert list(load("c171_i21k", "").evals) == ["val"]


def test_the_originals_union_of_all_synsets_by_name():
    assert len(load("c171_i21k", "share=title").vocabulary.classes) == 20_165


def test_duplicate_columns_merged_and_separate():
    merged, separate = (load("c171_wa150", a) for a in ("", "duplicates=separate"))
    a, b = (run.catalogue.label_set(run.streams["c171"]) for run in (merged, separate))
    assert (len(a), len(b)) == (160, 171)
    assert a.multiplicity.sum() == b.multiplicity.sum() == 171
    assert a.multiplicity[a.column("wall-brick")] == 7
    assert b.rows[b.column("wall-brick")] == b.rows[b.column("wall-wood")] == a.rows[a.column("wall-wood")]
    assert len(separate.catalogue.label_set(separate.evals["val"], evaluation=True)) == 150


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ca=maybe", "ca=maybe: use on or off"),
        ("banks=3", "banks=3.*bank=20"),
        ("bank=many", "bank is a number, such as 20"),
        ("paper=1", "use paper=true or paper=false"),
        ("larvseg", "'larvseg': there are ca=on"),
    ],
)
def test_wrong_arguments(text, problem):
    with pytest.raises(ValueError, match=problem):
        load("c171_wa150", text)


def test_arguments():
    args = common.parse_arguments("photos,bank=3,paper", first="data", data="", **paper.METHOD)
    assert (args.data, args.bank, args.paper, args.ca) == ("photos", 3, True, "on")


def test_home_folders_in_options(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # a shell leaves --config.data_root=~/data as it is
    config = common.get_config()
    config.update(data_root="~/data", workdir="~/runs", pretrained="~/weights.npz")
    config.streams.masks = common.mask_stream()
    config.vocabulary.update(classes=("cat",), base=("cat",))
    run = from_config(config)
    assert (run.data_root, run.workdir, run.pretrained) == (
        tmp_path / "data",
        tmp_path / "runs",
        str(tmp_path / "weights.npz"),
    )


@pytest.mark.parametrize(
    ("size", "plain", "with_registers"),
    [  # of Dinov2Model and Dinov2WithRegistersModel of transformers, without the mask token
        ("S", 22_056_192, 22_057_728),
        ("B", 86_579_712, 86_582_784),
        ("L", 304_367_616, 304_371_712),
        ("g", 1_136_479_232, 1_136_485_376),
    ],
)
def test_a_dinov2_has_as_many_numbers_as_elsewhere(size, plain, with_registers):
    for registers, count in ((False, plain), (True, with_registers)):
        config = common.get_config()
        common.use_dinov2(config, size, registers=registers)
        vit = options.read(ViTConfig, config.model.to_dict(), "model")
        shapes = jax.eval_shape(VisionTransformer(vit).init, jax.random.key(0), jnp.zeros((1, 14, 14, 3)))
        assert sum(x.size for x in jax.tree.leaves(shapes)) == count
