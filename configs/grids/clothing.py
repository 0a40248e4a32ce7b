"""The paper's tables in small, on photographs of clothes: rows of configs/clothing.py.

    LARVSEG_DATA=<folder with ccp> larvseg grid configs/grids/clothing.py --out=runs/grid_clothing

Argument, behind a colon: another config with the same streams and classes. docs/grids.md.
"""

from configs.clothing import BASE, NOVEL
from configs.grids import small_photos
from larvseg_jax.grid.description import Grid

ALL_MASKS = {"streams.masks.classes": ("background", *BASE, *NOVEL)}


def get_grid(config: str = "configs/clothing.py") -> Grid:
    """All tables."""
    return Grid(small_photos.tables(config, ALL_MASKS))
