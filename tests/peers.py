"""Stand-ins for other people's models, with their interfaces: a bench must find one, build it and train it."""

from pathlib import Path

# A Mixer for `mixlab bench` in which a step takes milliseconds; the stand-in for timm checks that it gets these widths.
SMALL_MIXER = ["model.num_blocks=1", "model.hidden_dim=8", "model.tokens_mlp_dim=4", "model.channels_mlp_dim=8"]
SMALL_MIXER += ["train.batch_size=4", "run.device=cpu"]

OFFICIAL = """
import flax.linen as nn
import jax.numpy as jnp

class MlpMixer(nn.Module):
    patches: object
    num_classes: int
    num_blocks: int
    hidden_dim: int
    tokens_mlp_dim: int
    channels_mlp_dim: int

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(self.hidden_dim, self.patches.size, strides=self.patches.size)(images)
        return nn.Dense(self.num_classes)(x.mean((1, 2)))
"""
TIMM = """
from torch import nn
from torchvision import transforms  # as timm does, for its data

class MlpMixer(nn.Module):
    def __init__(self, num_classes, img_size, in_chans, patch_size, num_blocks, embed_dim, mlp_ratio):
        super().__init__()
        assert (mlp_ratio[0] * embed_dim, mlp_ratio[1] * embed_dim) == (4, 8), mlp_ratio
        self.stem = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.head = nn.Linear(embed_dim, num_classes)

    def forward(self, images):
        return self.head(self.stem(images).mean((2, 3)))
"""


def write_official(folder: Path) -> None:
    """As in a clone of google-research/vision_transformer."""
    (folder / "vit_jax").mkdir()
    (folder / "vit_jax" / "models_mixer.py").write_text(OFFICIAL)


def write_timm(folder: Path) -> None:
    """A package, for a folder on the path of modules."""
    (folder / "timm" / "models").mkdir(parents=True)
    for package in ("timm", "timm/models"):
        (folder / package / "__init__.py").write_text("")
    (folder / "timm" / "models" / "mlp_mixer.py").write_text(TIMM)
