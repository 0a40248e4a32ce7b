"""Your own pictures, without writing a config: docs/own_data.md goes through it.

    python train.py --config=configs/own_data.py:mydata

    mydata/images/train/  mydata/images/val/     photos
    mydata/masks/train/   mydata/masks/val/      their masks, PNG
    mydata/classes.txt                           the classes of the masks (or classes.json)
    mydata/tagged/                               pictures without masks, and a tags.csv that says what each shows;
                                                 or a folder for each class; may be missing

The classes are read from there: those of the masks are the base classes, tags (class folders) of other names the novel
ones. Some names mean something, in any spelling: "background" (none of the classes; every tagged picture has some of
it), "unlabelled", "void", "ignore", ... (nobody knows: such pixels are left out everywhere).

    ...:mydata,size=B          ViT-B/16 on a GPU, from pretrained weights (size=S: ViT-S/16, and so on)
    ...:mydata,size=dinov2     DINOv2's ViT-S/14 as it is, and a head that learns on it: on a CPU, too
    ...:mydata,novel=cat+dog   learn these from tags only although the masks show them, to measure what tags teach
    ...:mydata,method=baseline without the CA-Classifier
    ...:mydata,background=sky  this is "none of the classes"; ignore=mud+fog: these are left out; base=void+other:
                               these are classes, whatever their names mean elsewhere
"""

from pathlib import Path

import ml_collections

from configs import common
from data_pipelines.class_folders import class_folders, class_name
from data_pipelines.files import entries
from data_pipelines.folder_classes import FolderClasses, read_classes
from data_pipelines.special_names import meanings
from data_pipelines.tag_lists import tag_list_of
from data_pipelines.tagged_photos import TaggedListing, list_tagged
from larvseg_jax.console import console
from larvseg_jax.errors import UserError

