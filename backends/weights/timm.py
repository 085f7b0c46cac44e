"""What timm must be told to build a Mixer: the arguments of its class, and which of its names stand for one.

Source: huggingface/pytorch-image-models 1.0.31 (Apache-2.0), timm/models/mlp_mixer.py: MlpMixer.__init__ and the
functions mixer_*_224. These functions set the three sizes of FIXED themselves, and take them from nobody; the
other arguments they hand on. They pass on no activation and no norm by name.
"""

import math
from typing import Any

from backends.models.mixer_spec import MixerSpec
from backends.models.variants import VARIANTS
from backends.weights.formats import FORMATS

NAMED = ("S/32", "S/16", "B/32", "B/16", "L/32", "L/16")  # of the paper's variants, those that timm has a name for
FIXED = ("patch_size", "hidden_dim", "num_blocks")  # sizes that a name stands for
# Values of the two arguments that are no numbers, as they are written in Python.
ACTIVATIONS = {"gelu": "nn.GELU", "gelu_tanh": 'partial(nn.GELU, approximate="tanh")', "relu": "nn.ReLU"}


def architecture(model: MixerSpec) -> str | None:
    """The name under which `timm.create_model` builds this model; None: no name stands for its sizes or functions."""
    if any(getattr(model, name) != value for name, value in FORMATS["timm"].options.items()):
        return None
    sizes = [getattr(model, name) for name in FIXED]
    of_named = {name: VARIANTS[name] for name in NAMED}
    named = (name for name, own in of_named.items() if [own[size] for size in FIXED] == sizes)
    return next((f"mixer_{name.replace('/', '').lower()}_224" for name in named), None)


def handed_on(model: MixerSpec) -> dict[str, Any]:
    """The arguments that the function of an architecture hands on to the class."""
    widths = (model.tokens_mlp_dim, model.channels_mlp_dim)
    return {
        "num_classes": model.num_classes,
        "img_size": model.image_size,
        "in_chans": model.image_channels,
        "mlp_ratio": tuple(_ratio(width, model.hidden_dim) for width in widths),
    }


def arguments(model: MixerSpec) -> dict[str, Any]:
    """All arguments of the class that are numbers."""
    sizes = {"patch_size": model.patch_size, "num_blocks": model.num_blocks, "embed_dim": model.hidden_dim}
    return {**handed_on(model), **sizes}


def functions(model: MixerSpec) -> dict[str, str]:
    """The arguments of the class that are functions, as they are written in Python; the others have their defaults."""
    options, given = FORMATS["timm"].options, {}
    if model.activation != options["activation"]:
        given["act_layer"] = ACTIVATIONS[model.activation]
    if model.norm_epsilon != options["norm_epsilon"]:
        given["norm_layer"] = f"partial(nn.LayerNorm, eps={model.norm_epsilon!r})"
    return given


def _ratio(width: int, dim: int) -> float:
    """The number that timm multiplies with `dim` and cuts to the whole number `width`."""
    ratio = width / dim
    return ratio if int(ratio * dim) == width else math.nextafter(ratio, math.inf)
