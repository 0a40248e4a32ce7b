"""ViL-Seg at the paper's size: Conceptual 12M, ViT-B/16 from scratch, 768 pairs a step. Not yet run.

    python train.py --config=configs/vilseg/cc12m.py          and evaluates on VOC, of which 5 classes are "unseen"
    ... --config=configs/vilseg/cc12m.py:on=pascal_context_55_4
    ... --config=configs/vilseg/cc12m.py:on=coco_stuff_156_15
    ... --config=configs/vilseg/cc12m.py:vision=false         without L_vision (Table 2)
    ... --config=configs/vilseg/cc12m.py:clusters=10          C, Fig. 5: 20 and 25 are the best
    ... --config=configs/vilseg/cc12m.py:detached             L_cluster moves the clustering head alone

In data_root: the pairs, prepared as `captions/1.0.0` (docs/captions.md), and the data set of the evaluation. What the
paper leaves open, and what was chosen: docs/vilseg.md. A trained run is evaluated by any of these configs:
python evaluate.py --run=runs/vilseg_cc12m --config=configs/vilseg/cc12m.py:on=coco_stuff_156_15

Paper, mIoU / pixels right of the unseen classes in %, ST = with self-training, which is not here:

                          VOC, 5 unseen     Context, 4      COCO-Stuff, 15
    ViL-Seg (Table 1)      34.42 / 76.03    16.32 / 45.64    16.43 / 32.58
    ViL-Seg + ST           37.30 / 85.62    18.94 / 50.14    18.05 / 35.23

and of all classes of each set (Table 2):

    without L_vision       22.05 / 50.76    13.14 / 38.90    13.52 / 28.07
    K-means (eval option)  30.97 / 69.88    14.82 / 41.64    15.81 / 30.45
    ViL-Seg                33.61 / 75.97    15.89 / 43.54    16.41 / 31.20

Whether "unseen" competed with all classes is not said: both are evaluated (evals.all, evals.unseen). The number of
steps is not said either: here about ten times through the pairs.
"""

import ml_collections

from configs import common
from configs.vilseg import parts


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: on=SPLIT of vocabulary/splits.py; vision=false; clusters=C; detached."""
    given = common.parse_arguments(arguments, first="on", on="voc_15_5", vision=True, clusters=20, detached=False)
    config = parts.experiment(common.run_name("vilseg_cc12m", arguments.replace(f"on={given.on}", "")).rstrip("_"))
    config.total_steps = 160_000
    # CLIP's ViT-B/16, so that its weights fit, too (config.pretrained).
    config.model.update(image_size=224, mlp="quick_gelu", norm_before=True, patch_bias=False, layer_norm_epsilon=1e-5)
    config.model.update(dtype="bfloat16")
    config.method.text.dtype = "bfloat16"
    config.method.vision.weight = float(given.vision)
    config.method.cluster.update(num=given.clusters, stop_gradient=given.detached)
    parts.captions(config, common.source(tfds="captions/1.0.0", split="train"), batch_size=768)
    config.optimizer.warmup_steps = 4000
    # A whole photo is one window, as the paper sees it; its test size is not said.
    parts.zero_shot(config, given.on, scale=(448, 448), window=448, stride=448)
    return config
