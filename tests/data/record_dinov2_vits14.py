"""Records a few numbers of what transformers computes with a real DINOv2 ViT-S/14 (tests/data/README.md).

    python tests/data/record_dinov2_vits14.py dinov2_vits14.npz

Run in a throw-away environment with torch 2.13.0 (CPU) and transformers 5.24.0. The file has Hugging Face's older
names. It writes dinov2_vits14.json beside this script: for the pictures of `picture` the first features of some tokens.
"""

import json
import sys
from pathlib import Path

import numpy as np

SIZES = ((518, 518), (168, 238))  # the stored one, and another
TOKENS, FEATURES = (0, 1, 7, 100, -1), 8


def picture(height: int, width: int) -> np.ndarray:
    """(height, width, 3), about as large as normalised photos: waves, different in every channel and place."""
    y, x = np.mgrid[:height, :width][..., None] / 40
    channel = np.arange(1, 4)
    return (np.sin(y * channel + x**1.5) + np.cos(x * 3 / channel - y)).astype(np.float32)


def main(path: Path) -> None:
    import torch
    import transformers

    names = {
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
    }
    with np.load(path) as file:
        state = {name: torch.from_numpy(file[name]) for name in file.files}
    for old, new in names.items():
        state = {name.replace(old, new): value for name, value in state.items()}
    config = transformers.Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14
    )
    model = transformers.Dinov2Model(config).eval()
    problems = model.load_state_dict(state, strict=False)
    assert set(problems.missing_keys) <= {"embeddings.mask_token"}, problems
    assert not problems.unexpected_keys, problems
    found = {}
    for size in SIZES:
        images = torch.from_numpy(picture(*size)).permute(2, 0, 1)[None]
        with torch.no_grad():
            tokens = model(images).last_hidden_state[0]
        found["x".join(map(str, size))] = tokens[list(TOKENS), :FEATURES].numpy().round(6).tolist()
    versions = dict(torch=torch.__version__, transformers=transformers.__version__)
    text = json.dumps(dict(versions=versions, tokens=TOKENS, features=found))
    (Path(__file__).parent / "dinov2_vits14.json").write_text(text + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
