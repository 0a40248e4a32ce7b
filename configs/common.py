"""Every option there is, with its default. The other configs change some of them and add none.

Defaults are those of the authors' code for ViT-B/16 at 512 pixels (COCO-Stuff masks + tags).
"""

import types

import ml_collections

VIT_SIZES = {
    "Ti": dict(width=192, depth=12, num_heads=3, mlp_dim=768),
    "S": dict(width=384, depth=12, num_heads=6, mlp_dim=1536),
    "B": dict(width=768, depth=12, num_heads=12, mlp_dim=3072),
    "L": dict(width=1024, depth=24, num_heads=16, mlp_dim=4096),
}


def mask_stream(**changes) -> ml_collections.ConfigDict:
    """A stream of photos with masks: weight * L_seg."""
    return _stream(kind="masks", **changes)


def tag_stream(**changes) -> ml_collections.ConfigDict:
    """A stream of photos with image labels: weight * (lambda_cls * L_cls + lambda_aux * L_aux)."""
    return _stream(kind="tags", **changes)


def _stream(**changes) -> ml_collections.ConfigDict:
    stream = ml_collections.ConfigDict(
        dict(
            kind="masks",  # "masks": pixel labels; "tags": image labels
            source=source(),
            classes=(),  # class names this stream knows, = its logit columns; () = the whole vocabulary
            class_list="",  # instead of classes: one of class_lists.lists
            sample_classes=0,  # classes that take part in a step, drawn anew each time; 0 = all (Original: 100 or all)
            batch_size=8,  # images of this stream in every step, over all devices
            weight=0.5,  # of this stream's loss. Paper: 1. Original: gradients averaged over ranks, so 4:4 is 1/2 each
            lambda_cls=0.1,  # tags: weight of the image-level loss L_cls
            lambda_aux=0.1,  # tags: weight of the CA-Classifier loss L_aux; 0 switches the attention off
            always_tags=(),  # tags every photo of the stream has besides its own, e.g. ("background",)
            tags_from="crop",  # "crop": tags present in the augmented crop (needs masks); "image": the photo's tags
            max_labels=32,  # most tags of one photo (static shape); more stop the run with the photo's name
            scale=(2048, 512),  # resize: (long side, short side) limits, times a ratio from ratio_range
            ratio_range=(0.5, 2.0),
            crop_size=512,
            category_ratio=0.75,  # redraw a crop that one class fills beyond this share; 1.0 = never
        )
    )
    stream.lock()  # a mistyped option is an error
    stream.update(changes)
    return stream


def source(**changes) -> ml_collections.ConfigDict:
    """Where examples come from: one of a prepared TFDS data set, a folder, a folder of class folders."""
    where = ml_collections.ConfigDict(
        dict(
            tfds="",  # directory of a prepared TFDS data set (ArrayRecord), relative to data_root
            folder="",  # folder with images/, masks/, classes.txt or .json (docs/own_data.md), relative to data_root
            class_folders="",  # folder with one folder of pictures per class (tags only), relative to data_root
            split="train",  # TFDS split, sub-folder of images/, or key of splits.json ("suggested.train_masks": nested)
        )
    )
    where.lock()
    where.update(changes)
    return where


