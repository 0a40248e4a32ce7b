"""A Segmenter with `from_pretrained`, `save_pretrained` and `push_to_hub`; needs the extra `hub`.

from larvseg_jax.hub.segmenter import HubSegmenter
model = HubSegmenter.from_pretrained("me/my-model")     # or a folder
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelHubMixin, snapshot_download

from larvseg_jax.errors import UserError
from larvseg_jax.hub.layout import WEIGHTS, write_layout
from larvseg_jax.predict.segmenter import Segmenter


class HubSegmenter(Segmenter, ModelHubMixin):
    """`predict.segmenter.Segmenter`, from and to Hugging Face's hub; the three methods are `ModelHubMixin`'s."""

    def _save_pretrained(self, save_directory: Path) -> None:
        """Called by `save_pretrained`, which has made the folder."""
        write_layout(self.trained, Path(save_directory))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **options: Any,
    ) -> HubSegmenter:
        """Called by `from_pretrained`; `options` are those of `Segmenter.load`."""
        folder = Path(model_id)
        if not folder.is_dir():
            fetched = snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[WEIGHTS],
            )
            folder = Path(fetched)
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{model_id} holds no {WEIGHTS}: it is no model of larvseg_jax")
        return cast(HubSegmenter, cls.load(folder / WEIGHTS, **options))
