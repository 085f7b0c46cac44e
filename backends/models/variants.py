"""Published models by name: the fields that each name stands for, beside which others may be set.

Where a field is not named here it has its default.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from backends.models.mixer_spec import SIZES

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


def _vit(patch: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    """The ViT of big_vision with its learned position embedding and the mean over tokens."""
    numbers = dict(zip(("hidden_dim", "num_blocks", "channels_mlp_dim", "num_heads"), sizes, strict=True))
    options = {"token_mixing": "attention", "position_embedding": "learned", "init": "vit"}
    return {"patch_size": patch, **numbers, **options}


def _resnet(version: str, depth: int, width: int, root: str) -> dict[str, Any]:
    sizes = {"version": version, "depth": depth, "width": width, "root": root}
    return {"family": "resnet", **sizes, "norm_groups": min(32, width)}


VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: dict(zip(SIZES, sizes, strict=True)) for name, sizes in MIXER.items()}
    | {f"ViT-{name}/{patch}": _vit(patch, sizes) for name, sizes in VIT.items() for patch in (32, 16, 14)}
    | {name: _resnet(*sizes, "imagenet") for name, sizes in BIT.items()}
    | {name: _resnet("v1", *sizes, "cifar") for name, sizes in CIFAR.items()}
)
