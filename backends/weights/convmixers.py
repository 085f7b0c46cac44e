"""timm's format of ConvMixer, whose batch norms are read as the affines that they are when they predict."""

from backends.models.convmixer_spec import ConvMixerSpec
from backends.models.variants import CONVMIXER
from backends.weights.form import Format, Found, Reading, Rule
from backends.weights.layouts import BATCH_NORM, CONV2D, LINEAR, POINTWISE
from backends.weights.mixers import layer
from backends.weights.told import image_side

BLOCK = "ConvMixerBlock_{block}"
ACTIVATIONS = {sizes[:4]: sizes[4] for sizes in CONVMIXER.values()}  # by C, blocks, patch size, kernel size
PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def _norm(canonical: str, own: str) -> Rule:
    return Rule((f"{canonical}/scale", f"{canonical}/bias"), tuple(f"{own}.{part}" for part in PARTS), BATCH_NORM)


def _read(form: Format, reading: Reading) -> Found:
    params = reading.params
    patch, _, channels, hidden = params["stem/kernel"].shape
    size, assumed = image_side(reading, patch)
    kernel, num_blocks = len(params[f"{BLOCK.format(block=0)}/token_mixing/depthwise/kernel"]), sum(reading.num_blocks)
    sizes = (hidden, num_blocks, patch, kernel)
    activation = reading.told.get("activation") or ACTIVATIONS.get(sizes, "gelu")
    if activation != "gelu" and "activation" not in reading.told:
        assumed = {**assumed, "activation": "as the published model of these sizes has it"}
    model = ConvMixerSpec(size, channels, len(params["head/bias"]), patch, hidden, num_blocks, kernel, activation)
    return Found(model, assumed)


FORMATS = (
    Format(
        "timm-convmixer",
        "huggingface/pytorch-image-models",
        (
            *layer("stem", "stem.0", CONV2D),
            _norm("stem_affine", "stem.2"),
            *layer(f"{BLOCK}/token_mixing/depthwise", "blocks.{block}.0.fn.0", CONV2D),
            _norm(f"{BLOCK}/token_mixing/affine", "blocks.{block}.0.fn.2"),
            *layer(f"{BLOCK}/channel_mixing/Dense_0", "blocks.{block}.1", POINTWISE),
            _norm(f"{BLOCK}/channel_mixing/affine", "blocks.{block}.3"),
            *layer("head", "head", LINEAR),
        ),
        _read,
        {},
        family="convmixer",
        code="timm",
        reads=("hidden_dim", "num_blocks", "kernel_size"),
        asks=("image_size", "activation"),
        note="its batch norms, with their stored statistics, are folded to affines: predictions are the same, and "
        "training is another, since none takes the statistics of a batch",
    ),
)
