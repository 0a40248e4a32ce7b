"""Generated scenes: a small data set with masks, tags and object pictures, drawn by integer arithmetic.

It contains the trap that the method is about. Every novel class is found on one base class only (HABITAT):
fish are in water, sheep on grass, windows in brick walls. A classifier that learns novel classes from
image labels by averaging its scores over the picture has no reason to tell the fish from the water: all
pictures tagged "fish" show water, and water is most of the picture. It marks the water. Only what
differs between pictures of *different* grounds and objects, held side by side, isolates the fish.

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
