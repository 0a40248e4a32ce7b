"""The paper's tables in small, on photographs of animals: rows of configs/voc_animals.py.

    LARVSEG_DATA=<folder with voc12_animals> larvseg grid configs/grids/voc_animals.py --out=runs/grid_voc

Argument, behind a colon: another config with the same streams and classes. docs/grids.md.
"""

from configs.grids import small_photos
from configs.voc_animals import BASE, NOVEL
from larvseg_jax.grid.description import Grid

ALL_MASKS = {"streams.masks.source.split": "train", "streams.masks.classes": ("background", *BASE, *NOVEL)}


def get_grid(config: str = "configs/voc_animals.py") -> Grid:
    """All tables."""
    return Grid(small_photos.tables(config, ALL_MASKS))