AUGREG = {  # ImageNet-21K weights as published; docs/weights.md says where
    "Ti": "Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0.npz",
    "S": "S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz",
    "B": "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz",
    "L": "L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0.npz",
}
DINOV2 = "dinov2_vits14_pretrain.pth"  # docs/weights.md says where
SIZES = ("small", "dinov2", *AUGREG)
ARGUMENTS = dict(size="small", novel="", method="larvseg", background="", ignore="", base="")


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The folder, then size=small|dinov2|Ti|S|B|L, novel=, ignore=, base= (name+name), background=, method=."""
    args = common.parse_arguments(arguments, first="data", data="", **ARGUMENTS)
    if not args.data:
        raise UserError("configs/own_data.py needs the folder of your data: --config=configs/own_data.py:mydata")
    data = Path(args.data)
    if not data.is_dir():
        raise UserError(f"{args.data} does not exist: give the folder of your data, as seen from the current one")
    if args.size not in SIZES:
        raise UserError(f"config argument size={args.size}: use {', '.join(SIZES)}")
    config = common.get_config()
    changed = [f"{name}={getattr(args, name)}" for name in ARGUMENTS if getattr(args, name) != ARGUMENTS[name]]
    config.name = common.run_name(data.resolve().name, ",".join(changed))  # each its own folder in runs/
    config.data_root = args.data
    classes = read_classes(data)
    groups = special(classes, args.background, _names(args.ignore), _names(args.base))
    config.vocabulary = vocabulary(data, classes, groups, _names(args.novel))
    _say(data, classes, groups)
    background = (config.vocabulary.background,) if config.vocabulary.background else ()
    photos = small(config) if args.size in ("small", "dinov2") else pretrained(config, args.size)
    config.streams.masks = common.mask_stream(
        **photos,
        source=common.source(folder=".", split="train"),
        classes=(*background, *config.vocabulary.base),
        weight=0.5,
    )
    config.evals.val.source = common.source(folder=".", split="val")
    if has_tags(data):
        add_tags(config, data, photos, background, len(set(classes.names)))
        if args.size not in AUGREG:  # novel classes must be learnt from few photos' tags, without fine-tuning
            for stream in (config.streams.tags_of_masks, config.streams.tagged):
                stream.update(lambda_cls=0.3, lambda_aux=0.3)
        # A photo's many tags come with each other: docs/results.md, 24, has what this is worth.
        config.method.ca_classifier.foreground_by = "lead"
        # Where photos have several tags nothing in the losses compares a novel class with those that stand beside it.
        config.evals.val.choose_novel_offset = len(config.vocabulary.novel) > 0 and len(config.vocabulary.classes) < 500
    else:  # the supervised segmenter
        config.streams.masks.weight = 1.0
    if args.size == "dinov2":
        frozen_dinov2(config)
    common.set_method(config, args.method)
    return config


def add_tags(
    config: ml_collections.ConfigDict, data: Path, photos: dict, background: tuple[str, ...], shown: int
) -> None:
    """The streams of tagged photos: those of tagged/, and the masked ones by what of `shown` classes they show."""
    # The tags of the masked photos as well: they show base classes without novel ones, which tells the two apart.
    config.streams.tags_of_masks = common.tag_stream(
        **photos,
        source=common.source(folder=".", split="train"),
        tags_from="crop",
        max_labels=min(shown, 96),  # a static shape: not more than can be
        weight=0.25,
    )
    listing = tag_listing(data)
    config.streams.tagged = common.tag_stream(
        **photos,
        source=common.source(tagged="tagged") if listing else common.source(class_folders="tagged"),
        tags_from="image",
        always_tags=background,
        max_labels=(listing.most_tags if listing else 1) + len(background),
        weight=0.25,
    )


def small(config: ml_collections.ConfigDict) -> dict:
    """A small ViT from scratch, for a laptop: sets model, length and evaluation, returns what streams share."""
    config.total_steps = 2000
    common.use_small_vit(config, image_size=64)
    config.optimizer.update(common.from_scratch_optimizer(learning_rate=2e-3))
    config.evals.val.update(scale=(320, 80), window=64, stride=32, every=500)
    config.checkpoint.every = 500
    return dict(batch_size=8, scale=(256, 64), ratio_range=(1.0, 1.75), crop_size=64)


def frozen_dinov2(config: ml_collections.ConfigDict) -> None:
    """DINOv2's ViT-S/14 as it is, at 224 pixels, on the streams that are there: the head alone learns."""
    common.use_dinov2_on_photos(config, learn=0, side=224)
    config.pretrained = DINOV2
    config.total_steps = 1000
    config.method.ca_classifier.foreground_topk = 5  # of 256 patches: a thing in a scene fills few
    for stream in config.streams.values():
        stream.batch_size = 8


def pretrained(config: ml_collections.ConfigDict, size: str) -> dict:
    """A ViT of AugReg's sizes at 512 pixels, with SGD as in the paper, for a GPU."""
    config.total_steps = 20_000
    config.model.update(common.VIT_SIZES[size], dtype="bfloat16")
    config.pretrained = AUGREG[size]
    config.evals.val.every = config.checkpoint.every = 2000
    return dict(batch_size=8)


def has_tags(data: Path) -> bool:
    """Whether there are tagged pictures: without them everything is learnt from the masks."""
    folder = data / "tagged"
    return folder.exists() and not (folder.is_dir() and not any(entries(folder)))


def tag_listing(data: Path) -> TaggedListing | None:
    """The tagged pictures, if a list says what they show; None if they lie in class folders."""
    folder = data / "tagged"
    return list_tagged(folder) if tag_list_of(folder) else None


def tag_names(data: Path) -> list[str]:
    """The classes that tagged pictures show."""
    if not has_tags(data):
        return []
    listing = tag_listing(data)
    return list(listing.names) if listing else [class_name(folder) for folder in class_folders(data / "tagged")]


