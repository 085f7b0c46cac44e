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
    | {f"gMLP-{name}": _gmlp(hidden) for name, hidden in GMLP.items()}
    | {f"ResMLP-{name}": _resmlp(*sizes) for name, sizes in RESMLP.items()}
)
