"""Hundreds of classes from captions: masks for ten of PASCAL VOC, tags for 215 others.

Real photographs on a CPU. Three folders are looked for in data_root: `flickr8k_tags` (Flickr8k with tags made of its
captions: docs/data.md), `voc12_animals` and `coco_mini` (images/, masks/, classes.json, splits.json).

    LARVSEG_DATA=<folder of the three> python train.py --config=configs/captions.py
    ... --config=configs/captions.py:baseline           without the CA-Classifier

Classes. NAMED are the 250 things and grounds that most captions name, as `python -m data_pipelines.caption_tags
--classes=250` lists them with WordNet 3.0; all persons are "person" there. NAMES_OF joins names of one region to one
class, and has what PASCAL VOC and COCO call it. AMBIGUOUS is left out: of 397 photos with a "bike" 265 are also said to
show a bicycle, and 97 of the others a motorcycle. Base are the classes of configs/voc_animals.py, by the same masks, in
whose photos there is no dog, cow or sheep; all others are novel. Captions never say UNNAMED, three base classes: the
stream of tags does not know them, or it would take every photo for one without them.

Background. To the masks it is what is none of PASCAL VOC's classes: grass, snow and bicycles lie in it, shirts in a
person. It is kept, because nothing else teaches where no object is, and because it says nothing against the classes
of captions: the stream of masks has columns for background and base classes only, so its softmax never lowers "grass".
Every tagged photo is taken to show background, because captions leave out much of what is there, which would be pushed
towards what they do name. So background is a rival of the grounds; to look at grounds, let them compete without it
(--classes of larvseg_jax.predict).

Evaluated on `coco_mini`, on the classes that COCO has, too, and that at least 20 of its photos show (SHARED); the
background is there what is none of COCO's 80 things. One of its two splits chooses the best checkpoint (val), the other
one is only measured (val_rest). Measured: docs/results.md.
"""

import ml_collections

from configs import common
from configs.voc_animals import BASE

_NAMED = """
person dog shirt water grass ball street snow jacket bike hat beach rock tree building mountain wall dirt ground
hill toy ocean shorts bicycle road uniform sidewalk sand helmet lake coat pool stick skateboard suit pants jean car
fence track river ramp collar rope shore boat cap bench sunglasses glasses cliff clothes pole sky brick costume
house motorcycle backpack clothing flower climber concrete room ski sweater bag floor stone bird chair frisbee
steps horse sun railing pond stream surfboard skate ice vehicle leash puppy slope leaf ledge fountain rail scarf
sweatshirt skirt store swimsuit bar snowboard cement wheel window bed trunks flag stairs wood harness greyhound
backyard guitar mud tank bridge door puddle dock bush cellphone canoe garden motorbike restaurant block spray tent
box pavement plant shop cloud smoke truck cart glove kayak racetrack gym gravel muzzle sled tire couch glass paper
tube bottle cup mask staircase terrier boot creek phone pipe platform blanket deck falls retriever sprinkler
covering fish graffito instrument paw statue wire goggles leather microphone trampoline bubble bucket cloth hoop
mound raft art bull cigarette frame log painting purse subway bandanna handrail headband hillside rain sea
waterfall courtyard stadium umbrella bank basket beer bus carpet denim fan fur pier balloon bars headscarf hole
walkway attire barrier cone lab mountainside plate poodle rollerblade banner cat collie gate necklace parachute
shoreline cow doorway jet racquet woodland bowl dune gun jeep robe scooter sheep softball boulder disc headphone
hose kitchen machine makeup station trunk valley bark coffee counter cricket curb
"""
NAMED = tuple(_NAMED.split())
NAMES_OF = {
    "person": ("climber",),
    "dog": ("puppy", "greyhound", "terrier", "retriever", "poodle", "collie", "lab"),
    "cow": ("bull",),
    "sofa": ("couch",),
    "pottedplant": ("potted plant",),
    "diningtable": ("dining table",),
    "tvmonitor": ("tv",),
    "motorcycle": ("motorbike",),
    "ball": ("softball", "sports ball"),
    "ski": ("skis",),
    "racquet": ("tennis racket",),
    "phone": ("cellphone", "cell phone"),
    "purse": ("handbag",),
    "clothing": ("clothes", "attire"),
    "rock": ("stone", "boulder"),
    "mountain": ("mountainside",),
    "hill": ("hillside",),
    "ocean": ("sea",),
    "shore": ("shoreline",),
    "stream": ("creek",),
    "waterfall": ("falls",),
    "stairs": ("steps", "staircase"),
    "railing": ("rail", "handrail"),
    "store": ("shop",),
}
AMBIGUOUS = ("bike",)
UNNAMED = ("pottedplant", "tvmonitor", "diningtable")
SHARED = (
    *("person", "diningtable", "bottle", "cup", "bowl", "chair", "car", "purse", "pottedplant", "tvmonitor", "truck"),
    *("dog", "backpack", "bicycle", "phone", "cat", "bench", "bus"),
)


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """Arguments: larvseg (default) or baseline (image-level loss, no attention); learn=K for DINOv2's ViT-S/14."""
    given = common.parse_arguments(arguments, first="method", method="larvseg", learn=-1, side=224)
    method = given.method
    config = common.small_photos(method)
    config.name = f"captions_{method}"
    aliases = tuple((name, of) for of, names in NAMES_OF.items() for name in names)
    not_novel = {*BASE, *AMBIGUOUS, *dict(aliases)}
    novel = tuple(name for name in NAMED if name not in not_novel)
    config.vocabulary.update(
        classes=("background", *BASE, *novel), base=BASE, novel=novel, background="background", aliases=aliases
    )
    config.streams.masks.source = common.source(folder="voc12_animals", split="suggested.train_masks")
    config.streams.masks.classes = ("background", *BASE)
    config.streams.tags.source = common.source(folder="flickr8k_tags", split="train")
    config.streams.tags.classes = ("background", *(name for name in BASE if name not in UNNAMED), *novel)
    config.streams.tags.ratio_range = (1.0, 1.25)  # a smaller crop may not show what the photo is tagged with
    config.evals.val.source = common.source(folder="coco_mini", split="val")
    config.evals.val.classes = ("background", *SHARED)
    if given.learn >= 0:
        common.use_dinov2_on_photos(config, given.learn, given.side)
        config.name += f"_dinov2_learn{given.learn}_{given.side}"
    rest = common.evaluation(**config.evals.val.to_dict())
    rest.update(source=common.source(folder="coco_mini", split="train"), every=config.total_steps)
    config.evals.val_rest = rest
    return config
