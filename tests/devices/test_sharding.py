"""What the compiler makes of a sharded step: no device ever holds the class table, the bank or a logits map whole."""

import collections
import dataclasses
import functools
import math
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from configs import common
from larvseg_jax.assemble import lower_step, state_layout
from larvseg_jax.config import from_config
from larvseg_jax.devices.memory import array_table
from larvseg_jax.devices.mesh import batch_sharding, make_mesh
from larvseg_jax.devices.sharding import ShardingRules
from larvseg_jax.errors import UserError
from larvseg_jax.methods.larvseg.ca_classifier import mine_background
from larvseg_jax.methods.larvseg.network import class_rows
from larvseg_jax.methods.larvseg.streams import columns_on, sample_classes
from larvseg_jax.methods.method import Task
from larvseg_jax.models.cosine_head import ClassTable
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.vocabulary import Vocabulary
from tests import tiny

# Of all sizes in these programs only those of the vocabulary have the factor 13.
CLASSES, KNOWN, WIDTH = 32 * 13, 24 * 13, 16
MESHES = [(1, 8), (2, 4)]
MOVED = re.compile(
    r" = (?P<result>.*?) (?:ragged-)?(?P<kind>all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|"
    r"collective-broadcast)(?:-start)?\("
)
NAMES = tuple(f"c{i:03d}" for i in range(CLASSES))
MOST = tuple(name for i, name in enumerate(NAMES) if i % 4)  # as ImageNet's classes are in the union


def collectives(program: str) -> collections.Counter:
    """(kind, shape) of every array that any communication of a compiled program results in."""
    found: collections.Counter = collections.Counter()
    for match in MOVED.finditer(program):
        for dims in re.findall(r"\w+\[([\d,]*)\]", match["result"]):
            found[match["kind"], tuple(int(n) for n in dims.split(",") if n)] += 1
    return found


def moved_whole(program: str, shards: int) -> list[str]:
    """Results of communication that hold as many numbers as the embeddings of a stream with most classes, or more.

    What only changes places is not whole anywhere: there a device's part of it is too much already.
    """
    parts = {"all-to-all": shards, "collective-permute": shards}
    return [
        f"{kind}{list(shape)}"
        for kind, shape in collectives(program)
        if math.prod(shape) % 13 == 0 and math.prod(shape) >= KNOWN * WIDTH // parts.get(kind, 1)
    ]


def config(**mesh):
    """Streams of masks and tags that know a few classes or most of them; single tags, so that classes are mined."""
    config = tiny.get_config()
    config.vocabulary = dict(classes=NAMES, base=(), novel=(), background="", ignore_in_eval=())
    config.mesh.update(mesh)
    photos = dict(batch_size=8, scale=(64, 16), ratio_range=(1.0, 1.5), crop_size=16)
    tags = dict(**photos, tags_from="image", max_labels=4)
    config.streams = type(config.streams)()
    config.streams.few_masks = common.mask_stream(**photos, classes=NAMES[::32])
    config.streams.most_masks = common.mask_stream(**photos, classes=MOST)
    config.streams.few_tags = common.tag_stream(**tags, classes=NAMES[5::32])
    config.streams.most_tags = common.tag_stream(**tags, classes=MOST, sample_classes=100)
    config.method.ca_classifier.class_block = 32
    return config


@functools.cache
def compiled_step(shape, shard_backbone):  # no default: the cache would keep it apart from the same one given
    run, mesh = from_config(config(shard_backbone=shard_backbone)), make_mesh(*shape)
    # Without optimisation of the machine code: which device sends what to which is settled before.
    return lower_step(run, mesh, state_layout(run, mesh)).compile().as_text()


@pytest.mark.slow
@pytest.mark.parametrize("shape", MESHES)
def test_no_step_moves_the_table_the_bank_or_a_logits_map_whole(shape):
    program = compiled_step(shape, False)
    assert collectives(program), "nothing was found at all"
    assert moved_whole(program, shape[1]) == []


