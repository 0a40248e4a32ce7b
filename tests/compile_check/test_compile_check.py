"""Compiling for chips that are not here: what is read from the program, the prediction, and the command itself."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from larvseg_jax.assemble import abstract_batch, make_method, state_layout
from larvseg_jax.compile_check import report
from larvseg_jax.compile_check.program import Collective, read_collectives
from larvseg_jax.compile_check.step_time import StepTime, compute_seconds, predicted_time
from larvseg_jax.compile_check.target import Target, open_target, target_mesh
from larvseg_jax.config import from_config
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.devices.peaks import CHIPS
from larvseg_jax.errors import UserError
from larvseg_jax.models.flops import BACKBONE
from tests import tiny
from tests.conftest import REPOSITORY

# One line for each way a TPU or GPU program writes an exchange, over 2 (data) x 4 (model) chips.
PROGRAM = """
%add (x: f32[], y: f32[]) -> f32[] {
}

%deeper (p: f32[8]) -> f32[8] {
  %all-to-all.1 = bf16[8,4]{1,0} all-to-all(%p), replica_groups={}, dimensions={0}
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %call.1 = f32[8]{0} call(%p), to_apply=%deeper
}

ENTRY %main (a: f32[16,16]) -> f32[16,16] {
  %all-reduce.1 = (f32[16,16]{1,0:T(8,128)}, /*index=1*/s32[4]{0}) all-reduce(%a, %b), \
replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
  %all-gather.1 = f32[32]{0} all-gather(%a), replica_groups=[2,4]<=[8], dimensions={0}
  %ag-start = (bf16[8]{0}, bf16[64]{0}) all-gather-start(%a), replica_groups=[1,8]<=[8], dimensions={0}
  %ag-done = bf16[64]{0} all-gather-done(%ag-start)
  %rs = f32[10]{0} reduce-scatter(%a), replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}, to_apply=%add
  %cp = (f32[6]{0}, f32[6]{0}, u32[], u32[]) collective-permute-start(%a), source_target_pairs={{0,1},{1,2},{4,5}}
  %ar2 = pred[3]{0} all-reduce(%a), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, to_apply=%add
  %ar3 = f32[3]{0} all-reduce(%a), \
replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,4]T(1,0)) {'axis_1'}, to_apply=%add
  %ar4 = f32[5]{0} all-reduce(%a), replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}, to_apply=%add
  %alone = f32[7]{0} all-reduce(%a), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
  %while.1 = (s32[], f32[8]{0}) while(%t), condition=%cond, body=%body, metadata={op_name="all-reduce(x)"}
}
"""


def test_every_notation_of_an_exchange_is_read():
    assert read_collectives(PROGRAM, {"data": 2, "model": 4}) == (
        Collective("all-to-all", 8 * 4 * 2, 8, ("data", "model"), in_loop=True),
        Collective("all-reduce", 16 * 16 * 4 + 4 * 4, 2, ("data",)),
        Collective("all-gather", 32 * 4, 4, ("model",)),
        Collective("all-gather", 64 * 2, 8, ("data", "model")),
        Collective("reduce-scatter", 10 * 4, 2, ("data",)),
        Collective("collective-permute", 6 * 4, 2, ("model",)),
        Collective("all-reduce", 3, 2, ("data",)),
        Collective("all-reduce", 3 * 4, 2, ("data",)),
        Collective("all-reduce", 5 * 4, 4, ("model",)),
    )


def test_exchanges_of_a_program_compiled_here_are_those_it_was_written_with():
    mesh = make_mesh(2, 4)

    def step(x):
        x = lax.psum(x, "data")
        x = lax.fori_loop(0, 3, lambda _, y: lax.ppermute(y, "model", [(0, 1), (1, 2), (2, 3), (3, 0)]) + 1.0, x)
        return lax.all_gather(x, "model", tiled=True)

    mapped = jax.shard_map(step, mesh=mesh, in_specs=P("model"), out_specs=P(), check_vma=False)
    program = jax.jit(mapped).lower(jnp.zeros((400, 3))).compile().as_text()
    found = {(x.kind, x.size, x.group, x.axes, x.in_loop) for x in read_collectives(program, dict(mesh.shape))}
    assert found == {
        ("all-reduce", 100 * 3 * 4, 2, ("data",), False),
        ("collective-permute", 100 * 3 * 4, 2, ("model",), True),
        ("all-gather", 400 * 3 * 4, 4, ("model",), False),
    }


@pytest.mark.parametrize(
    ("kind", "size", "sent"),
    # A ring of 4. All-gather: 3 times its own quarter. All-reduce: that twice. Reduce-scatter: 3 times the result.
    [("all-gather", 400, 300), ("all-reduce", 400, 600), ("reduce-scatter", 100, 300), ("collective-permute", 80, 80)],
)
def test_bytes_that_a_ring_sends(kind, size, sent):
    assert Collective(kind, size, 4, ("data",)).sent == sent


def test_arrays_are_booked_by_kind_as_each_chip_has_them():
    run, mesh = from_config(tiny.get_config()), make_mesh(4, 2)
    sizes = report.arrays_by_kind(state_layout(run, mesh), abstract_batch(run, mesh))
    # 5 classes fill 16 rows of 16 numbers, halved by the model axis; 8 pictures a stream, 2 on each chip.
    assert sizes["class table"] == 16 * 16 * 4 // 2
    slots, mean, cursor_and_wraps = 16 * 3 * 16 * 4 // 2, 16 * 16 * 4 // 2, 2 * 16 * 4 // 2
    assert sizes["memory"] == slots + mean + cursor_and_wraps
    image = 16 * 16 * 3 + 2 * 4  # levels, and how far the photo reaches
    assert sizes["batch"] == 2 * (image + 1 + 8 * 8 * 4) + 2 * (image + 1 + 4 * 4)
    # AdamW: two moments of every parameter, and two int32 counts (its own and the schedule's).
    parameters = sizes["backbone"] + sizes["class table"] + sizes["rest of the head"]
    assert sizes["optimiser state"] == 2 * parameters + 8


def test_a_chip_works_on_its_own_pictures_and_classes():
    config = tiny.get_config()
    config.streams.masks.batch_size = 16
    run = from_config(config)
    alone, split = make_method(run, make_mesh(1, 1, jax.devices()[:1])), make_method(run, make_mesh(4, 2))
    whole, four = alone.flops(), split.flops(4, 2)
    assert whole == alone.flops(1, 1) == split.flops()  # of all chips together, however many there are
    for part in BACKBONE:
        assert four[part] * 4 == pytest.approx(whole[part]), part  # twice: once for each chip along `model`
    # Both streams know half of the classes or more, so they have a column for each of the 16 rows, 8 on a chip.
    assert four["class_projection"] == 3 * 2 * 16 * 16 * (8 + 8)


def test_predicted_compute_time_of_a_tpu_and_a_gpu():
    flops = {**dict.fromkeys(BACKBONE, 0.0), "mlp": 197e12, "mask_logits": 197e12 / 3}
    assert compute_seconds(flops, "bfloat16", CHIPS["v5e"]) == pytest.approx(2.0)  # three passes
    assert compute_seconds(flops, "float32", CHIPS["v5e"]) == pytest.approx(2.0)  # one pass by default
    flops = {**dict.fromkeys(BACKBONE, 0.0), "mlp": 494.7e12, "mask_logits": 989.4e12 / 3}
    assert compute_seconds(flops, "bfloat16", CHIPS["h100"]) == pytest.approx(1.5)
    assert compute_seconds(flops, "float32", CHIPS["h100"]) == pytest.approx(2.0)  # TF32


def test_predicted_time_of_memory_and_network():
    target = Target("v5e:2x2", CHIPS["v5e"], (), ring_bandwidth=100.0)
    sent = [Collective("all-reduce", 400, 4, ("data",)), Collective("all-gather", 400, 4, ("data",))]
    flops = {**dict.fromkeys(BACKBONE, 0.0), "mlp": 197e12}
    time = predicted_time(flops, "bfloat16", target, 819e9 / 2, sent)
    assert (time.compute, time.memory, time.network) == pytest.approx((1.0, 0.5, (600 + 300) / 100))


def test_what_bounds_a_step():
    time = StepTime(compute=2.0, memory=3.0, network=0.5)
    assert (time.bound, time.least, time.without_overlap) == ("memory", 3.0, 5.5)


def test_unknown_work_is_no_work_of_zero_seconds():
    target = Target("v5e:2x2", CHIPS["v5e"], (), ring_bandwidth=100.0)
    time = predicted_time({}, "bfloat16", target, 819e9 / 2, [Collective("all-gather", 400, 4, ("data",))])
    assert time.compute is None
    assert (time.bound, time.least, time.without_overlap) == ("network", 3.0, 3.5)
    found = report.Report(
        target="v5e:2x2", mesh={}, batch={}, notes=(), quick=True, seconds=1.0, failure="", arrays={}, available=1,
        flops=0.0, chip_flops=0.0, source="", memory={"total": 1}, xla_flops=2e12, time=time,
    )  # fmt: skip
    with report.console.capture() as printed:
        report.print_report(found)
    text = " ".join(printed.get().split())
    assert "work: no formula for this method; XLA counts 2e+12 on a chip" in text
    assert "memory 500.00 ms, network 3000.00 ms, compute unknown and left out; bound by network" in text


def test_batch_sizes_grow_with_the_mesh():
    mesh = make_mesh(8, 1)
    config = tiny.get_config()
    config.streams.masks.batch_size, config.streams.tags.batch_size = 4, 12
    assert report.fit_batch(config, mesh, 0) == (
        "streams.masks.batch_size=8 instead of 4",
        "streams.tags.batch_size=16 instead of 12",
    )
    config.streams.masks.batch_size, config.streams.tags.batch_size = 4, 12
    report.fit_batch(config, mesh, 8)
    assert (config.streams.masks.batch_size, config.streams.tags.batch_size) == (16, 48)
    with pytest.raises(UserError, match="--images_per_chip=3 gives stream masks 6 pictures"):
        report.fit_batch(config, mesh, 3)


def test_out_of_memory_is_told_with_its_numbers():
    error = "RESOURCE_EXHAUSTED: total memory required for HLO temporaries (52.08G) exceeds available HBM (15.75G)"
    assert report.reason_of(error) == "out of memory: needs 52.08G of 15.75G on every chip"
    error = "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 17.51G of 15.75G hbm."
    assert report.reason_of(error) == "out of memory: needs 17.51G of 15.75G on every chip"
    assert report.reason_of("INTERNAL:\n something") == "does not compile: INTERNAL: something"


@pytest.mark.parametrize("topology", ["v9:2x2", "v5litepod-4", "v5e", "v5e:2x2x2x2"])
def test_unknown_topology_is_refused_with_those_there_are(topology):
    with pytest.raises(UserError, match=r"is unknown: use one such as .*v5e:4x4"):
        open_target(topology)


def command(*options):
    """Runs the check on tests/tiny.py; returns (exit code, stderr)."""
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    words = [sys.executable, "-m", "larvseg_jax.compile_check", "--config=tests/tiny.py", "--quick", *options]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stderr


needs_tpu_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler here: pip install 'jax[tpu]'"
)


@needs_tpu_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "data", "bandwidth"),
    [("v5e:2x2", 2, 819e9), ("tpu7x:2x2x1", 4, 3.69e12)],  # TPU7x: four chips, eight devices
)
def test_the_step_compiles_for_a_tpu_slice_and_its_gradients_travel(tmp_path, topology, data, bandwidth):
    out = tmp_path / "check.json"
    code, stderr = command(f"--topology={topology}", f"--mesh={data}x2", f"--json={out}")
    assert code == 0, stderr
    found = json.loads(out.read_text())
    assert found["fits"]
    assert found["mesh"] == {"data": data, "model": 2}
    arrays = found["arrays"]
    assert found["memory"]["arguments"] >= sum(arrays.values())  # a TPU pads arrays to tiles of 8 x 128
    by_picture = sum(x["result_bytes"] for x in found["collectives"] if "data" in x["axes"])
    assert by_picture >= arrays["backbone"] + arrays["class table"]  # gradients are summed over pictures
    assert 0.5 < found["xla_flops"] / found["chip_flops"] < 4  # the formula leaves out what is no matrix product
    assert found["predicted_seconds"]["memory"] == pytest.approx(found["hbm_bytes"] / bandwidth)


@needs_tpu_compiler
@pytest.mark.slow
def test_too_many_pictures_do_not_fit(tmp_path):
    out = tmp_path / "check.json"
    size = "--config.streams.masks.batch_size=8000000"
    code, stderr = command("--topology=v5e:2x2", "--mesh=4x1", size, f"--json={out}")
    assert code == 1, stderr
    assert json.loads(out.read_text())["failure"].startswith("out of memory: needs")


@needs_tpu_compiler
def test_bad_commands_say_so_in_one_line():
    code, stderr = command("--topology=v5e:2x2", "--mesh=3x1")
    assert code == 2
    assert stderr.startswith("error: mesh.data=3 x mesh.model=1 does not make 4 devices"), stderr
    assert stderr.count("\n") == 1


@needs_tpu_compiler
def test_a_mesh_of_several_hosts_is_made_as_training_makes_it_or_the_difference_is_told():
    target = open_target("v5e:4x4")  # 4 hosts of 4 chips
    mesh, refusal = target_mesh(target, -1, 2)
    assert dict(mesh.shape) == {"data": 8, "model": 2}
    assert refusal == ""
    mesh, refusal = target_mesh(target, 4, 4)
    assert refusal == ""  # classes are split within one host, which has four chips
    hosts = np.vectorize(lambda device: device.process_index)(mesh.devices)
    assert (hosts == hosts[:, :1]).all()
    assert sorted(hosts[:, 0].tolist()) == [0, 1, 2, 3]
    mesh, refusal = target_mesh(target, 2, 8)  # more than a host has
    assert dict(mesh.shape) == {"data": 2, "model": 8}
    assert "reaches over several processes" in refusal
    assert len({device.id for device in mesh.devices.flat}) == 16
