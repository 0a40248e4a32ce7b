"""Writes tiny CLIPs with the names and layouts of OpenAI, open_clip and Hugging Face; their weights are random."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.weights.pth_files import STORAGES, Raw, opcodes, write_pth

IMAGE, TEXT, SPACE, PATCH, SIDE, IDS, CONTEXT, DEPTH = 16, 8, 12, 8, 32, 49408, 20, 2


def openai_arrays(seed: int = 0, ids: int = IDS) -> dict[str, np.ndarray]:
    """Name -> array, float32."""
    rng = np.random.default_rng(seed)

    def tower(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
        shapes = {}
        for i in range(DEPTH):
            block = f"{prefix}transformer.resblocks.{i}."
            shapes |= {f"{block}{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
            shapes |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
            shapes |= {f"{block}attn.out_proj.weight": (width, width), f"{block}attn.out_proj.bias": (width,)}
            shapes |= {f"{block}mlp.c_fc.weight": (4 * width, width), f"{block}mlp.c_fc.bias": (4 * width,)}
            shapes |= {f"{block}mlp.c_proj.weight": (width, 4 * width), f"{block}mlp.c_proj.bias": (width,)}
        return shapes

    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (IMAGE,),
        "visual.positional_embedding": (1 + (SIDE // PATCH) ** 2, IMAGE),
        "visual.conv1.weight": (IMAGE, 3, PATCH, PATCH),
        **{f"visual.{norm}.{kind}": (IMAGE,) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
        "visual.proj": (IMAGE, SPACE),
        "token_embedding.weight": (ids, TEXT),
        "positional_embedding": (CONTEXT, TEXT),
        "ln_final.weight": (TEXT,),
        "ln_final.bias": (TEXT,),
        "text_projection": (TEXT, SPACE),
        "logit_scale": (),
        **tower("visual.", IMAGE),
        **tower("", TEXT),
    }
    return {name: np.asarray(0.3 * rng.normal(size=shape), np.float32) for name, shape in shapes.items()}


def hugging_face_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same numbers as transformers names and lays them out."""
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    parts |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    outside = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    norms = {"visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm"}
    norms |= {"ln_final": "text_model.final_layer_norm"}
    found = {"vision_model.embeddings.position_ids": np.arange(3)[None]}
    for name, value in arrays.items():
        part, _, kind = name.rpartition(".")
        if name in outside:
            found[outside[name]] = value
        elif name in ("visual.proj", "text_projection"):
            new = "visual_projection.weight" if name == "visual.proj" else "text_projection.weight"
            found[new] = np.ascontiguousarray(value.T)
        elif part in norms:
            found[f"{norms[part]}.{kind}"] = value
        else:
            tower = "vision_model" if name.startswith("visual.") else "text_model"
            number, _, inner = name.split("resblocks.")[1].partition(".")
            block = f"{tower}.encoder.layers.{number}."
            if "in_proj" in inner:
                kind = inner.rpartition("_")[2]
                for letter, third in zip("qkv", np.split(value, 3), strict=True):
                    found[f"{block}self_attn.{letter}_proj.{kind}"] = third
            else:
                inner, _, kind = inner.rpartition(".")
                found[f"{block}{parts[inner]}.{kind}"] = value
    return found


def write_clip(path: Path, seed: int = 0, ids: int = IDS) -> Path:
    """open_clip's kind of file: the exact GELU, unless its name or a config says otherwise."""
    save_file(openai_arrays(seed, ids), path)
    return path


def write_hugging_face(folder: Path, hidden_act: str | None = "quick_gelu", seed: int = 0) -> Path:
    """A folder of transformers: model.safetensors and, with a `hidden_act`, config.json."""
    path = folder / "model.safetensors"
    save_file(hugging_face_arrays(openai_arrays(seed)), path)
    if hidden_act:
        vision, text = (dict(hidden_act=hidden_act, num_attention_heads=heads) for heads in (2, 1))
        config = dict(model_type="clip", vision_config=vision, text_config=text)
        (folder / "config.json").write_text(json.dumps(config))
    return path


def module(**attributes) -> Raw:
    """A module of a TorchScript archive, as its pickle makes it."""
    parts = b"".join(opcodes(name) + opcodes(value) for name, value in attributes.items())
    return Raw(b"c__torch__.m\nM\n)\x81}(" + parts + b"ub")


def tensor(key: str, value: np.ndarray) -> Raw:
    """A whole storage as a tensor of the shape of `value`."""
    kind = Raw(f"ctorch\n{STORAGES[value.dtype.name]}\n".encode())
    storage = Raw(opcodes(("storage", kind, key, "cpu", value.size)) + b"Q")
    strides = tuple(step // value.itemsize for step in value.strides)
    arguments = opcodes((storage, 0, value.shape, strides, False, {}))
    return Raw(b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R")


def write_archive(path: Path, seed: int = 0, ids: int = IDS) -> Path:
    """OpenAI's kind of file: a TorchScript archive, matrices in half precision, three numbers about the model."""
    found = openai_arrays(seed, ids)
    arrays = {name: x.astype(np.float16 if x.ndim > 1 else np.float32) for name, x in found.items()}
    sizes = dict(input_resolution=SIDE, context_length=CONTEXT, vocab_size=ids)
    arrays |= {name: np.array(value) for name, value in sizes.items()}
    tree: dict = {}
    for key, (name, value) in enumerate(arrays.items()):
        *above, leaf = name.split(".")
        at = tree
        for part in above:
            at = at.setdefault(part, {})
        at[leaf] = tensor(str(key), value)

    def built(of):
        return module(**{name: built(x) if isinstance(x, dict) else x for name, x in of.items()})

    storages = {f"archive/data/{key}": value.tobytes() for key, value in enumerate(arrays.values())}
    return write_pth(path, built(tree), storages)
