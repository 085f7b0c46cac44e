"""Published models by name: the fields that each name stands for, beside which others may be set.

Where a field is not named here it has its default.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from backends.models.mixer_spec import SIZES
from backends.specs import ModelSpec

# Patch size, C, blocks, D_S, D_C.  Source: arXiv 2105.01601, Table 1.
MIXER = {
    "S/32": (32, 512, 8, 256, 2048),
    "S/16": (16, 512, 8, 256, 2048),
    "B/32": (32, 768, 12, 384, 3072),
    "B/16": (16, 768, 12, 384, 3072),
    "L/32": (32, 1024, 24, 512, 4096),
    "L/16": (16, 1024, 24, 512, 4096),
    "H/14": (14, 1280, 32, 640, 5120),
}
# C, blocks, D_C, heads, each at patches of 32, 16 and 14 pixels.  Source: google-research/big_vision, models/vit.py.
VIT = {
    "Ti": (192, 12, 768, 3),
    "S": (384, 12, 1536, 6),
    "B": (768, 12, 3072, 12),
    "L": (1024, 24, 4096, 16),
    "H": (1280, 32, 5120, 16),
}
# Version, depth, width of BiT, arXiv 1912.11370: x1 is 64 channels.
BIT = {
    "BiT-R26x1": ("v2", 26, 64),
    "BiT-R50x1": ("v2", 50, 64),
    "BiT-R50x3": ("v2", 50, 192),
    "BiT-R101x1": ("v2", 101, 64),
    "BiT-R101x3": ("v2", 101, 192),
    "BiT-R152x2": ("v2", 152, 128),
    "BiT-R152x4": ("v2", 152, 256),
    "BiT-V1-R26x1": ("v1", 26, 64),
    "BiT-V1-R50x1": ("v1", 50, 64),
}
# Depth and width of ResNets for CIFAR, arXiv 1512.03385; here without batch norm: norms of as many groups as divide.
CIFAR = {"ResNet-18": (18, 64), "ResNet-20": (20, 16)}
# C; patches of 16 pixels, 30 blocks, D_C of 6 C before the gate halves it.
# Source: arXiv 2105.08050, Table 1; the activation is that of timm, models/mlp_mixer.py.
GMLP = {"Ti/16": 128, "S/16": 256, "B/16": 512}
GMLP_BLOCKS, GMLP_RATIO = 30, 6
# Patch size, C, blocks, first factors of the branches.  Source: facebookresearch/deit, resmlp_models.py; B24 at patches
# of 16 pixels is in arXiv 2105.03404 alone. timm begins the factors of S12 at 1e-4.
RESMLP = {
    "S12": (16, 384, 12, 0.1),
    "S24": (16, 384, 24, 1e-5),
    "S36": (16, 384, 36, 1e-6),
    "B24/16": (16, 768, 24, 1e-6),
    "B24/8": (8, 768, 24, 1e-6),
}


def _vit(patch: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """The ViT of big_vision with its learned position embedding and the mean over tokens."""
    numbers = dict(zip(("hidden_dim", "num_blocks", "channels_mlp_dim", "num_heads"), sizes, strict=True))
    options = {"token_mixing": "attention", "position_embedding": "learned", "init": "vit"}
    return {"patch_size": patch, **numbers, **options}


def _resnet(version: str, depth: int, width: int, root: str) -> dict[str, Any]:
    sizes = {"version": version, "depth": depth, "width": width, "root": root}
    return {"family": "resnet", **sizes, "norm_groups": min(32, width)}


# Blocks, channels, layer scale.  Source: arXiv 2111.11418, table 1; layer scale: timm, models/metaformer.py.
SMALL, MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
POOLFORMER = {
    "S12": ((2, 2, 6, 2), SMALL, 1e-5),
    "S24": ((4, 4, 12, 4), SMALL, 1e-5),
    "S36": ((6, 6, 18, 6), SMALL, 1e-6),
    "M36": ((6, 6, 18, 6), MEDIUM, 1e-6),
    "M48": ((8, 8, 24, 8), MEDIUM, 1e-6),
}
# C, blocks, patch size, kernel size, activation.  Source: arXiv 2201.09792, table 1; 256/8: its code for CIFAR-10.
CONVMIXER = {
    "1536/20": (1536, 20, 7, 9, "gelu"),
    "1024/20": (1024, 20, 14, 9, "gelu"),
    "768/32": (768, 32, 7, 7, "relu"),
    "256/8": (256, 8, 2, 5, "gelu"),
}


def _poolformer(depths: tuple[int, ...], dims: tuple[int, ...], layer_scale: float) -> dict[str, Any]:
    own = {"family": "metaformer", "metaformer": "poolformer", "patch_size": 4, "token_mixers": "pooling"}
    return {**own, "depths": depths, "dims": dims, "layer_scale": layer_scale, "scaled_stages": ()}


def _poolformer_v2(depths: tuple[int, ...], dims: tuple[int, ...]) -> dict[str, Any]:
    """The block of the baselines with pooling.  Source: arXiv 2210.13452, table 1 and appendix A."""
    own = {**_poolformer(depths, dims, 0.0), "metaformer": "baseline"}
    return {**own, "scaled_stages": (2, 3)}


def _convmixer(*sizes: Any) -> dict[str, Any]:
    names = ("hidden_dim", "num_blocks", "patch_size", "kernel_size", "activation")
    return {"family": "convmixer", **dict(zip(names, sizes, strict=True))}


def _gmlp(hidden: int) -> dict[str, Any]:
    """The gMLP of the paper. Initial values but those of the gate are the Mixer's."""
    sizes = {"patch_size": 16, "hidden_dim": hidden, "num_blocks": GMLP_BLOCKS, "channels_mlp_dim": GMLP_RATIO * hidden}
    return {**sizes, "token_mixing": "gating", "activation": "gelu"}


def _resmlp(patch: int, hidden: int, blocks: int, scale: float) -> dict[str, Any]:
    """The ResMLP of the authors' code. Initial values but those of the branches' factors are the Mixer's."""
    sizes = {"patch_size": patch, "hidden_dim": hidden, "num_blocks": blocks, "channels_mlp_dim": 4 * hidden}
    return {**sizes, "token_mixing": "linear", "norm": "affine", "layer_scale": scale, "activation": "gelu"}


VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: dict(zip(SIZES, sizes, strict=True)) for name, sizes in MIXER.items()}
    | {f"ViT-{name}/{patch}": _vit(patch, sizes) for name, sizes in VIT.items() for patch in (32, 16, 14)}
    | {name: _resnet(*sizes, "imagenet") for name, sizes in BIT.items()}
    | {name: _resnet("v1", *sizes, "cifar") for name, sizes in CIFAR.items()}
    | {f"PoolFormer-{name}": _poolformer(*sizes) for name, sizes in POOLFORMER.items()}
    | {f"PoolFormerV2-{name}": _poolformer_v2(*sizes[:2]) for name, sizes in POOLFORMER.items()}
    | {f"ConvMixer-{name}": _convmixer(*sizes) for name, sizes in CONVMIXER.items()}
    | {f"gMLP-{name}": _gmlp(hidden) for name, hidden in GMLP.items()}
    | {f"ResMLP-{name}": _resmlp(*sizes) for name, sizes in RESMLP.items()}
)


def variant_of(spec: ModelSpec) -> str | None:
    """The variant of a spec's family that it has all fields of; None: there is none."""
    own = ((name, of) for name, of in VARIANTS.items() if of.get("family") == spec.family)
    return next((name for name, of in own if all(getattr(spec, f) == value for f, value in of.items())), None)
