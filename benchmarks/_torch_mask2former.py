"""Mask2Former's decoders in PyTorch, those of transformers; run by an interpreter with torch and transformers.

    python -m benchmarks._torch_mask2former FILE.npz      (benchmarks/mask_decoder.py writes the file and asks)

Transformers has the pixel decoder with attention only; the one without is written here. No JAX.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder, Mask2FormerTransformerModule

from benchmarks._torch_original import Arrays, serve


class Fpn(nn.Module):
    """A feature pyramid network on maps of the same width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(self._layer(width, 1) for _ in range(3))
        self.output = nn.ModuleList(self._layer(width, 3) for _ in range(4))
        self.mask_features = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        decoded = [F.relu(self.output[0](maps[-1]))]
        for i, x in enumerate(reversed(maps[:-1])):
            lateral = self.lateral[i](x)
            x = lateral + F.interpolate(decoded[-1], lateral.shape[-2:], mode="nearest")
            decoded.append(F.relu(self.output[i + 1](x)))
        return decoded[:3], self.mask_features(decoded[-1])

    @staticmethod
    def _layer(width: int, side: int) -> nn.Sequential:
        convolution = nn.Conv2d(width, width, side, padding=side // 2, bias=False)
        return nn.Sequential(convolution, nn.GroupNorm(32, width))


class Mask2Former:
    """Both pixel decoders, the mask decoder and the maps on a device, and the work that is timed."""

    def __init__(self, arrays: Arrays) -> None:
        s = json.loads(str(arrays["settings"]))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX's default; nothing on a CPU
        torch.manual_seed(0)
        width = s["width"]
        config = Mask2FormerConfig(
            feature_size=width, mask_feature_size=width, hidden_dim=width, num_attention_heads=s["heads"],
            encoder_feedforward_dim=s["pixel_mlp"], encoder_layers=s["pixel_layers"], dim_feedforward=s["mlp"],
            decoder_layers=s["layers"] + 1, num_queries=s["queries"],
        )  # fmt: skip
        self.msdeform = Mask2FormerPixelDecoder(config, [width] * 4).to(self.device)
        nn.init.normal_(self.msdeform.level_embed)
        self.fpn = Fpn(width).to(self.device)
        self.decoder = Mask2FormerTransformerModule(width, config).to(self.device)
        maps = (torch.from_numpy(arrays[f"map_{i}"]).permute(0, 3, 1, 2) for i in range(4))
        self.maps = [x.contiguous().to(self.device).requires_grad_() for x in maps]

    def step(self, pixel_decoder: str) -> list[float]:
        """Loss, and gradients of all parameters and maps."""
        for x in (*self.maps, *self.msdeform.parameters(), *self.fpn.parameters(), *self.decoder.parameters()):
            x.grad = None
        if pixel_decoder == "fpn":
            scales, mask_features = self.fpn(self.maps)
        else:
            decoded = self.msdeform(self.maps, return_dict=True)
            scales, mask_features = decoded.multi_scale_features, decoded.mask_features
        out = self.decoder(scales, mask_features)
        states, masks = torch.stack(out.intermediate_hidden_states), torch.stack(out.masks_queries_logits)
        loss = states.square().mean() + masks.square().mean()
        loss.backward()
        return [float(loss.detach())]

    def weights(self, file: str) -> list[float]:
        """Those of the two decoders of transformers, saved to a file."""
        named = {"pixels": self.msdeform, "decoder": self.decoder}
        arrays = {
            f"{part}/{name}": value.cpu().numpy()
            for part, module in named.items()
            for name, value in module.state_dict().items()
        }
        np.savez(file, **arrays)
        return []


if __name__ == "__main__":
    with np.load(sys.argv[1]) as given:
        serve(Mask2Former(dict(given)))
