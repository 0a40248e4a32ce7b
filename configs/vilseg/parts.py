"""What the experiments of ViL-Seg share."""

import ml_collections

from configs import common
from larvseg_jax import options
from larvseg_jax.methods import vilseg
from larvseg_jax.methods.vilseg.options import StreamLoss
from larvseg_jax.vocabulary.class_lists import class_list
from larvseg_jax.vocabulary.splits import split_keys, split_of


def experiment(name: str) -> ml_collections.ConfigDict:
    """All defaults of ViL-Seg and its optimiser's kind; streams and classes are added by each config."""
    config = common.get_config()
    config.name = name
    with config.unlocked():
        del config["method"]
        config.method = options.defaults(vilseg.Config)
    # Logits that outrun their centre let L_vision collapse (docs/vilseg.md): here they are of unit vectors, and the
    # centre is that of the last batch.
    config.method.vision.update(normalise=True, center_momentum=0.0)
    config.mesh.rules = ()  # no table of classes to be split
    config.model.drop_path = 0.0
    config.optimizer.update(name="adamw", schedule="cosine", learning_rate=5e-4, min_learning_rate=1e-5)
    config.optimizer.update(weight_decay=0.04)
    return config


def captions(config: ml_collections.ConfigDict, source: ml_collections.ConfigDict, **changes) -> None:
    """The stream "captions", with the views that the losses in use need; last, when method is as it is to be."""
    method = config.method
    config.streams.captions = common.caption_stream(
        StreamLoss,
        source=source,
        text=method.tokenizer,
        local_views=6 if method.vision.weight else 0,
        recoloured=bool(method.cluster.weight),
        **changes,
    )


def zero_shot(config: ml_collections.ConfigDict, split: str, **changes) -> None:
    """Evaluations on the data set of a split: "all" of its classes compete, or the "unseen" ones alone.

    The classes of the run are those of all data sets that have a split, whichever is evaluated, so that a checkpoint
    can be evaluated on each. ViL-Seg itself needs no list of classes to learn.
    """
    chosen = split_of(split)
    lists = dict.fromkeys(split_of(key).class_list for key in split_keys())
    classes = tuple(dict.fromkeys(name for key in lists for name in class_list(key).ids))
    config.vocabulary.update(classes=classes, base=chosen.seen, novel=chosen.unseen)
    source = common.source(tfds=f"{chosen.class_list}/1.0.0", split="val")
    config.evals = dict(
        all=common.evaluation(source=source, classes=class_list(chosen.class_list).ids, **changes),
        unseen=common.evaluation(source=source, classes=chosen.unseen, **changes),
    )
