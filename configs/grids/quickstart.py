"""A second tagged stream, of single objects, on generated scenes: rows of configs/quickstart.py.

    python -m data_pipelines.scenes --data_root=data
    larvseg grid configs/grids/quickstart.py --out=runs/grid_quickstart

The photographs of the other grids have no such stream. docs/grids.md.
"""

from larvseg_jax.grid.description import Grid, Row, Table

OFF_SCENES, OFF_OBJECTS = {"streams.tags.lambda_aux": 0.0}, {"streams.objects.lambda_aux": 0.0}


def get_grid(config: str = "configs/quickstart.py") -> Grid:
    """Tables 3 (with and without the second stream) and 4 (the attention on one stream alone) in small."""
    alone = f"{config}:objects=false"
    return Grid(
        (
            Table(
                "objects",
                "Pictures of single objects (in small: Table 3, + ImageNet)",
                (
                    Row("baseline", alone, OFF_SCENES),
                    Row("LarvSeg", alone),
                    Row("baseline, with objects", config, OFF_SCENES | OFF_OBJECTS),
                    Row("LarvSeg, with objects", config),
                ),
                reference="baseline",
                scores=("mIoU", "mIoU_base", "mIoU_novel", "hIoU"),
            ),
            Table(
                "streams",
                "The CA-Classifier on each tagged stream (in small: Table 4)",
                (
                    Row("on none", config, OFF_SCENES | OFF_OBJECTS),
                    Row("on objects alone", config, OFF_SCENES),
                    Row("on scenes alone", config, OFF_OBJECTS),
                    Row("on both", config),
                ),
                reference="on none",
            ),
        )
    )
