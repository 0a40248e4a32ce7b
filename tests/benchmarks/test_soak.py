"""The soak's arithmetic."""

from benchmarks.soak import Look, summary

MIB = 2**20


def test_a_leak_and_a_slowing_down_are_seen():
    # 1 MiB and one handle a minute; 2 steps/s in the first half, 1 in the second; 1.5 processors.
    looks = [
        Look(5.0 * i, 7.5 * i, round((500 + i / 12) * MIB), 40 + i // 12, 30, min(10 * i, 600) + max(5 * (i - 60), 0))
        for i in range(121)
    ]
    said = summary(looks)
    assert said["steps"] == "120 to 900 in 9.0 minutes"
    assert said["resident memory"] == "first third 502 MiB, last third 509 MiB (medians); slope +60.0 MiB an hour"
    assert said["handles"] == "41 to 50, at the end 50"
    assert said["threads"] == "30 to 30, at the end 30"
    assert said["steps/s"] == "first third 2.00, last third 1.00, ratio 0.500"
    assert said["steps per second of processor time"] == "1.33, 0.67, ratio 0.500"
