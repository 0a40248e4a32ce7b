"""Processes that were started with different options, code or data: all of them say so, and none trains."""

import pytest

from larvseg_jax.training.agreement import check_same_everywhere, differences
from tests import tiny
from tests.devices.several import exit_codes, printed, start


def test_each_value_is_said_with_its_processes():
    facts = [{"seed": seed, "optimizer": {"name": "adam", "rate": rate}} for seed, rate in ((0, 1), (2, 1), (0, 3))]
    facts[1]["extra"] = (1, 2)
    assert differences(facts) == [
        "extra is not given on processes 0 and 2, (1, 2) on process 1",
        "optimizer.rate is 1 on processes 0 and 1, 3 on process 2",
        "seed is 0 on processes 0 and 2, 2 on process 1",
    ]


def test_a_list_and_a_tuple_are_the_same_and_a_number_is_not_its_text():
    assert differences([{"a": [1, [2]]}, {"a": (1, (2,))}]) == []
    assert differences([{"a": 1}, {"a": "1"}]) == ["a is 1 on process 0, '1' on process 1"]


def test_one_process_agrees_with_itself():
    check_same_everywhere("config", {"seed": 0})


@pytest.mark.slow
def test_processes_with_different_options_all_refuse_and_name_them(tmp_path):
    """Another learning rate would train on, another batch size would wait for good."""
    workdir, data = tmp_path / "run", tiny.write_data(tmp_path / "data").parent
    rate, batch = "optimizer.learning_rate", "streams.tags.batch_size"
    own = [f"--config.{rate}=0.5"], [f"--config.{rate}=0.25", f"--config.{batch}=16"]
    assert exit_codes(start(workdir, f"--config.data_root={data}", devices=(1, 1), own=own)) == [2, 2]
    for process in range(2):
        (line,) = [line for line in printed(workdir, process).read_text().splitlines() if "error:" in line]
        assert line.startswith("error: the processes differ: ")
        assert f"{rate} is 0.5 on process 0, 0.25 on process 1" in line
        assert f"{batch} is 8 on process 0, 16 on process 1" in line
        assert "data_root" not in line
    assert not workdir.exists()


@pytest.mark.slow
def test_processes_whose_data_differs_refuse_before_the_first_step(tmp_path):
    """Each reads its own disk; on one of them a picture less was copied."""
    workdir, folders = tmp_path / "run", [tiny.write_data(tmp_path / name).parent for name in "ab"]
    splits = folders[1] / "tiny" / "splits.json"
    splits.write_text(splits.read_text().replace('["p00", ', "["))
    own = [[f"--config.data_root={folder}"] for folder in folders]
    assert exit_codes(start(workdir, devices=(1, 1), own=own)) == [2, 2]
    for process in range(2):
        text = printed(workdir, process).read_text()
        assert "error: the processes differ: streams.masks.pictures is 10 on process 0, 9 on process 1" in text
        assert "compilation" not in text
