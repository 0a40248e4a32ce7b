"""What the size of a network changes in the config of own data."""

import pytest

from configs import own_data
from data_pipelines.scenes import streets


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return streets.write_streets(tmp_path_factory.mktemp("made") / "streets", 1, 1)


def test_a_frozen_dinov2_learns_its_head_alone_on_all_streams(folder):
    config = own_data.get_config(f"{folder},size=dinov2,novel=bird")
    assert (config.model.patch_size, config.model.width, config.optimizer.frozen) == (14, 384, "^backbone/")
    assert config.pretrained == "dinov2_vits14_pretrain.pth"
    assert sorted(config.streams) == ["masks", "tagged", "tags_of_masks"]
    assert {stream.crop_size for stream in config.streams.values()} == {config.evals.val.window} == {224}
    assert config.streams.tagged.lambda_aux == 0.3
    assert config.evals.val.choose_novel_offset


def test_augreg_s_sizes_keep_the_paper_s_lambdas(folder):
    config = own_data.get_config(f"{folder},size=B")
    assert (config.model.width, config.streams.tagged.lambda_cls, config.streams.masks.crop_size) == (768, 0.1, 512)
