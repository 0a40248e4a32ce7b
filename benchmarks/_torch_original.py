"""The training step as plain PyTorch, after the description of the authors' code; run by an interpreter with torch.

    python -m benchmarks._torch_original FILE.npz      (benchmarks/vs_pytorch.py writes the file and asks)

Logits upsampled to the loss grid for all classes, loops over images and labels, M x K bank vectors per class, the
bank read and written pair after pair. Reads one JSON request a line, answers with one JSON line. No JAX here.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._memory import forget_peak, peak_resident

EPSILON = 1e-5
Arrays = dict[str, np.ndarray]


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.drop_path = drop_path

    def forward(self, x: Tensor, fused: bool) -> Tensor:
        x = x + self._dropped(self._mixed(self.norm1(x), fused))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _mixed(self, x: Tensor, fused: bool) -> Tensor:
        own = self.attention
        if not fused:  # what the original calls: the weights of all heads are built, and averaged for the caller
            return own(x, x, x, need_weights=True)[0]
        b, n, d = x.shape
        qkv = F.linear(x, own.in_proj_weight, own.in_proj_bias).view(b, n, 3, own.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return own.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop_path
        return x * keep / (1.0 - self.drop_path)


class Backbone(nn.Module):
    """ViT: pictures to final-normed patch tokens (B, h w, D); pictures have the position embedding's size."""

    def __init__(self, s: dict[str, Any]) -> None:
        super().__init__()
        patches = (s["image_size"] // s["patch_size"]) ** 2
        self.stem = nn.Conv2d(3, s["width"], s["patch_size"], s["patch_size"])
        self.cls = nn.Parameter(torch.zeros(1, 1, s["width"]))
        self.position = nn.Parameter(torch.zeros(1, 1 + patches, s["width"]))
        rates = np.linspace(0.0, s["drop_path"], s["depth"])
        self.blocks = nn.ModuleList(Block(s["width"], s["num_heads"], s["mlp_dim"], float(r)) for r in rates)
        self.norm = nn.LayerNorm(s["width"], eps=1e-6)

    def forward(self, images: Tensor, fused: bool) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x, fused)
        return self.norm(x)[:, 1:]


