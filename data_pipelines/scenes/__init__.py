"""Generated scenes: a small data set with masks, tags and object pictures, drawn by integer arithmetic.

Every novel class is found on four grounds (classes.py), as objects of photographs are: no ground goes with a tag, and
what pictures of one tag have in common is the object. A classifier that averages its scores over the picture still
learns it badly, because most of the picture is ground; one that attends to the object learns it better.

The hard setting (`--grounds=one`) contains a trap: fish are only ever seen in water, sheep on grass, windows in brick
walls. All pictures tagged "fish" show water, and water is most of the picture, so nothing but one in AWAY of the object
pictures tells the fish from the water.

Four parts, all drawn from the same kinds of scenes:
  train_masks    masks of the base classes. Novel objects appear as often as elsewhere; their pixels are
                 IGNORED, so water with a fish in it is not taught to be plain water, nor to be fish.
  train_tags     the set of classes in the picture, base and novel.
  train_objects  one large object and its name, as in ImageNet: novel classes and a few base ones,
                 in one of AWAY pictures away from their ground.
  val            masks of all classes.

Picture i of a part is a pure function of (part, i), and no float is involved: pixels are the same on every
machine. Scenes are drawn at twice their size and averaged 2x2.
"""

from data_pipelines.scenes.classes import BASE, CLASSES, NOVEL

__all__ = ["BASE", "CLASSES", "NOVEL"]
