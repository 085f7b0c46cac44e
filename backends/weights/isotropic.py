"""The spec of a model of the mixer family from its parameters: what all formats of such models have in common."""

import math
from dataclasses import replace
from typing import Any

from backends.models import family_of
from backends.models.mixer_spec import MixerSpec
from backends.weights.form import Format, Found, NotAModel, Reading
from backends.weights.told import image_side


def of_tokens(form: Format, reading: Reading, tokens: int, what: str, **known: Any) -> Found:
    """The spec of a model whose image is a square of so many tokens.

    Args:   what: where the number was found.   known: fields that this format has read.
    Raises: NotAModel: they make no square image.
    """
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise NotAModel(f"expected a square number of tokens (1, 4, 9, ...) in its {what}, got {tokens}")
    return Found(spec(form, reading, side * reading.params["stem/kernel"].shape[0], **known))


def of_any_image(form: Format, reading: Reading, **known: Any) -> Found:
    """The spec of a model whose arrays tell no size of the image: the one that is told, else the usual one."""
    size, why = image_side(reading, reading.params["stem/kernel"].shape[0])
    return Found(spec(form, reading, size, **known), why)


def spec(form: Format, reading: Reading, image_size: int, **known: Any) -> MixerSpec:
    """The spec with the sizes of the stem, the first block and the head; what idles in such a model has its default."""
    params = reading.params
    patch, _, channels, hidden = params["stem/kernel"].shape
    units = "channel_mixing" if "MixerBlock_0/channel_mixing/Dense_0/bias" in params else "token_mixing"
    sizes = {
        "image_size": image_size,
        "image_channels": channels,
        "num_classes": params["head/bias"].shape[0],
        "patch_size": patch,
        "hidden_dim": hidden,
        "num_blocks": sum(reading.num_blocks),
        "tokens_mlp_dim": max(1, hidden // 2),
        "channels_mlp_dim": params[f"MixerBlock_0/{units}/Dense_0/bias"].shape[0],
    }
    model = MixerSpec(**{**sizes, **form.options, **known})
    plain = family_of(model).plain(model)
    assert isinstance(plain, MixerSpec)
    return replace(plain, dropout=model.dropout)
