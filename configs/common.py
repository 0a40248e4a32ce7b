"""What a config starts from: every section there is, with the defaults of its dataclass.

The dataclasses in the package say everything there is to say of an option: meaning, unit, bounds, default (their names
stand beside the sections below). `python train.py --config=... --show` prints all options with their values. The other
configs change some of them and add none. Defaults are those of the authors' code for ViT-B/16 at 512 pixels
(COCO-Stuff masks + tags).
"""

import types

import ml_collections

from data_pipelines.replacing import DataConfig
from data_pipelines.sources import SourceConfig
from data_pipelines.streams import StreamConfig
from data_pipelines.views import VIEWS
from larvseg_jax import options
from larvseg_jax.config import CheckpointConfig, RunConfig
from larvseg_jax.devices.sharding import MeshConfig
from larvseg_jax.evaluation.config import EvalConfig
from larvseg_jax.methods import larvseg
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.training.optimizer import OptimizerConfig
from larvseg_jax.vocabulary import Vocabulary
from larvseg_jax.vocabulary.catalogue import ClassListsConfig

VIT_SIZES = {
    "Ti": dict(width=192, depth=12, num_heads=3, mlp_dim=768),
    "S": dict(width=384, depth=12, num_heads=6, mlp_dim=1536),
    "B": dict(width=768, depth=12, num_heads=12, mlp_dim=3072),
    "L": dict(width=1024, depth=24, num_heads=16, mlp_dim=4096),
}
DINOV2_SIZES = {
    **{size: VIT_SIZES[size] for size in ("S", "B", "L")},
    "g": dict(width=1536, depth=40, num_heads=24, mlp_dim=4096, mlp="swiglu"),
}


def get_config() -> ml_collections.ConfigDict:
    """LarvSeg with all defaults, but without a vocabulary and streams."""
    config = ml_collections.ConfigDict(options.defaults(RunConfig))  # larvseg_jax/config.py
    config.vocabulary = options.defaults(Vocabulary)  # vocabulary/vocabulary.py
    config.class_lists = options.defaults(ClassListsConfig)  # vocabulary/catalogue.py
    config.streams = ml_collections.ConfigDict()  # name -> mask_stream(...), tag_stream(...), caption_stream(...)
    config.model = options.defaults(ViTConfig) | dict(drop_path=0.1)  # models/vit.py
    config.method = options.defaults(larvseg.Config)  # methods/larvseg/options.py
    config.optimizer = options.defaults(OptimizerConfig)  # training/optimizer.py
    config.mesh = options.defaults(MeshConfig)  # devices/sharding.py
    # LarvSeg's tables of classes lie with their classes.
    config.mesh.rules = (
        ("head/class_embeddings$", ("model",)),
        ("^memory/(slots|cursor|wraps|class_mean)$", ("model",)),
    )
    config.evals = dict(val=evaluation())  # name -> evaluation(...); the first by name says which checkpoint is best
    config.checkpoint = options.defaults(CheckpointConfig)  # larvseg_jax/config.py
    config.data = options.defaults(DataConfig)  # data_pipelines/replacing.py
    return config


def mask_stream(**changes) -> ml_collections.ConfigDict:
    """A stream of photos with masks: weight * L_seg."""
    return _labelled_stream("masks", changes)


def tag_stream(**changes) -> ml_collections.ConfigDict:
    """A stream of photos with image labels: weight * (lambda_cls * L_cls + lambda_aux * L_aux)."""
    return _labelled_stream("tags", changes)


def caption_stream(*loss: type, **changes) -> ml_collections.ConfigDict:
    """A stream of photos with captions; `loss`: the dataclass of what its method makes of such a stream, if it has one.

    LarvSeg cannot learn from captions: only the configs of other methods have such streams.
    """
    return _stream("captions", loss, changes)


def _labelled_stream(kind: str, changes: dict) -> ml_collections.ConfigDict:
    """With the options of LarvSeg (methods/larvseg/options.py)."""
    return _stream(kind, (larvseg.Config().loss_options(VIEWS[kind]),), changes)


def _stream(kind: str, loss: tuple[type, ...], changes: dict) -> ml_collections.ConfigDict:
    """Options of data_pipelines/streams.py, of its view (views.py, caption_views.py), and of a method."""
    return _changed(dict(kind=kind, **options.defaults(StreamConfig, VIEWS[kind], *loss)), changes)


def source(**changes) -> ml_collections.ConfigDict:
    """Where examples come from: one of a prepared TFDS data set, a folder, class folders, a list of tags."""
    return _changed(options.defaults(SourceConfig), changes)


def evaluation(**changes) -> ml_collections.ConfigDict:
    """Photos with masks and how they are segmented: evaluation/config.py."""
    return _changed(options.defaults(EvalConfig), changes)


def _changed(section: dict, changes: dict) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(section)
    config.lock()  # a mistyped option is an error
    config.update(changes)
    return config