@pytest.mark.slow
def test_a_fully_sharded_backbone_gathers_its_arrays_and_nothing_else():
    whole, split = (collectives(compiled_step((2, 4), shard)) for shard in (False, True))
    gathered = {shape for (kind, shape), _ in (split - whole).items() if kind == "all-gather"}
    layout = state_layout(from_config(config()), make_mesh(2, 4))
    arrays = [x.shape for x in jax.tree.leaves(layout.params["backbone"])]
    assert {(16, 32), (32, 16)} <= gathered  # the MLP
    assert {math.prod(shape) for shape in gathered} <= {math.prod(shape) for shape in arrays}
    assert moved_whole(compiled_step((2, 4), True), 4) == []


# Programs that do on purpose what the step must not do; and one that does what it may.
GATHERING = {
    "the table": (lambda x: whole(x["table"]) * 2.0, True),
    "the bank": (lambda x: whole(x["slots"]) * 2.0, True),
    "its means": (lambda x: jnp.sum(whole(x["table"] * x["table"]) ** 3), True),
    "most rows, and their gradient": (lambda x: jax.grad(lambda t: jnp.sum(t[MOST_ROWS] ** 3))(x["table"]), True),
    "a map over all classes": (lambda x: whole(jnp.einsum("bhd,nd->bhn", x["patches"], x["table"])) * 2.0, True),
    "a permutation of the rows": (lambda x: x["table"][::-1], True),
    "few rows": (lambda x: x["table"][MOST_ROWS[:12]], False),
    "sums": (lambda x: jnp.sum(x["table"], axis=0), False),
}
MOST_ROWS = jnp.array([i for i in range(CLASSES) if i % 4])


def whole(x):
    return jax.lax.with_sharding_constraint(x, PartitionSpec())


@pytest.mark.parametrize("shape", MESHES)
@pytest.mark.parametrize("name", GATHERING)
def test_the_detector_finds_what_is_moved_on_purpose(name, shape):
    mesh, (program, moves) = make_mesh(*shape), GATHERING[name]
    by_class = NamedSharding(mesh, PartitionSpec("model"))
    arrays = {
        "table": jax.ShapeDtypeStruct((CLASSES, WIDTH), "float32", sharding=by_class),
        "slots": jax.ShapeDtypeStruct((CLASSES, 3, WIDTH), "float32", sharding=by_class),
        "patches": jax.ShapeDtypeStruct((8, 4, WIDTH), "float32", sharding=NamedSharding(mesh, PartitionSpec("data"))),
    }
    with jax.set_mesh(mesh):
        compiled = jax.jit(program).lower(arrays).compile()
    assert bool(moved_whole(compiled.as_text(), shape[1])) == moves


