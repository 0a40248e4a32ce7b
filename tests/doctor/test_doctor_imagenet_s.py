"""What the doctor says of ImageNet-S, prepared, in the config that is evaluated on it twice."""

import pytest

from configs import c171_i21k
from data_pipelines.builders.imagenet_s import ImageNetS
from data_pipelines.builders.preparation import prepare
from larvseg_jax.config import from_config
from larvseg_jax.doctor import classes, data, set_report
from tests.data_pipelines.mask_trees import write
from tests.data_pipelines.test_imagenet_s import tree

pytestmark = pytest.mark.slow  # the largest vocabulary takes seconds


def test_both_evaluations_are_told_apart_and_other_is_named(tmp_path):
    prepare(ImageNetS, write(tmp_path / "in", tree("tar")), tmp_path)
    config = c171_i21k.get_config("imagenet_s")
    config.data_root = str(tmp_path)
    run = from_config(config)
    texts = {f.where: f.text for f in classes.classes_section(run).findings if f.where.startswith("evals.")}
    assert texts["evals.val_imagenet_s"].startswith("919 classes compete: ")
    assert texts["evals.val_imagenet_s_open"].startswith("21,842 classes compete: ")
    assert texts["evals.val_imagenet_s_open"].endswith(
        "the 20,923 of imagenet_21k that are not scored count as 'other'"
    )
    reports = set_report.inspect(run, most=30)
    of_s = tuple(report for report in reports if "imagenet_s" in report.where)
    found = [(f.where, f.level, f.text) for f in data.found_section(run, of_s).findings]
    assert [where for where, _, _ in found] == ["evals.val_imagenet_s", "evals.val_imagenet_s_open"]
    assert all("919 photos" in text and "11,500 fewer than the published 12,419" in text for _, _, text in found)
    said = [(f.where, f.level, f.text) for f in data.labels_section(of_s).findings]
    assert ("evals.val_imagenet_s", "ok", "every one of its 919 classes is shown") in said
    assert ("evals.val_imagenet_s", "ok", "classes of the data that it ignores (1): other") in said
    assert ("evals.val_imagenet_s_open", "ok", "every one of its 920 classes is shown") in said
    assert not [text for _, level, text in said if level in ("warning", "error")]
    assert [f.text for f in classes.imagenet_section(of_s).findings] == ["this config uses none"]
