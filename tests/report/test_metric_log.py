"""metrics.jsonl and TensorBoard events of runs that are killed and resumed."""

import json
import math

import pytest
from tensorboardX.proto import event_pb2

from larvseg_jax.errors import UserError
from larvseg_jax.report.metric_log import MetricLog, read_history, typical_speed


def steps(folder):
    return [(line["step"], line["kind"]) for line in read_history(folder)]


def test_lines_are_json_objects(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(50, "train", {"loss": 2.5, "coco/L_seg": 1})
        log.write(50, "eval", {"mIoU": 0.25, "mIoU_novel": math.nan})
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 50, "kind": "train", "loss": 2.5, "coco/L_seg": 1.0},
        {"step": 50, "kind": "eval", "mIoU": 0.25, "mIoU_novel": None},
    ]
    assert math.isnan(read_history(tmp_path)[1]["mIoU_novel"])


def test_a_resumed_run_has_every_step_once(tmp_path):
    with MetricLog(tmp_path) as log:
        for step in (10, 20, 30):
            log.write(step, "train", {"loss": 1.0})
        log.write(20, "eval", {"mIoU": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "kind": "tr')  # killed while writing
    with MetricLog(tmp_path, resume_step=20) as log:
        for step in (30, 40):
            log.write(step, "train", {"loss": 0.5})
    assert steps(tmp_path) == [(10, "train"), (20, "train"), (20, "eval"), (30, "train"), (40, "train")]
    assert [line["loss"] for line in read_history(tmp_path) if line["kind"] == "train"] == [
        1.0,
        1.0,
        0.5,
        0.5,
    ]


def test_a_run_from_the_beginning_starts_empty(tmp_path):
    for _ in range(2):
        with MetricLog(tmp_path) as log:
            log.write(0, "eval", {"mIoU": 0.0})
    assert steps(tmp_path) == [(0, "eval")]


def test_lines_are_on_disk_before_the_log_is_closed(tmp_path):
    log = MetricLog(tmp_path)
    log.write(1, "train", {"loss": 1.0})
    assert steps(tmp_path) == [(1, "train")]
    log.close()


BROKEN = {
    "cut off": b'{"step": 1',
    "empty": b"",
    "text": b"\xff\xfe\x00",
    "list": b"[1, 2]",
    "number": b"3",
    "no step": b'{"kind": "train", "loss": 1.0}',
    "no kind": b'{"step": 1, "loss": 1.0}',
    "kind of a number": b'{"step": 1, "kind": 3}',
    "step of a text": b'{"step": "1", "kind": "train"}',
    "true step": b'{"step": true, "kind": "train"}',
    "negative step": b'{"step": -1, "kind": "train"}',
    "loss of a text": b'{"step": 1, "kind": "train", "loss": "1.0"}',
    "loss of a list": b'{"step": 1, "kind": "train", "loss": [1.0]}',
    "endless number": b'{"step": 1, "kind": "train", "loss": 1' + b"0" * 400 + b"}",
    "deep": b"[" * 100_000,
    "surrogate": b'{"step": 1, "kind": "train", "\\ud800/L_seg": 1.0}',
    "name of two lines": b'{"step": 1, "kind": "eval", "name": "a\\nb"}',
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_a_broken_line_costs_itself_only_and_is_said_once(tmp_path, capsys, line):
    good = b'{"step": 2, "kind": "train", "loss": 1.5}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + line + b"\n" + line + b"\n" + good.replace(b"2", b"3"))
    assert read_history(tmp_path) == [{"step": step, "kind": "train", "loss": 1.5} for step in (2, 3)]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert f"{tmp_path / 'metrics.jsonl'}: 2 lines are no metrics and left out, the first line 2" in said[0]
    assert len(said[0]) < len(str(tmp_path)) + 250
    with MetricLog(tmp_path, resume_step=2):
        pass
    assert (tmp_path / "metrics.jsonl").read_bytes() == good


def test_a_log_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="metrics.jsonl cannot be read .*: mend or remove it"):
        read_history(tmp_path)


def test_tensorboard_gets_the_scalars_and_the_restart(tmp_path):
    with MetricLog(tmp_path, resume_step=20) as log:
        log.write(30, "train", {"loss": 0.5})
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = list(read_events(file.read_bytes()))
    values = {v.tag: (e.step, v.simple_value) for e in events for v in e.summary.value}
    assert values == {"train/loss": (30, 0.5)}
    restarts = [e.step for e in events if e.session_log.status == event_pb2.SessionLog.START]
    assert restarts == [21]  # TensorBoard hides what earlier event files say from here on


def test_typical_speed_is_the_median_and_the_most_memory(tmp_path):
    with MetricLog(tmp_path) as log:
        for step, rate, wait, memory in ((1, 1.0, 0.9, 2.0), (2, 40.0, 0.1, 8.5), (3, 42.0, 0.2, 8.0)):
            log.write(
                step, "train", {"loss": 1.0, "images_per_second": rate, "data_wait": wait, "host_memory_gib": memory}
            )
        log.write(3, "eval", {"images_per_second": 1000.0})
    assert typical_speed(read_history(tmp_path)) == {
        "images_per_second": 40.0,
        "data_wait": 0.2,
        "host_memory_gib": 8.5,
    }
    assert typical_speed([]) == {}


def read_events(data):
    """TFRecord framing: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    while data:
        length = int.from_bytes(data[:8], "little")
        yield event_pb2.Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
