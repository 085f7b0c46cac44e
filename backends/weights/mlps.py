"""timm's formats of gMLP and ResMLP, whose blocks are a Mixer's with other token mixing."""

from backends.weights.form import Format, Found, Reading, Rule
from backends.weights.isotropic import of_tokens
from backends.weights.layouts import CHANNELS, CONV2D, LINEAR, VECTOR
from backends.weights.mixers import layer

SOURCE = "huggingface/pytorch-image-models"
BLOCK, OWN = "MixerBlock_{block}", "blocks.{block}"
TOKENS = "MixerBlock_{block}/token_mixing"


def _gmlp() -> Format:
    own = f"{OWN}.mlp_channels"
    rules = [
        *layer("stem", "stem.proj", CONV2D),
        *layer(f"{BLOCK}/LayerNorm_0", f"{OWN}.norm"),
        *layer(f"{TOKENS}/Dense_0", f"{own}.fc1", LINEAR),
        *layer(f"{TOKENS}/gate_norm", f"{own}.gate.norm"),
        *layer(f"{TOKENS}/gate", f"{own}.gate.proj", LINEAR),
        *layer(f"{TOKENS}/Dense_1", f"{own}.fc2", LINEAR),
        *layer("pre_head_layer_norm", "norm"),
        *layer("head", "head", LINEAR),
    ]
    options = {"token_mixing": "gating", "channel_mixing": "none", "activation": "gelu", "norm_epsilon": 1e-6}
    return Format("timm-gmlp", SOURCE, tuple(rules), _read_gmlp, options, code="timm")


def _resmlp() -> Format:
    affine = {"scale": ".alpha", "bias": ".beta"}
    rules = [
        *layer("stem", "stem.proj", CONV2D),
        *_wide(layer(f"{BLOCK}/Affine_0", f"{OWN}.norm1", None, affine)),
        *layer(f"{TOKENS}/Dense_0", f"{OWN}.linear_tokens", LINEAR),
        Rule((f"{TOKENS}/layer_scale/scale",), (f"{OWN}.ls1",), VECTOR),
        *_wide(layer(f"{BLOCK}/Affine_1", f"{OWN}.norm2", None, affine)),
        *layer(f"{BLOCK}/channel_mixing/Dense_0", f"{OWN}.mlp_channels.fc1", LINEAR),
        *layer(f"{BLOCK}/channel_mixing/Dense_1", f"{OWN}.mlp_channels.fc2", LINEAR),
        Rule((f"{BLOCK}/channel_mixing/layer_scale/scale",), (f"{OWN}.ls2",), VECTOR),
        *_wide(layer("pre_head_affine", "norm", None, affine)),
        *layer("head", "head", LINEAR),
    ]
    options = {"token_mixing": "linear", "norm": "affine", "layer_scale": 1e-4, "activation": "gelu"}
    return Format("timm-resmlp", SOURCE, tuple(rules), _read_resmlp, options, code="timm")


def _wide(rules: list[Rule]) -> list[Rule]:
    """The rules of arrays that have two axes of size 1 in front."""
    return [Rule(rule.canonical, rule.own, CHANNELS) for rule in rules]


def _read_gmlp(form: Format, reading: Reading) -> Found:
    tokens = len(reading.params["MixerBlock_0/token_mixing/gate/kernel"])
    return of_tokens(form, reading, tokens, "gate")


def _read_resmlp(form: Format, reading: Reading) -> Found:
    tokens = len(reading.params["MixerBlock_0/token_mixing/Dense_0/kernel"])
    return of_tokens(form, reading, tokens, "token mixing")


FORMATS = (_gmlp(), _resmlp())
