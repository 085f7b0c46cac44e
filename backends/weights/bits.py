"""The authors' formats of BiT's ResNets: big_vision's V1 and V2, and the files of the paper, which are V2."""

from backends.models.patches import default_patch_size
from backends.models.resnet_spec import ResnetSpec
from backends.weights.form import Format, Found, Reading, Rule
from backends.weights.layouts import DENSE, HWIO, VECTOR, Layout, leading
from backends.weights.told import image_side

UNIT = "block{stage_1}/unit{block_1:02d}"
CONVOLUTIONS = (1, 2, 3)
GROUPS = 32  # of each norm
WIDE = leading(3, 1)  # (1, 1, 1, C)
AT_PLACES = leading(2, 2)  # (1, 1, in, out)


def _norm(canonical: str, own: str, layout: Layout, parts: tuple[str, str], optional: bool = False) -> list[Rule]:
    names = zip(("scale", "bias"), parts, strict=True)
    return [Rule((f"{canonical}/{part}",), (f"{own}/{name}",), layout, optional) for part, name in names]


def _kernel(canonical: str, own: str, optional: bool = False) -> Rule:
    return Rule((f"{canonical}/kernel",), (f"{own}/kernel",), HWIO, optional)


def _v1() -> Format:
    own, parts = "block{stage_1}/unit{block_1}", ("scale", "bias")
    rules = [
        _kernel("conv_root", "conv_root"),
        *_norm("gn_root", "gn_root", VECTOR, parts),
        *(_kernel(f"{UNIT}/conv{i}", f"{own}/conv{i}") for i in CONVOLUTIONS),
        *(rule for i in CONVOLUTIONS for rule in _norm(f"{UNIT}/gn{i}", f"{own}/gn{i}", VECTOR, parts)),
        _kernel(f"{UNIT}/conv_proj", f"{own}/conv_proj", optional=True),
        *_norm(f"{UNIT}/gn_proj", f"{own}/gn_proj", VECTOR, parts, optional=True),
        Rule(("head/kernel",), ("head/kernel",), DENSE),
        Rule(("head/bias",), ("head/bias",), VECTOR),
    ]
    return _format("big_vision-bit", "google-research/big_vision, models/bit.py", rules, "v1")


def _v2() -> Format:
    parts = ("scale", "bias")
    rules = [
        _kernel("conv_root", "root_block/conv_root"),
        *(_kernel(f"{UNIT}/conv{i}", f"{UNIT}/conv{i}") for i in CONVOLUTIONS),
        *(rule for i in CONVOLUTIONS for rule in _norm(f"{UNIT}/gn{i}", f"{UNIT}/gn{i}", WIDE, parts)),
        _kernel(f"{UNIT}/conv_proj", f"{UNIT}/conv_proj", optional=True),
        *_norm("pre_head_group_norm", "norm-pre-head", WIDE, parts),
        Rule(("head/kernel",), ("head/kernel",), DENSE),
        Rule(("head/bias",), ("head/bias",), VECTOR),
    ]
    return _format("big_vision-bit_paper", "google-research/big_vision, models/bit_paper.py", rules, "v2")


def _of_the_paper() -> Format:
    """The files of the paper.  Source: big_vision, models/bit_paper.py, maybe_convert_big_transfer_format."""
    own, parts, product = f"resnet/{UNIT}", ("gamma", "beta"), "standardized_conv2d"
    groups = dict(zip(CONVOLUTIONS, "abc", strict=True))
    rules = [
        _kernel("conv_root", f"resnet/root_block/{product}"),
        *(_kernel(f"{UNIT}/conv{i}", f"{own}/{group}/{product}") for i, group in groups.items()),
        *(
            rule
            for i, group in groups.items()
            for rule in _norm(f"{UNIT}/gn{i}", f"{own}/{group}/group_norm", VECTOR, parts)
        ),
        _kernel(f"{UNIT}/conv_proj", f"{own}/a/proj/{product}", optional=True),
        *_norm("pre_head_group_norm", "resnet/group_norm", VECTOR, parts),
        Rule(("head/kernel",), ("resnet/head/conv2d/kernel",), AT_PLACES),
        Rule(("head/bias",), ("resnet/head/conv2d/bias",), VECTOR),
    ]
    return _format("big_transfer-bit", "google-research/big_transfer", rules, "v2")


def _format(name: str, source: str, rules: list[Rule], version: str) -> Format:
    options = {"version": version, "root": "imagenet", "unit": "bottleneck", "norm_groups": GROUPS}
    asks, reads = ("image_size", "patch_size"), ("depth", "width")
    return Format(name, source, tuple(rules), _read, options, family="resnet", code="official", reads=reads, asks=asks)


def _read(form: Format, reading: Reading) -> Found:
    size, assumed = image_side(reading, 1)
    if "patch_size" not in reading.told:
        assumed = {**assumed, "patch_size": "no array tells it, and only permutations of images use it"}
    _, _, channels, width = reading.params["conv_root/kernel"].shape
    model = ResnetSpec(
        image_size=size,
        image_channels=channels,
        num_classes=len(reading.params["head/bias"]),
        patch_size=reading.told.get("patch_size") or default_patch_size(size),
        depth=reading.num_blocks,
        width=width,
        **form.options,
    )
    return Found(model, assumed)


FORMATS = (_v1(), _v2(), _of_the_paper())