@pytest.mark.parametrize("shape", [(8, 1), *MESHES])
def test_no_array_of_a_fully_sharded_backbone_is_whole_on_a_device(shape):
    layout = state_layout(from_config(config(shard_backbone=True)), make_mesh(*shape))
    backbone = [
        (jax.tree_util.keystr(path), x)
        for path, x in jax.tree_util.tree_leaves_with_path(layout)
        if "backbone" in jax.tree_util.keystr(path)
    ]
    assert len(backbone) == 3 * len(jax.tree.leaves(layout.params["backbone"]))  # and AdamW's two moments
    for name, x in backbone:
        assert math.prod(x.sharding.shard_shape(x.shape)) * 8 == x.size, name
    table = layout.params["head"]["class_embeddings"]
    assert table.sharding.shard_shape(table.shape) == (CLASSES // shape[1], WIDTH)
    assert layout.params["head"]["proj_patch"].sharding.is_fully_replicated


def test_a_column_for_every_row_holds_the_same_classes_and_draws_the_same_sample():
    vocabulary = Vocabulary(tuple("abcdefgh"), base=(), novel=())
    few = vocabulary.label_set("hbddf")  # d counts twice
    spread = few.spread(10)
    assert spread.names == ("", "b", "", "d", "", "f", "", "h", "", "")
    np.testing.assert_array_equal(spread.multiplicity, [0, 1, 0, 2, 0, 1, 0, 1, 0, 0])
    assert [spread.column(name) for name in "hbdfa"] == [7, 1, 3, 5, -1]
    samples = set()
    for seed in range(8):
        drawn = []
        for label_set, label in ((few, 1), (spread, 1)):  # b is column 1 of both
            table = ClassTable(jnp.zeros((len(label_set), 2)), jnp.asarray(label_set.multiplicity), *jnp.ones(2))
            sample = sample_classes(table, jnp.array([[label]], "int32"), 2, jax.random.key(seed), label_set.rows)
            drawn.append({label_set.names[i]: float(m) for i, m in enumerate(sample.multiplicity) if m})
        assert drawn[0] == drawn[1]
        samples.add(tuple(drawn[0]))
    assert len(samples) > 2


@pytest.mark.parametrize(
    ("shape", "known", "in_place"), [((8, 1), 30, True), ((8, 1), 28, False), ((1, 8), 28, True), ((1, 8), 15, False)]
)
def test_a_stream_of_nearly_all_classes_reads_the_table_where_it_lies(shape, known, in_place):
    vocabulary = Vocabulary(tuple(f"c{i}" for i in range(32)), base=(), novel=())
    task = Task(32, ViTConfig(), {}, make_mesh(*shape))
    label_set = vocabulary.label_set(tuple(f"c{i}" for i in range(31, 31 - known, -1)))
    columns, mesh_columns = columns_on(task, label_set)
    assert (class_rows(columns, 32) is None) is in_place
    # A label's column is that of its name, wherever that is.
    found = range(known) if mesh_columns is None else mesh_columns
    assert [columns.names[column] for column in found] == list(label_set.names)


@pytest.mark.parametrize("shape", MESHES)
def test_split_classes_are_mined_as_on_one_device(shape):
    rng = np.random.default_rng(0)
    patches, vectors, means = (jnp.asarray(rng.normal(size=s), "float32") for s in ((8, 6, 4), (24, 4), (24, 4)))
    table = ClassTable(vectors, jnp.asarray(rng.integers(0, 3, 24), "float32"), jnp.float32(1), jnp.float32(0))
    label = jnp.arange(8, dtype="int32")
    options = from_config(config()).method.ca_classifier
    options = dataclasses.replace(options, class_block=2, background_threshold=0.3, background_topk=3)
    mine = functools.partial(mine_background, config=options)
    inputs = (patches, table, means, label, jnp.einsum("bpd,bd->bp", patches, means[:8]))
    alone = mine(*inputs)
    with jax.set_mesh(make_mesh(*shape)):
        split = jax.jit(mine)(*inputs)
    assert (np.asarray(alone.kept) > 2).any()
    for one, many in zip(alone, split, strict=True):
        np.testing.assert_allclose(many, one, atol=1e-5)


def test_an_array_goes_by_the_first_rule_or_its_largest_axis():
    mesh = make_mesh(4, 2)
    rules = (("memory/slots", ("model", None, "data")), ("^memory/", ("model",)), ("Dense_0/kernel", (None, "model")))
    spec = functools.partial(ShardingRules(rules, shard_backbone=True).spec, mesh=mesh)
    assert spec("memory/slots", (6, 3, 8)) == PartitionSpec("model", None, "data")
    assert spec("memory/cursor", (6,)) == PartitionSpec("model")
    assert spec("params/backbone/Dense_0/kernel", (16, 32)) == PartitionSpec(None, "model")
    assert spec("params/backbone/Dense_1/kernel", (16, 32)) == PartitionSpec(None, ("data", "model"))
    assert spec("params/backbone/cls", (1, 1, 12)) == PartitionSpec(None, None, ("data",))  # 12 is no multiple of 8
    assert spec("opt_state/0/trace/backbone/bias", (6,)) == PartitionSpec(("model",))
    assert spec("params/backbone/odd", (7,)) == PartitionSpec()
    assert spec("params/head/proj_patch", (16, 16)) == PartitionSpec()
    assert ShardingRules(rules, False).spec("params/backbone/cls", (1, 1, 8), mesh) == PartitionSpec()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("memory/(", ("model",)), "no regular expression"),
        (("memory", ("classes",)), "axis 'classes'"),
        (("gamma_table", ("model", "data")), r"splits gamma_table \[8\] by .* does not divide"),
        (("gamma_table", ("data",)), r"mesh \{'data': 3, 'model': 1\} does not divide"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(rule, message):
    with pytest.raises(UserError, match=message):
        ShardingRules((rule,), False).spec("gamma_table", (8,), make_mesh(3, 1, jax.devices()[:3]))


# The process of every device, by the device's number: as CPUs and GPUs are numbered, and as the chips of a TPU v5e
# slice are, row by row through its hosts of 2 x 2 chips; and in turn.
PROCESSES = {
    "4 x 2": [0, 0, 1, 1, 2, 2, 3, 3],
    "4 x 4 in squares": [row // 2 * 2 + column // 2 for row in range(4) for column in range(4)],
    "2 x 4 in turn": [0, 1] * 4,
}


def devices_of(processes):
    """Devices on paper, the last one first."""
    made = [mock.Mock(spec=jax.Device, id=i, process_index=process) for i, process in enumerate(processes)]
    return made[::-1]


@pytest.mark.parametrize("model", [1, 2, 4])
@pytest.mark.parametrize("processes", PROCESSES.values(), ids=PROCESSES)
def test_every_process_has_rows_and_a_block_of_the_batch_of_its_own(processes, model):
    count, own = len(set(processes)), processes.count(0)
    if own % model:
        with pytest.raises(UserError, match=f"mesh.model={model} reaches over several processes of {own} devices"):
            make_mesh(-1, model, devices_of(processes))
        return
    mesh = make_mesh(-1, model, devices_of(processes))
    assert mesh.shape == {"data": len(processes) // model, "model": model}
    assert {device.id for device in mesh.devices.flat} == set(range(len(processes)))
    rows = [{device.process_index for device in row} for row in mesh.devices]
    assert rows == [{process} for process in range(count) for _ in range(own // model)]
    # The data pipeline deals block p of a batch to process p: these very pictures lie on its devices.
    pictures = 3 * len(processes)
    held = collections.defaultdict(set)
    for device, (part,) in batch_sharding(mesh).devices_indices_map((pictures,)).items():
        held[device.process_index] |= set(range(pictures)[part])
    blocks = np.split(np.arange(pictures), count)
    assert held == {process: set(block.tolist()) for process, block in enumerate(blocks)}


@pytest.mark.parametrize(
    ("processes", "shape", "message"),
    [
        ([0, 0, 0, 1], (2, 2), "the 2 processes have 3, 1 devices: give each of them 1$"),
        ([0, 0, 1, 2, 2], (-1, 1), "the 3 processes have 2, 1, 2 devices: give each of them 1$"),
        (PROCESSES["4 x 2"], (1, 8), "mesh.model=8 reaches over several processes of 2 devices: use a divisor of 2$"),
        # Not (2, 4), which would be refused next.
        (PROCESSES["4 x 2"], (3, 2), r"does not make 8 devices: \(data, model\) can be \(8, 1\), \(4, 2\)$"),
    ],
)
def test_a_mesh_that_processes_cannot_share_is_refused(processes, shape, message):
    with pytest.raises(UserError, match=message):
        make_mesh(*shape, devices_of(processes))


def test_the_table_of_arrays_says_where_the_bytes_are():
    layout = state_layout(from_config(config(shard_backbone=True)), make_mesh(2, 4))
    console = Console(width=150)
    with console.capture() as capture:
        console.print(array_table(layout, count=3))
    lines = [line.split() for line in capture.get().splitlines()]
    slots = next(line for line in lines if line and line[0] == "memory/slots")
    # 416 x 3 x 16 float32, a quarter of them on each device
    assert slots[1:] == ["[416,", "3,", "16]", "float32", "79.9", "kB", "20.0", "kB", "model"]
    total = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(layout))
    assert f"{total / 1000:.1f}" in lines[-1]
    assert len(lines) == 1 + 1 + 3 + 1  # title, head, arrays, sum
