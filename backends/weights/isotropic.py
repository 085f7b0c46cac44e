"""The spec of a model of the mixer family from its parameters: what all formats of such models have in common."""

import math
from dataclasses import replace
from typing import Any

from backends.models import family_of
from backends.models.mixer_spec import MixerSpec
from backends.models.variants import VIT
from backends.weights.form import Format, Found, NotAModel, Reading

USUAL_SIDE = 224  # pixels, of public models; for files that tell no size
HEAD_DIM = 64  # channels of a head, of public ViTs of other widths than those of big_vision


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
    patch = reading.params["stem/kernel"].shape[0]
    size = reading.told.get("image_size") or max(1, round(USUAL_SIDE / patch)) * patch
    why = {} if "image_size" in reading.told else {"image_size": "no array tells it; --image-size N says another"}
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
    if image_size % patch:
        raise NotAModel(f"--image-size: expected a multiple of its patches of {patch} pixels, got {image_size}")
    plain = family_of(model).plain(model)
    assert isinstance(plain, MixerSpec)
    return replace(plain, dropout=model.dropout)


def heads(reading: Reading) -> tuple[int, dict[str, str]]:
    """The number of heads where query, key and value are one array, and why it is that where nobody says it.

    Raises: NotAModel: nothing tells it.
    """
    hidden = reading.params["stem/kernel"].shape[3]
    if told := reading.told.get("num_heads"):
        if hidden % told:
            raise NotAModel(f"--num-heads: expected a divisor of its {hidden} channels, got {told}")
        return told, {}
    published = {sizes[0]: (name, sizes[3]) for name, sizes in VIT.items()}
    if hidden in published:
        name, number = published[hidden]
        return number, {"num_heads": f"as ViT-{name}, of this width, has them; --num-heads N says another"}
    if hidden % HEAD_DIM:
        raise NotAModel(
            f"its arrays do not tell the number of heads, and {HEAD_DIM} channels a head, as in public models, do not "
            f"divide its {hidden} channels; say it with --num-heads N"
        )
    why = f"{HEAD_DIM} channels a head, as in public models; --num-heads N says another"
    return hidden // HEAD_DIM, {"num_heads": why}
