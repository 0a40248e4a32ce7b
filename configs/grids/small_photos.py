"""The paper's tables in small: what the grids of small photographs have in common.

Every row changes options of one config, whose streams are `masks` and `tags`. Two rows of the paper are missing, since
these data sets have no second tagged stream: + ImageNet pictures, and the CA-Classifier on one stream alone
(configs/grids/quickstart.py has both, on generated scenes).
"""

from collections.abc import Mapping
from typing import Any

from larvseg_jax.grid.description import Row, Table

NO_ATTENTION = {"streams.tags.lambda_aux": 0.0}
NO_TAGS = {"streams.tags.weight": 0.0, **NO_ATTENTION}


def tables(config: str, all_masks: Mapping[str, Any]) -> tuple[Table, ...]:
    """All tables; `all_masks`: the options with which masks teach the novel classes, too."""
    larvseg = Row("LarvSeg", config)
    return (
        Table(
            "methods",
            "What the tags add (in small: Table 3)",
            (
                Row("masks of base classes, no tags", config, NO_TAGS),
                Row("baseline: tags without attention", config, NO_ATTENTION),
                # As much weight on tags as LarvSeg's two losses have together.
                Row("baseline, lambda_cls 0.6", config, {**NO_ATTENTION, "streams.tags.lambda_cls": 0.6}),
                larvseg,
                Row("masks of all classes, no tags", config, {**all_masks, **NO_TAGS}),
            ),
            reference="baseline: tags without attention",
            scores=("mIoU", "mIoU_base", "mIoU_novel", "hIoU"),
        ),
        Table(
            "attention",
            "Where the attention comes from (in small: Table 5)",
            (
                Row("cross-image", config, _ca("variant", "cross_image")),
                Row("one image: region (7a)", config, _ca("variant", "region")),
                Row("one image: its own bank (7b)", config, _ca("variant", "own_bank")),
            ),
            reference="cross-image",
        ),
        Table(
            "bank",
            "Slots of the memory bank, M (in small: Table 6, left)",
            tuple(Row(f"M = {m}", config, _ca("memory_bank_size", m)) for m in (5, 10, 20, 40)),
            reference="M = 20",
        ),
        Table(
            "topk",
            "Pixels averaged into a slot, K (in small: Table 6, right)",
            tuple(Row(f"K = {k}", config, _ca("foreground_topk", k)) for k in (5, 10, 20, 40)),
            reference="K = 20",
        ),
        Table(
            "sampling",
            "Classes that take part in a step",
            (
                Row("all", config),
                Row(
                    "8 drawn anew, and those of the batch",
                    config,
                    {"streams.masks.sample_classes": 8, "streams.tags.sample_classes": 8},
                ),
            ),
            reference="all",
        ),
    )


def _ca(option: str, value: str | int) -> dict[str, Any]:
    return {f"method.ca_classifier.{option}": value}