def get_config() -> ml_collections.ConfigDict:
    """The full set of options."""
    config = ml_collections.ConfigDict()
    config.name = "unnamed"
    config.workdir = ""  # checkpoints, logs, report; "" = runs/<name>
    config.data_root = ""  # "" = environment variable LARVSEG_DATA, else the current folder
    config.seed = 0
    config.total_steps = 320_000

    config.vocabulary = dict(
        classes=(),  # all class names: rows of the class embeddings and of the memory bank
        base=(),  # learnt from masks
        novel=(),  # learnt from tags only
        background="",  # reported apart
        ignore_in_eval=(),  # left out of every mean
    )

    config.class_lists = dict(  # instead of vocabulary: class lists that ship with the package
        lists=(),  # their union is the vocabulary; base are the classes that a mask stream knows
        share="title",  # rows shared by classes of the same "title" (Original), "synset", or "none"
        duplicates="merged",  # COCO-Stuff's 7 kinds of wall: one column counted 7 times, or "separate" (Original)
    )

    config.streams = ml_collections.ConfigDict()  # name -> mask_stream(...) or tag_stream(...)
    config.downsample_rate = 2  # loss grid = crop_size / downsample_rate
    config.batch_padding = "refuse"  # batch the mesh does not divide: "refuse" or "pad" with masked examples
    config.data_threads = 4

    config.model = dict(
        **VIT_SIZES["B"],
        patch_size=16,
        image_size=512,  # picture size the position embedding is stored for
        stem="patch",  # "patch": one patch convolution; "conv": 3x3 convolutions, better from scratch
        drop_path=0.1,
        dtype="float32",  # of the backbone's computation: "float32" or "bfloat16"; parameters stay float32
        remat=False,  # recompute block activations in the backward pass
        gamma_init=1.0,  # start of the logit scale; from scratch 2 and more (logits are bounded by gamma*sqrt(N-1))
    )
    config.pretrained = ""  # AugReg .npz, run folder, .safetensors or .pth (docs/weights.md); "" = from scratch

    config.ca_classifier = dict(
        variant="cross_image",  # "cross_image": memory bank; "region" (method 7a) and "own_bank" (7b): single image
        memory_bank_size=20,  # M, slots per class
        foreground_topk=20,  # K, pixels averaged into one slot
        warmup=1,  # a class is attended once its slots were all filled this often
        background_topk=5,  # single-label images: pixels whose mean score is held against the threshold
        background_threshold=0.2,
        background_mse_threshold=1.0,
        class_block=1024,  # classes mined at a time
        bank_dtype="float32",  # "float16": half the memory, maps within 2e-4; "bfloat16": within 2e-3
    )
    config.seg_loss_mean = "all"  # L_seg divided by "all" pixels (Original) or by the "valid" ones

    config.optimizer = dict(
        name="sgd",  # "sgd" or "adamw"
        learning_rate=1e-3,
        min_learning_rate=1e-5,
        power=0.9,  # lr(t) = (lr - min) * (1 - t/T)^power + min
        warmup_steps=0,
        momentum=0.9,  # sgd
        weight_decay=0.0,  # adamw; on the kernels of the backbone only
    )

    config.mesh = dict(
        data=-1,  # devices along axis `data`, which pictures are split over; -1: all that model leaves
        model=1,  # devices along axis `model`, which classes are split over; within one process
        # How arrays are split at rest: regular expression on the path -> mesh axis (or None) of each array axis.
        # The first that is found counts; an optimiser's array has the path of its parameter. No rule: whole everywhere.
        rules=(
            ("head/class_embeddings$", ("model",)),
            ("^bank/", ("model",)),
        ),
        shard_backbone=False,  # True: arrays of the ViT are split over all devices, each along its largest axis
    )

    config.eval = _evaluation()
    config.checkpoint = dict(every=8000, keep_last=2)
    config.log_every = 50
    config.gallery = 12  # photos in the report
    return config


def _evaluation() -> dict:
    return dict(
        source=source(split="val"),
        classes=(),  # classes that compete; () = the whole vocabulary
        class_list="",  # instead of classes: one of class_lists.lists
        splits=(),  # other definitions of base and novel to report, e.g. ("processed", "split") for ADE20K
        scale=(2048, 512),
        window=512,
        stride=512,
        limit=0,  # first so many photos; 0 = all
        resize="logits",  # to the original size: "logits" (better), or "labels" (Original: published numbers)
        every=8000,
        class_block=256,  # classes upsampled at a time
    )


def small_photos(method: str) -> ml_collections.ConfigDict:
    """From scratch on small photographs, on a CPU: what configs/voc_animals.py and clothing.py share."""
    config = get_config()
    config.total_steps = 5000
    config.model = small_vit(image_size=64)
    photos = dict(batch_size=12, scale=(256, 64), ratio_range=(1.0, 1.75), crop_size=64)
    config.streams.masks = mask_stream(**photos)
    # A data set with a background class: without the tag the image-level loss would push every pixel
    # towards the other tags, and what the masks have taught would be lost. The lambdas are three times those of
    # the original, whose backbone is pretrained: here novel classes must be learnt from the tags alone.
    config.streams.tags = tag_stream(
        **photos, tags_from="image", always_tags=("background",), lambda_cls=0.3, lambda_aux=0.3
    )
    set_method(config, method)
    config.optimizer = from_scratch_optimizer(learning_rate=2e-3)
    config.eval.update(scale=(320, 80), window=64, stride=32, every=1000)
    config.checkpoint.every = 1000
    return config


def small_vit(image_size: int) -> dict:
    """A ViT that two CPU cores can train from scratch in minutes to an hour."""
    return dict(
        **dict(width=96, depth=4, num_heads=3, mlp_dim=384),
        patch_size=8,
        image_size=image_size,
        stem="conv",
        drop_path=0.0,
        dtype="float32",
        remat=False,
        gamma_init=2.0,
    )


def from_scratch_optimizer(learning_rate: float = 1e-3) -> dict:
    """AdamW with a short warm-up: SGD as of the original needs pretrained weights."""
    return dict(
        name="adamw",
        learning_rate=learning_rate,
        min_learning_rate=1e-5,
        power=0.9,
        warmup_steps=100,
        momentum=0.9,
        weight_decay=0.05,
    )


def set_method(config: ml_collections.ConfigDict, method: str) -> None:
    """Switches the CA-Classifier of all tag streams on ("larvseg") or off ("baseline")."""
    if method not in ("larvseg", "baseline"):
        raise ValueError(f"config argument {method!r}: use larvseg or baseline")
    if method == "baseline":
        for stream in config.streams.values():
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
