"""timm's formats of PoolFormer and of the later baselines, which have no token mixing that weights would tell."""

from backends.models import family_of
from backends.models.metaformer_spec import TOKEN_MIXERS, MetaFormerSpec
from backends.models.variants import VARIANTS
from backends.weights.form import Format, Found, NotAModel, Reading, Rule
from backends.weights.layouts import CONV2D, LINEAR, POINTWISE, VECTOR
from backends.weights.mixers import layer
from backends.weights.told import image_side

SOURCE = "huggingface/pytorch-image-models"
STAGE, OWN_STAGE = "Stage_{stage}", "stages.{stage}"
BLOCK, OWN = f"{STAGE}/MetaFormerBlock_{{block}}", f"{OWN_STAGE}.blocks.{{block}}"
BRANCHES = {"token_mixing": "1", "channel_mixing": "2"}
LAYER_SCALE = 1e-5  # first factors of a PoolFormer of other sizes than the published ones


def _format(name: str, is_baseline: bool) -> Format:
    """A format of timm's class MetaFormer. Args: is_baseline: norms and products of a block have no biases."""
    rules = [
        *layer("stem", "stem.conv", CONV2D),
        *_optional(layer(f"{STAGE}/downsampling", f"{OWN_STAGE}.downsample.conv", CONV2D)),
        *_norms(is_baseline),
        *(rule for i, part in enumerate(BRANCHES) for rule in _factors(part, i, is_baseline)),
        *_without_biases(layer(f"{BLOCK}/channel_mixing/Dense_0", f"{OWN}.mlp.fc1", POINTWISE), is_baseline),
        *_without_biases(layer(f"{BLOCK}/channel_mixing/Dense_1", f"{OWN}.mlp.fc2", POINTWISE), is_baseline),
        *layer("pre_head_layer_norm", "head.norm"),
        *layer("head", "head.fc", LINEAR),
    ]
    options = {"metaformer": "baseline" if is_baseline else "poolformer"}
    asks = ("image_size", "token_mixers") if is_baseline else ("image_size",)
    options |= {} if is_baseline else {"token_mixers": "pooling"}
    reads = ("depths", "dims", "layer_scale", "scaled_stages")
    return Format(name, SOURCE, tuple(rules), _read, options, family="metaformer", code="timm", reads=reads, asks=asks)


def _norms(is_baseline: bool) -> list[Rule]:
    """The norms beside the convolutions, which the baselines alone have, and StarReLU's scalars."""
    if not is_baseline:
        return []
    stem = layer("stem_norm", "stem.norm")
    own = layer(f"{STAGE}/downsampling_norm", f"{OWN_STAGE}.downsample.norm")
    scalars = {"scale": ".scale", "bias": ".bias"}
    star = layer(f"{BLOCK}/channel_mixing/activation", f"{OWN}.mlp.act", None, scalars)
    return [*_without_biases(stem, True), *_optional(_without_biases(own, True)), *star]


def _factors(part: str, i: int, is_baseline: bool) -> list[Rule]:
    """The norm of a branch, and the factors of its end and of its skip-connection."""
    number = BRANCHES[part]
    factors = {"layer_scale": f"layer_scale{number}", "residual_scale": f"res_scale{number}"}
    scales = (
        Rule((f"{BLOCK}/{part}/{name}/scale",), (f"{OWN}.{own}.scale",), VECTOR, optional=True)
        for name, own in factors.items()
    )
    return [*_without_biases(layer(f"{BLOCK}/GroupNorm_{i}", f"{OWN}.norm{number}"), is_baseline), *scales]


def _optional(rules: list[Rule]) -> list[Rule]:
    return [Rule(rule.canonical, rule.own, rule.layout, optional=True) for rule in rules]


def _without_biases(rules: list[Rule], without: bool) -> list[Rule]:
    return [rule for rule in rules if not (without and rule.canonical[0].endswith("/bias"))]


def _read(form: Format, reading: Reading) -> Found:
    params = reading.params
    side, _, channels, _ = params["stem/kernel"].shape
    patch, stages = (side + 1) // 2, range(len(reading.num_blocks))
    first = [f"{BLOCK.format(stage=stage, block=0)}/" for stage in stages]
    dims = tuple(len(params[f"{name}GroupNorm_0/scale"]) for name in first)
    size, assumed = image_side(reading, patch)
    scaled = tuple(stage for stage in stages if f"{first[stage]}token_mixing/residual_scale/scale" in params)
    has_scale = f"{first[0]}token_mixing/layer_scale/scale" in params
    model = MetaFormerSpec(
        image_size=size,
        image_channels=channels,
        num_classes=len(params["head/bias"]),
        patch_size=patch,
        metaformer=form.options["metaformer"],
        depths=reading.num_blocks,
        dims=dims,
        token_mixers=form.options.get("token_mixers") or _told_mixers(reading),
        layer_scale=_first_factor(reading.num_blocks, dims) if has_scale else 0.0,
        scaled_stages=scaled,
    )
    return Found(family_of(model).plain(model), assumed)


def _told_mixers(reading: Reading) -> str | tuple[str, ...]:
    """The token mixing that the user says.  Raises: NotAModel: none is said, or not one for each stage."""
    told, num = reading.told.get("token_mixers"), len(reading.num_blocks)
    allowed = f"{' or '.join(TOKEN_MIXERS)} of all stages, or {num} of them with commas, one a stage"
    if told is None:
        raise NotAModel(
            f"its arrays do not tell its token mixing, which has no weights; say it with --token-mixers: {allowed}"
        )
    words = (told,) if isinstance(told, str) else tuple(told)
    if len(words) not in (1, num) or not set(words) <= set(TOKEN_MIXERS):
        raise NotAModel(f"--token-mixers: expected {allowed}, got {','.join(words)}")
    return words[0] if len(set(words)) == 1 else words


def _first_factor(depths: tuple[int, ...], dims: tuple[int, ...]) -> float:
    """What layer scale began with, by the published sizes; weights that are read have their factors already."""
    own = (of for of in VARIANTS.values() if (of.get("depths"), of.get("dims")) == (depths, dims) and of["layer_scale"])
    return float(next((of["layer_scale"] for of in own), LAYER_SCALE))


FORMATS = (_format("timm-poolformer", is_baseline=False), _format("timm-metaformer", is_baseline=True))
