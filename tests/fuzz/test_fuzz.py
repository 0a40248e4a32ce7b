"""A slice of `make fuzz`: the same damaged inputs every time."""

import time

from tests.fuzz.fuzzing import Fuzzer, plan, prepared

INPUTS, SEED = 1000, 1


def test_damaged_inputs_are_read_or_refused_in_one_line(tmp_path):
    fuzzer = Fuzzer(tmp_path)
    with prepared() as readers:
        for reader, number in plan(readers, INPUTS, SEED):
            fuzzer.give(reader, reader.input(SEED, number), str(number))
    assert not fuzzer.findings, "\n".join(map(str, fuzzer.findings))
    for name, counts in fuzzer.counts.items():
        assert counts.read, f"no input of {name} was read: its valid ones are none"
        assert counts.refused or name in ("metrics", "metadata", "folders"), f"no input of {name} was refused"


def test_inputs_are_a_function_of_seed_and_number(monkeypatch):
    with prepared() as first, prepared() as second:
        for a, b in zip(first, second, strict=True):
            now = [a.input(3, i) for i in range(20)]
            with monkeypatch.context() as later:
                later.setattr(time, "localtime", lambda *_: (2031, 7, 6, 5, 4, 3, 0, 0, 0))  # what zipfile asks
                assert now == [b.input(3, i) for i in range(20)], a.name
