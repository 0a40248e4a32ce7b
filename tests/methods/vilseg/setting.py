"""A tiny ViL-Seg, and batches of noise for it."""

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.caption_views import CaptionView
from larvseg_jax.devices.mesh import make_mesh
from larvseg_jax.methods.method import StreamTask, Task
from larvseg_jax.methods.vilseg import Config
from larvseg_jax.models.vit_config import ViTConfig
from larvseg_jax.options import read
from larvseg_jax.text.tokenizer import TokenizerConfig
from larvseg_jax.vocabulary import Vocabulary

WORDS = ("a", "photo", "of", "red", "green", "blue")
TEXT = TokenizerConfig("words", WORDS, 8)
CLASSES = ("red", "green", "blue")
LABELS = Vocabulary(CLASSES, (), CLASSES).label_set()
VIT = ViTConfig(width=16, depth=2, num_heads=2, mlp_dim=32, patch_size=4, image_size=16)
VIEW = CaptionView(crop_size=16, text=TEXT, local_views=3, local_size=8, recoloured=True)
BATCH = 8

TINY = dict(
    width=12,
    tokenizer=dict(kind="words", words=WORDS, context=8),
    text=dict(width=8, depth=1, num_heads=2, mlp_dim=16),
    vision=dict(dim=10),
    cluster=dict(num=4),
)


def config_of(**sections):
    """The tiny one with sections changed: config_of(vision=dict(weight=0.0))."""
    given = {name: {**TINY[name], **of} if name in TINY else of for name, of in sections.items()}
    return read(Config, TINY | given, "method")


def method_of(devices=1, view=VIEW, **sections):
    config = config_of(**sections)
    streams = {"captions": StreamTask(LABELS, view, config.loss_options(CaptionView)(), BATCH)}
    mesh = make_mesh(devices, 1, jax.devices()[:devices])
    return config.make(Task(len(CLASSES), VIT, streams, mesh))


def batch_of(seed=0, size=BATCH):
    rng = np.random.default_rng(seed)

    def pictures(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(np.float32))

    tokens = [TEXT.make()(f"a photo of {CLASSES[i % 3]} {CLASSES[i % 2]}") for i in range(size)]
    return dict(
        valid=jnp.ones(size, bool),
        image=pictures(size, 16, 16, 3),
        recoloured=pictures(size, 16, 16, 3),
        flipped=jnp.arange(size) % 2 == 0,
        locals=pictures(size, 3, 8, 8, 3),
        tokens=jnp.asarray(np.stack(tokens)),
    )
