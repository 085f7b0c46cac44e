"""Public formats of ViTs: the authors' in Flax, and timm's, which has query, key and value in one array."""

import math
from functools import partial

from backends.arrays import Array
from backends.weights.form import Format, Found, Reading, Rule
from backends.weights.isotropic import of_any_image, of_tokens
from backends.weights.layouts import (
    CHANNELS,
    CONV2D,
    DENSE,
    FROM_HEADS,
    FUSED,
    FUSED_BIAS,
    HEADS,
    HWIO,
    LINEAR,
    POSITIONS,
    TO_HEADS,
    VECTOR,
)
from backends.weights.mixers import FLAX, layer
from backends.weights.told import heads

BLOCK, OWN = "MixerBlock_{block}", "Transformer/encoderblock_{block}"
VIT = {"token_mixing": "attention", "init": "vit"}
READS = ("position_embedding", "pool", "cls_position")
PRODUCTS = ("query", "key", "value")
LAYER_SCALE = 1e-5  # what public factors began with; weights that are read have them already


def _flax(name: str, source: str, numbers: tuple[int, int, int, int], is_big: bool) -> Format:
    """A format of the authors' code.

    Args:   numbers: of the norm, attention, norm and MLP of a block.
            is_big: big_vision, where the class token comes behind the table's positions and has none.
    """
    first, attention, second, mlp = numbers
    positions = "pos_embedding" if is_big else "Transformer/posembed_input/pos_embedding"
    own = f"{OWN}/MultiHeadDotProductAttention_{attention}"
    products = [
        rule
        for part in PRODUCTS
        for rule in (
            Rule((f"{BLOCK}/token_mixing/{part}/kernel",), (f"{own}/{part}/kernel",), TO_HEADS),
            Rule((f"{BLOCK}/token_mixing/{part}/bias",), (f"{own}/{part}/bias",), HEADS),
        )
    ]
    rules = [
        *layer("stem", "embedding", HWIO, FLAX),
        Rule(("cls_token",), ("cls",), CHANNELS, optional=True),
        Rule(("position_embedding",), (positions,), POSITIONS, optional=is_big),
        *layer(f"{BLOCK}/LayerNorm_0", f"{OWN}/LayerNorm_{first}", None, FLAX),
        *products,
        Rule((f"{BLOCK}/token_mixing/out/kernel",), (f"{own}/out/kernel",), FROM_HEADS),
        Rule((f"{BLOCK}/token_mixing/out/bias",), (f"{own}/out/bias",), VECTOR),
        *layer(f"{BLOCK}/LayerNorm_1", f"{OWN}/LayerNorm_{second}", None, FLAX),
        *layer(f"{BLOCK}/channel_mixing/Dense_0", f"{OWN}/MlpBlock_{mlp}/Dense_0", DENSE, FLAX),
        *layer(f"{BLOCK}/channel_mixing/Dense_1", f"{OWN}/MlpBlock_{mlp}/Dense_1", DENSE, FLAX),
        *layer("pre_head_layer_norm", "Transformer/encoder_norm", None, FLAX),
        Rule(("representation/kernel",), ("pre_logits/kernel",), DENSE, optional=True),
        Rule(("representation/bias",), ("pre_logits/bias",), VECTOR, optional=True),
        *layer("head", "head", DENSE, FLAX),
    ]
    options = {**VIT, "activation": "gelu_tanh", "norm_epsilon": 1e-6}
    reads = (*READS, "representation", "num_heads")
    spec, asks = partial(_read_flax, is_big=is_big), ("image_size",) * is_big
    return Format(name, source, tuple(rules), spec, options, code="official", reads=reads, asks=asks)


def _timm() -> Format:
    own = "blocks.{block}"
    fused = tuple(f"{BLOCK}/token_mixing/{part}" for part in PRODUCTS)
    scales = {"token_mixing": "ls1", "channel_mixing": "ls2"}
    rules = [
        *layer("stem", "patch_embed.proj", CONV2D),
        Rule(("cls_token",), ("cls_token",), CHANNELS, optional=True),
        Rule(("position_embedding",), ("pos_embed",), POSITIONS),
        *layer(f"{BLOCK}/LayerNorm_0", f"{own}.norm1"),
        Rule(tuple(f"{one}/kernel" for one in fused), (f"{own}.attn.qkv.weight",), FUSED),
        Rule(tuple(f"{one}/bias" for one in fused), (f"{own}.attn.qkv.bias",), FUSED_BIAS),
        *layer(f"{BLOCK}/token_mixing/out", f"{own}.attn.proj", LINEAR),
        *layer(f"{BLOCK}/LayerNorm_1", f"{own}.norm2"),
        *layer(f"{BLOCK}/channel_mixing/Dense_0", f"{own}.mlp.fc1", LINEAR),
        *layer(f"{BLOCK}/channel_mixing/Dense_1", f"{own}.mlp.fc2", LINEAR),
        *(
            Rule((f"{BLOCK}/{part}/layer_scale/scale",), (f"{own}.{name}.gamma",), VECTOR, optional=True)
            for part, name in scales.items()
        ),
        *layer("pre_head_layer_norm", "norm"),
        *layer("head", "head", LINEAR),
    ]
    options = {**VIT, "activation": "gelu", "norm_epsilon": 1e-6}
    source, reads = "huggingface/pytorch-image-models", (*READS, "layer_scale", "num_heads")
    return Format("timm-vit", source, tuple(rules), _read_timm, options, code="timm", reads=reads, asks=("num_heads",))


def _read_flax(form: Format, reading: Reading, is_big: bool) -> Found:
    query = next(x for name, x in reading.arrays.items() if name.endswith("/query/kernel"))
    known = {"num_heads": query.shape[1], "representation": "representation/kernel" in reading.params}
    return _with_positions(form, reading, not is_big, known)


def _read_timm(form: Format, reading: Reading) -> Found:
    number, assumed = heads(reading)
    is_scaled = "MixerBlock_0/token_mixing/layer_scale/scale" in reading.params
    rows = len(reading.params["position_embedding"])
    known: dict[str, object] = {"num_heads": number, "layer_scale": LAYER_SCALE * is_scaled}
    found = _with_positions(form, reading, math.isqrt(rows) ** 2 != rows, known)
    return Found(found.model, {**found.assumed, **assumed})


def _with_positions(form: Format, reading: Reading, has_own: bool, known: dict[str, object]) -> Found:
    """The spec with the class token and the position embedding of its arrays; where there is no table it is constant.

    Args:   has_own: a class token has a position of its own, the first.
    Source: big_vision, models/vit.py, get_posemb: sincos2d has no parameter, and it has no third kind.
    """
    params, is_cls = reading.params, "cls_token" in reading.params
    known = {**known, "pool": "cls" if is_cls else "mean"}
    table: Array | None = params.get("position_embedding")
    if table is None:
        return of_any_image(form, reading, **known, position_embedding="sincos2d", cls_position=not is_cls)
    own = is_cls and has_own
    known |= {"position_embedding": "learned", "cls_position": own or not is_cls}
    return of_tokens(form, reading, len(table) - own, "position embedding", **known)


FORMATS = (
    _flax("big_vision-vit", "google-research/big_vision", (0, 0, 1, 0), is_big=True),
    _flax("vision_transformer-vit", "google-research/vision_transformer", (0, 1, 2, 3), is_big=False),
    _flax("vision_transformer-linen", "google-research/vision_transformer", (0, 0, 1, 0), is_big=False),
    _timm(),
)