class Head(nn.Module):
    """Cosine classifier, its losses, and the CA-Classifier with its bank of M x K vectors per class."""

    queue: Tensor

    def __init__(self, s: dict[str, Any], queue: Tensor) -> None:
        super().__init__()
        d = s["width"]
        self.proj_patch, self.proj_classes = nn.Parameter(torch.zeros(d, d)), nn.Parameter(torch.zeros(d, d))
        self.cls_emb = nn.Parameter(torch.zeros(len(queue), d))
        self.gamma, self.beta = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("queue", queue)
        self.ptr, self.full = [0] * len(queue), [1] * len(queue)  # every ring was filled once
        self.s = s

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Upsampled logits (B, N, H, W), raw scores (B, P, N) and unit features (B, P, D)."""
        b, p, _ = features.shape
        side, size = round(p**0.5), self.s["loss_size"]
        q = features @ self.proj_patch
        q = q / q.norm(dim=-1, keepdim=True)
        c = self.cls_emb @ self.proj_classes
        c = c / c.norm(dim=-1, keepdim=True)
        s = q @ c.T
        centred = s - s.mean(-1, keepdim=True)
        logits = centred / torch.sqrt(s.var(-1, keepdim=True, unbiased=False) + EPSILON) * self.gamma + self.beta
        maps = logits.transpose(1, 2).reshape(b, -1, side, side)
        upsampled = F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)
        return upsampled, s.detach(), q.detach()

    def mask_loss(self, features: Tensor, label: Tensor) -> Tensor:
        """Pixel cross entropy over all pixels, ignored ones included in the mean."""
        logits, _, _ = self(features)
        return F.cross_entropy(logits, label, ignore_index=-1, reduction="sum") / label.numel()

    def tag_losses(self, features: Tensor, tags: list[list[int]]) -> tuple[Tensor, Tensor]:
        """L_cls and L_aux, pair by pair."""
        logits, score, embed = self(features)
        l_cls = l_aux = logits.new_zeros(())
        pairs = sum(map(len, tags))
        for i, labels in enumerate(tags):
            for label in sorted(labels):
                others = [other for other in labels if other != label]
                l_cls = l_cls + self._cross_entropy(logits[i].mean((1, 2)), label, others)
                attention = self._attention(score[i], embed[i], label, others)
                self._enqueue(score[i], embed[i], label)
                if attention is not None:
                    pooled = (logits[i] * attention).mean((1, 2))
                    l_aux = l_aux + self._cross_entropy(pooled, label, others)
        return l_cls / pairs, l_aux / pairs

    @staticmethod
    def _cross_entropy(pooled: Tensor, label: int, others: list[int]) -> Tensor:
        kept = [c for c in range(len(pooled)) if c not in others]
        target = torch.tensor([kept.index(label)], device=pooled.device)
        return F.cross_entropy(pooled[kept][None], target)

    @torch.no_grad()
    def _attention(self, score: Tensor, embed: Tensor, label: int, others: list[int]) -> Tensor | None:
        if self.full[label] < self.s["warmup"]:
            return None
        foreground = self._bank_score(embed, label)
        background = [self._bank_score(embed, c) for c in others or self._mined(score, embed, label, foreground)]
        a = foreground - (sum(background) / len(background) if background else 1 - foreground)
        a = (a - a.mean()) / torch.sqrt(a.var(unbiased=False) + EPSILON)
        side, size = round(len(a) ** 0.5), self.s["loss_size"]
        wide = F.interpolate(a.view(1, 1, side, side), size=(size, size), mode="bilinear", align_corners=False)
        return torch.sigmoid(wide)[0]

    def _mined(self, score: Tensor, embed: Tensor, label: int, foreground: Tensor) -> list[int]:
        peak = score.topk(self.s["background_topk"], dim=0).values.mean(0)
        found = []
        for c in torch.nonzero(peak > self.s["background_threshold"]).flatten().tolist():
            maps = [(x - x.mean()) / x.std() for x in (foreground, self._bank_score(embed, c))]
            if c != label and F.mse_loss(*maps) > self.s["background_mse_threshold"]:
                found.append(c)
        return found

    def _bank_score(self, embed: Tensor, c: int) -> Tensor:
        return (embed @ self.queue[c].flatten(0, 1).T).mean(-1)

    @torch.no_grad()
    def _enqueue(self, score: Tensor, embed: Tensor, label: int) -> None:
        best = score[:, label].topk(self.s["foreground_topk"]).indices
        self.queue[label, self.ptr[label]] = embed[best]
        self.full[label] += self.ptr[label] == self.queue.shape[1] - 1
        self.ptr[label] = (self.ptr[label] + 1) % self.queue.shape[1]


def load(backbone: Backbone, head: Head, a: Arrays) -> None:
    """Our parameters (names of the AugReg files) into the modules."""

    def put(target: Tensor, value: np.ndarray) -> None:
        assert target.shape == value.shape, (target.shape, value.shape)
        target.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def norm(module: nn.LayerNorm, name: str) -> None:
        put(module.weight, a[f"{name}/scale"])
        put(module.bias, a[f"{name}/bias"])

    d = head.s["width"]
    put(backbone.stem.weight, a["backbone/embedding/kernel"].transpose(3, 2, 0, 1))
    assert backbone.stem.bias is not None
    put(backbone.stem.bias, a["backbone/embedding/bias"])
    put(backbone.cls, a["backbone/cls"])
    put(backbone.position, a["backbone/Transformer/posembed_input/pos_embedding"])
    norm(backbone.norm, "backbone/Transformer/encoder_norm")
    for i, block in enumerate(backbone.blocks):
        assert isinstance(block, Block)
        at = f"backbone/Transformer/encoderblock_{i}"
        norm(block.norm1, f"{at}/LayerNorm_0")
        norm(block.norm2, f"{at}/LayerNorm_2")
        mix = f"{at}/MultiHeadDotProductAttention_1"
        kernels = [a[f"{mix}/{part}/kernel"].reshape(d, d).T for part in ("query", "key", "value")]
        put(block.attention.in_proj_weight, np.concatenate(kernels))
        biases = [a[f"{mix}/{part}/bias"].reshape(d) for part in ("query", "key", "value")]
        put(block.attention.in_proj_bias, np.concatenate(biases))
        put(block.attention.out_proj.weight, a[f"{mix}/out/kernel"].reshape(d, d).T)
        put(block.attention.out_proj.bias, a[f"{mix}/out/bias"])
        for layer, name in ((block.mlp[0], "Dense_0"), (block.mlp[2], "Dense_1")):
            assert isinstance(layer, nn.Linear)
            put(layer.weight, a[f"{at}/MlpBlock_3/{name}/kernel"].T)
            put(layer.bias, a[f"{at}/MlpBlock_3/{name}/bias"])
    put(head.proj_patch, a["head/proj_patch"])
    put(head.proj_classes, a["head/proj_classes"])
    put(head.cls_emb, a["head/class_embeddings"])


class Original:
    """The model with its inputs on a device, and the pieces of work that are timed."""

    def __init__(self, a: Arrays) -> None:
        s = self.s = json.loads(str(a["settings"]))
        self.device = torch.device("cuda" if s["device"] == "gpu" else "cpu")
        torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX's default; nothing on a CPU
        self.backbone = Backbone(s).train()
        self.head = Head(s, torch.from_numpy(a["queue"]))
        load(self.backbone, self.head, a)
        self.backbone, self.head = self.backbone.to(self.device), self.head.to(self.device)
        self.images = {k: torch.from_numpy(a[k]).permute(0, 3, 1, 2).contiguous().to(self.device) for k in s["streams"]}
        self.label = torch.from_numpy(a["label"]).long().to(self.device)
        self.tags = {name: [[int(t) for t in row if t >= 0] for row in a[name]] for name in s["tags"]}
        self.features = torch.from_numpy(a["features"]).flatten(1, 2).to(self.device).requires_grad_()
        weights = [*self.backbone.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(weights, lr=1e-3, momentum=0.9)
        self.compiled = torch.compile(self.backbone) if s["device"] == "gpu" else self.backbone

    def step(self, attention: str) -> list[float]:
        """One optimisation step."""
        self.optimizer.zero_grad(set_to_none=True)
        backbone = self.compiled if "compile" in attention else self.backbone
        fused = not attention.startswith("nn.MultiheadAttention")
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.s["dtype"] == "bfloat16"):
            masks, tags = (backbone(self.images[k], fused).float() for k in self.s["streams"])
        l_seg = self.head.mask_loss(masks, self.label)
        l_cls, l_aux = self.head.tag_losses(tags, self.tags[self.s["of_step"]])
        loss = 0.5 * l_seg + 0.5 * (0.1 * l_cls + 0.1 * l_aux)
        loss.backward()
        self.optimizer.step()
        return [float(x.detach()) for x in (l_seg, l_cls, l_aux)]

    def mask_head(self) -> list[float]:
        """Loss and gradients of the segmentation head from features."""
        self._forget_gradients()
        loss = self.head.mask_loss(self.features, self.label)
        loss.backward()
        return [float(loss.detach())]

    def tag_head(self, tags: str) -> list[float]:
        """Loss and gradients of the image-level head from features."""
        self._forget_gradients()
        l_cls, l_aux = self.head.tag_losses(self.features, self.tags[tags])
        (l_cls + l_aux).backward()
        return [float(x.detach()) for x in (l_cls, l_aux)]

    @torch.no_grad()
    def check(self, file: str) -> list[float]:
        """Features of the tagged pictures without drop path, saved to a file."""
        self.backbone.eval()
        np.save(file, self.backbone(self.images["tags"], True).float().cpu().numpy())
        self.backbone.train()
        return []

    def _forget_gradients(self) -> None:
        self.features.grad = None
        self.head.zero_grad(set_to_none=True)


def serve(original: Any) -> None:
    """Answers requests for its methods, with seconds and the peak of memory, until stdin ends."""
    on_gpu = original.device.type == "cuda"
    name = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} threads"
    print(json.dumps({"versions": f"torch {torch.__version__}, {name}"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        work = functools.partial(getattr(original, request["work"]), *request["arguments"])
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()
        begin, cpu = time.perf_counter(), time.process_time()
        losses = work()
        if on_gpu:
            torch.cuda.synchronize()
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident()
        print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "losses": losses}), flush=True)


if __name__ == "__main__":
    with np.load(sys.argv[1]) as given:
        serve(Original(dict(given)))