def special(classes: FolderClasses, background: str, ignored: tuple[str, ...], base: tuple[str, ...]) -> dict[str, str]:
    """The names in the class list that name no class -> "background" or "ignored"; the arguments decide first."""
    for argument, given in (("background", (background,)), ("ignore", ignored), ("base", base)):
        for name in given:
            if name and name not in classes.names:
                raise UserError(
                    f"config argument {argument}={name}: {classes.file} has no {name!r}: it has "
                    f"{', '.join(classes.names)}"
                )
    names = [name for name in classes.names if name not in (*base, *ignored, background)]
    groups: dict[str, str] = dict(meanings(names))
    if background:  # what else would be the background is something else than it
        groups = dict.fromkeys(groups, "ignored") | {background: "background"}
    groups |= dict.fromkeys(ignored, "ignored")
    several = [name for name, group in groups.items() if group == "background"]
    if len(several) > 1:
        raise UserError(
            f"{classes.file}: {several[0]!r} and {several[1]!r} both name the background: give both the same name, or "
            f"say which of them is it by the argument background={several[0]}"
        )
    return groups


def vocabulary(data: Path, classes: FolderClasses, groups: dict[str, str], learnt_from_tags: tuple[str, ...]) -> dict:
    """Base classes: those of the masks. Novel ones: class folders of other names, and `learnt_from_tags`."""
    masked = [name for name in dict.fromkeys(classes.names) if groups.get(name) != "ignored"]
    background = next((name for name, group in groups.items() if group == "background"), "")
    tags, tagged = tag_names(data), tag_list_of(data / "tagged") or data / "tagged"
    _refuse_near_misses(tags, [*masked, *groups], tagged, classes.file)
    for name in learnt_from_tags:
        if name == background:
            raise UserError(f"config argument novel={name}: it stands for none of the classes and cannot be novel")
        for where, names in ((tagged, tags), (classes.file, masked)):
            if name not in names:
                raise UserError(
                    f"config argument novel={name}: it needs tagged pictures, and masks to measure it on, but "
                    f"{where} has no {name!r}: it has {', '.join(names) or 'no classes'}"
                )
    base = tuple(name for name in masked if name not in (background, *learnt_from_tags))
    if not base:
        raise UserError(f"{classes.file}: no base class is left to learn from masks: name at least one")
    ignored = [name for name, group in groups.items() if group == "ignored"]
    if len(base) == 1 and not background and ignored:
        raise UserError(
            f"{classes.file}: {base[0]!r} alone is left to learn from masks, as {ignored[0]!r} is ignored: if that is "
            f"where no {base[0]} is, give the argument background={ignored[0]}"
        )
    without_masks = [name for name in tags if name not in masked]
    for name in without_masks:
        if name in groups or meanings([name]):
            raise UserError(f"{_place(tagged, name)}: this name stands for no class: rename it there, or take it out")
    return dict(
        classes=(*masked, *without_masks),
        base=base,
        novel=(*learnt_from_tags, *without_masks),
        background=background,
        ignore_in_eval=tuple(without_masks),  # no pixel says where they are: there is nothing to measure
    )


def _say(data: Path, classes: FolderClasses, groups: dict[str, str]) -> None:
    """A line for everything that was understood and not simply read."""
    if classes.reading:
        console.print(classes.reading)
    special_names = [f"{name!r} is {'the background' if g == 'background' else g}" for name, g in groups.items()]
    if set(groups) - {"background"}:
        remedy = "(other meanings: the arguments background=, ignore=, base=)"
        console.print(f"{classes.file}: {', '.join(special_names)} {remedy}")
    if not has_tags(data):
        console.print(f"{data / 'tagged'} holds no tagged pictures: all classes are learnt from the masks")


def _names(argument: str) -> tuple[str, ...]:
    return tuple(filter(None, argument.split("+")))


def _refuse_near_misses(tags: list[str], masked: list[str], tagged: Path, classes_file: Path) -> None:
    """A tag or folder "Traffic_Light" beside the masks' "traffic light" is a slip, not a novel class."""
    plain = {_plain(name): name for name in masked}
    for tag in tags:
        meant = plain.setdefault(_plain(tag), tag)
        if meant != tag and tag not in masked:
            where = classes_file if meant in masked else tagged
            raise UserError(
                f"{_place(tagged, tag)}: {where} writes this class {meant!r}: rename it there (or, if it is "
                "another class, give it a name that differs in more than case, spaces, - and _)"
            )


def _place(tagged: Path, tag: str) -> str:
    """Where a tag is written: its class folder, or the list."""
    return str(tagged / tag) if tagged.is_dir() else f"{tagged}, tag {tag!r}"


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " _-")
