"""Maps of mirrored pictures, mirrored back."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Num


def flip_back(maps: Num[Array, "b h w *d"], flipped: Bool[Array, " b"]) -> Num[Array, "b h w *d"]:
    """Maps with those of mirrored pictures mirrored along their width: g^-1 of the clustering loss (ViL-Seg, Eq. 7).

    Being a permutation it also mirrors maps of upright pictures, and is its own inverse.
    """
    chosen = flipped.reshape(-1, *[1] * (maps.ndim - 1))
    return jnp.where(chosen, maps[:, :, ::-1], maps)
