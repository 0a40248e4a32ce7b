"""What a row consists of: pictures, what is about them, and the rest."""

import pytest

from data_pipelines.mask_tag_views import MaskTagView
from data_pipelines.rows import besides_pictures
from data_pipelines.views import MaskView, TagView


@pytest.mark.parametrize(
    ("view", "others"), [(MaskView(), {"label"}), (TagView(), {"tags"}), (MaskTagView(), {"label", "tags"})]
)
def test_what_is_about_a_picture_goes_with_it(view, others):
    """Cached features hold the rest: with a word more, those that earlier versions made would be taken for others."""
    specs = view.spec()
    assert specs.keys() == {"image", "image_extent"} | others
    assert besides_pictures(specs) == {name: specs[name] for name in others}