def small_photos(method: str) -> ml_collections.ConfigDict:
    """From scratch on small photographs, on a CPU: what configs/voc_animals.py and clothing.py share."""
    config = get_config()
    config.total_steps = 5000
    use_small_vit(config, image_size=64)
    photos = dict(batch_size=12, scale=(256, 64), ratio_range=(1.0, 1.75), crop_size=64)
    config.streams.masks = mask_stream(**photos)
    # A data set with a background class: without the tag the image-level loss would push every pixel
    # towards the other tags, and what the masks have taught would be lost. The lambdas are three times those of
    # the original, whose backbone is pretrained: here novel classes must be learnt from the tags alone.
    config.streams.tags = tag_stream(
        **photos, tags_from="image", always_tags=("background",), lambda_cls=0.3, lambda_aux=0.3
    )
    set_method(config, method)
    config.optimizer.update(from_scratch_optimizer(learning_rate=2e-3))
    config.evals.val.update(scale=(320, 80), window=64, stride=32, every=1000)
    config.checkpoint.every = 1000
    return config


def use_small_vit(config: ml_collections.ConfigDict, image_size: int) -> None:
    """A ViT that two CPU cores can train from scratch in minutes to an hour, in place of the ViT-B/16."""
    config.model.update(width=96, depth=4, num_heads=3, mlp_dim=384, patch_size=8, image_size=image_size)
    config.model.update(stem="conv", drop_path=0.0)
    if config.method.name == "larvseg":
        config.method.gamma_init = 2.0


def use_dinov2(
    config: ml_collections.ConfigDict, size: str = "S", *, registers: bool = False, image_size: int = 518
) -> None:
    """The ViT of a DINOv2 file (docs/weights.md), "S", "B", "L" or "g", in place of the ViT-B/16.

    `config.pretrained` names the file. Crops and windows are best whole numbers of its patches of 14 pixels: 504 rather
    than 512. With another image_size than the file's 518 the position embedding is resized once when the file is read.
    """
    config.model.update(DINOV2_SIZES[size], patch_size=14, image_size=image_size, layer_scale=True)
    if registers:  # with them its authors resize the position embedding in another way
        config.model.update(registers=4, position_resize="antialiased")


def use_dinov2_on_photos(config: ml_collections.ConfigDict, learn: int, side: int) -> None:
    """The photographs of `small_photos`, seen by DINOv2's ViT-S/14 in crops of `side` pixels.

    Of its blocks the last `learn` move, with all of them its embedding, too; with none the head alone learns.
    `config.pretrained` names its file.
    """
    use_dinov2(config, "S")
    depth = config.model.depth
    config.model.update(stem="patch", drop_path=0.0)
    config.method.gamma_init = 4.0  # trials with others: docs/results.md, 17
    config.optimizer.frozen = "" if learn >= depth else frozen_but_last(depth, learn)
    config.optimizer.learning_rate = 3e-3 if learn == 0 else 1e-3 if learn == 1 else 2e-4
    config.total_steps = 1500
    for stream in config.streams.values():
        # A loss grid of 28 x 28 for 16 x 16 patches; with one of 112 x 112 a step of the head alone took 1.2 to 1.4
        # times as long on a CPU (two measurements of each).
        stream.update(batch_size=16, scale=(4 * side, side), crop_size=side, downsample_rate=8)
    config.evals.val.update(scale=(4 * side, side), window=side, stride=side // 2, every=500)
    config.checkpoint.every = 500


def from_scratch_optimizer(learning_rate: float = 1e-3) -> dict:
    """AdamW with a short warm-up: SGD as of the original needs pretrained weights."""
    return dict(name="adamw", learning_rate=learning_rate, warmup_steps=100, weight_decay=0.05)


def frozen_but_last(depth: int, k: int) -> str:
    """For `optimizer.frozen`: of a backbone of `depth` blocks only the last `k` learn, and the final norm and the head.

    With k = 0 the final norm is frozen, too: its scale is one with the head's projection.
    """
    if not 0 <= k <= depth:
        raise ValueError(f"frozen_but_last({depth}, {k}): use 0 to {depth} blocks that learn")
    if k == 0:
        return "^backbone/"
    learning = "|".join(["encoder_norm", *(f"encoderblock_{i}" for i in range(depth - k, depth))])
    return f"^backbone/(?!Transformer/({learning})/)"


def set_method(config: ml_collections.ConfigDict, method: str) -> None:
    """Switches the CA-Classifier of all tag streams on ("larvseg") or off ("baseline")."""
    if method not in ("larvseg", "baseline"):
        raise ValueError(f"config argument {method!r}: use larvseg or baseline")
    if method == "baseline":
        for stream in config.streams.values():
            if stream.kind == "tags":
                stream.lambda_aux = 0.0


def parse_arguments(text: str, *, first: str = "", **defaults: str | int | bool) -> types.SimpleNamespace:
    """What stands behind the colon of --config=file.py:a=1,b: values of the types of `defaults`.

    A bare word switches on the argument of that name, or else is the value of the argument `first`.
    """
    values = dict(defaults)
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = (part, "true") if isinstance(defaults.get(part), bool) else (first, part)
        if name not in defaults:
            raise ValueError(
                f"config argument {part!r}: there are {', '.join(f'{k}={v}' for k, v in defaults.items())}"
            )
        if isinstance(defaults[name], bool):
            if value not in ("true", "false"):
                raise ValueError(f"config argument {part!r}: use {name}=true or {name}=false")
            values[name] = value == "true"
        else:
            try:
                values[name] = type(defaults[name])(value)
            except ValueError:
                raise ValueError(f"config argument {part!r}: {name} is a number, such as {defaults[name]}") from None
    return types.SimpleNamespace(**values)


def run_name(config: str, arguments: str) -> str:
    """Name of a run, and so of its folder: one for each set of arguments."""
    return "_".join([config, *arguments.replace("=", "").split(",")]).rstrip("_")
