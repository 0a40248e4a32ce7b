import pytest

from tests import tiny
from tests.features.made import config_of, made


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data")).parent


@pytest.fixture(scope="package")
def one_view(data, tmp_path_factory):
    """float32 features of one view of every photo, from the first two blocks."""
    return made(tmp_path_factory.mktemp("one"), config_of(data), views=1, dtype="float32")
