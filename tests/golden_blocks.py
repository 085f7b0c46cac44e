"""Public models that are one block with some token mixing: their weights by our names, and what they compute.

The files in tests/fixtures are the golden ones of public code, made small by `python -m tests.golden_blocks FOLDER`: of
gradients and of trained parameters they hold probes alone, in our names and layouts; see `probes`.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends.arrays import Array, State
from backends.models import folds
from backends.models.mixer_spec import MixerSpec

FIXTURES = Path(__file__).parent / "fixtures"
KEPT = ("images", "labels", "logits", "features", "loss", "losses_5", "grad_norms_5", "posemb", "about")
TAPS = {"position_embedding": "with_posemb", "MixerBlock_0/token_mixing": "block00_after_attention"}
FREQUENCIES = np.sqrt([2.0, 3.0, 5.0, 7.0])[:, None]

# Names of public code, in the order in which they are replaced. Source: facts of each fixture, `about`.
BIG_VISION = {
    "Transformer/encoderblock_": "MixerBlock_",
    "MultiHeadDotProductAttention_0": "token_mixing",
    "MlpBlock_0": "channel_mixing",
    "Transformer/encoder_norm": "pre_head_layer_norm",
    "pos_embedding": "position_embedding",
    "embedding/": "stem/",
}
TIMM = {
    "blocks.": "MixerBlock_",
    "patch_embed.proj": "stem",
    "stem.proj": "stem",
    "pos_embed": "position_embedding",
    "attn.proj": "token_mixing/out",
    "attn.": "token_mixing/",
    "mlp_channels.gate.norm": "token_mixing/gate_norm",
    "mlp_channels.gate.proj": "token_mixing/gate",
    "linear_tokens": "token_mixing/Dense_0",
    "ls1": "token_mixing/layer_scale/scale",
    "ls2": "channel_mixing/layer_scale/scale",
    "norm1": "LayerNorm_0",
    "norm2": "LayerNorm_1",
    ".norm": ".LayerNorm_0",
    "fc1": "Dense_0",
    "fc2": "Dense_1",
    "alpha": "scale",
    "beta": "bias",
    "weight": "kernel",
    ".": "/",
}
SIZES: dict[str, Any] = {"image_size": 16, "image_channels": 3, "num_classes": 7, "patch_size": 4, "num_blocks": 3}
VIT: dict[str, Any] = {"hidden_dim": 32, "tokens_mlp_dim": 16, "channels_mlp_dim": 128, "token_mixing": "attention"}
SMALL: dict[str, Any] = {"hidden_dim": 24, "tokens_mlp_dim": 12, "activation": "gelu"}
RESMLP: dict[str, Any] = {"token_mixing": "linear", "norm": "affine", "layer_scale": 1e-4, "channels_mlp_dim": 96}
SPECS: dict[str, dict[str, Any]] = {
    "vit_learn_small": VIT | {"num_heads": 4, "position_embedding": "learned"},
    "vit_sincos2d_small": VIT | {"num_heads": 2, "position_embedding": "sincos2d", "image_size": 20, "num_classes": 6},
    "timm_vit_small": VIT | {"num_heads": 4, "position_embedding": "learned", "activation": "gelu"},
    "gmlp_small": SMALL | {"token_mixing": "gating", "channels_mlp_dim": 144},
    "resmlp_small": SMALL | RESMLP,
}


@dataclass(frozen=True, eq=False)
class Golden:
    """A fixture: the model that it is of, its arrays, and its weights by our names in float64."""

    name: str
    spec: MixerSpec
    arrays: State
    params: State

    def probes(self, group: str) -> State:
        """The probes of gradients, `grads`, or of parameters after five steps, `params_after_5`, by our names."""
        return {key.removeprefix(f"probes/{group}/"): x for key, x in self.arrays.items() if f"probes/{group}/" in key}


def spec(name: str) -> MixerSpec:
    """The model of a fixture."""
    return MixerSpec(**SIZES | SPECS[name])


def load(name: str, folder: Path = FIXTURES) -> Golden:
    """A fixture from its file."""
    with np.load(folder / f"{name}.npz") as file:
        arrays = dict(file)
    return Golden(name, spec(name), arrays, renamed(name, arrays, "state_dict" if is_timm(name) else "params"))


def is_timm(name: str) -> bool:
    """Whether a fixture is timm's, and not big_vision's."""
    return not name.startswith("vit_")


def probes(x: Array) -> Array:
    """Four sums of all elements, each weighed by other cosines of their places: each element and its place count."""
    flat = np.asarray(x, np.float64).ravel()
    return np.asarray(np.cos(FREQUENCIES * np.arange(1, flat.size + 1)) @ flat)


def renamed(name: str, arrays: State, group: str) -> State:
    """The arrays of a group by our names, in our layouts, in float64."""
    own = {key.removeprefix(f"{group}/"): x.astype(np.float64) for key, x in arrays.items() if f"{group}/" in key}
    ours, shapes = (_of_timm if is_timm(name) else _of_big_vision)(own), folds.shapes(spec(name))
    if spec(name).norm == "affine":
        ours = {key.replace("LayerNorm", "Affine").replace("layer_norm", "affine"): x for key, x in ours.items()}
    assert set(ours) == set(shapes), set(ours) ^ set(shapes)
    return {key: ours[key].reshape(shape) for key, shape in shapes.items()}


def _replaced(name: str, table: dict[str, str]) -> str:
    for theirs, ours in table.items():
        name = name.replace(theirs, ours)
    return name


def _of_big_vision(arrays: State) -> State:
    """Heads are axes there, which lie in memory as ours do."""
    return {_replaced(name, BIG_VISION): x for name, x in arrays.items()}


def _of_timm(arrays: State) -> State:
    """Kernels are (out, in) there, convolutions (out, in, h, w), and q, k and v are one."""
    gates = any("gate" in name for name in arrays)
    ours: State = {}
    for theirs, value in arrays.items():
        is_norm, is_kernel = "norm" in theirs, theirs.endswith(".weight")
        name = _replaced(re.sub(r"^norm\.", "pre_head_layer_norm.", theirs), TIMM)
        name = re.sub(r"/(mlp|mlp_channels)/", "/token_mixing/" if gates else "/channel_mixing/", name)
        x = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T if is_kernel else value
        if is_norm:
            name = name.replace("/kernel", "/scale")
        parts = ("query", "key", "value") if "qkv" in name else ("qkv",)
        for part, third in zip(parts, np.split(x, len(parts), axis=-1), strict=True):
            ours[name.replace("qkv", part)] = third
    return ours


def trim(name: str, folder: Path) -> None:
    """Write the small form of a golden file into tests/fixtures."""
    with np.load(folder / f"{name}.npz") as file:
        arrays = dict(file)
    small = {key: x for key, x in arrays.items() if key in KEPT or key.startswith(("params/", "state_dict/"))}
    small |= {
        f"intermediates/{key}": x for key in TAPS.values() if (x := arrays.get(f"intermediates/{key}")) is not None
    }
    for group in ("grads", "params_after_5"):
        if any(key.startswith(f"{group}/") for key in arrays):
            small |= {f"probes/{group}/{own}": probes(x) for own, x in renamed(name, arrays, group).items()}
    np.savez_compressed(FIXTURES / f"{name}.npz", **small)


if __name__ == "__main__":
    for fixture in SPECS:
        trim(fixture, Path(sys.argv[1]))
