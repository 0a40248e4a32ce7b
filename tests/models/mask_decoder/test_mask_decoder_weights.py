"""Names of Mask2Former's arrays. What the decoders compute with them: tests/test_parity.py."""

import numpy as np
import pytest

from larvseg_jax.models.mask_decoder.weights import decoder_parameters


def test_an_unknown_array_is_an_error():
    with pytest.raises(ValueError, match=r"class_predictor\.weight is none of Mask2Former's arrays"):
        decoder_parameters({"class_predictor.weight": np.zeros((3, 4), np.float32)}, 1)
