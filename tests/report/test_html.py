"""Pages: what a template gets, and pictures that a browser can show."""

import base64
import io

import jinja2
import numpy as np
import pytest
from PIL import Image

from larvseg_jax.report.html import data_url, jpeg_url, png_url, templates


def decoded(url):
    kind, _, data = url.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{image.format.lower()}"
    return np.asarray(image)


@pytest.fixture
def page(tmp_path):
    (tmp_path / "page.j2").write_text("<p>{{ name }} {{ share | percent }} {{ colour | hex }}</p>")
    return templates(tmp_path).get_template("page.j2")


def test_templates_escape_and_format(page):
    assert page.render(name="<b>", share=0.1234, colour=(255, 0, 16)) == "<p>&lt;b&gt; 12.3 #ff0010</p>"
    assert "–" in page.render(name="", share=float("nan"), colour=(0, 0, 0))


def test_a_name_that_is_not_given_is_an_error(page):
    with pytest.raises(jinja2.UndefinedError, match="name"):
        page.render(share=0.5, colour=(0, 0, 0))


def test_png_keeps_every_colour():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(png_url(pixels)), pixels)


def test_jpeg_keeps_narrow_stripes_of_colour():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, ::2] = 255, 40, 40  # halved colour resolution would mix them with the black ones between
    assert np.abs(decoded(jpeg_url(pixels)).astype(int) - pixels).mean() < 8


def test_an_encoded_picture_stays_as_it_is():
    assert data_url("png", b"abc") == "data:image/png;base64,YWJj"
