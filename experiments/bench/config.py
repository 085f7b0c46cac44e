"""Models that are measured, as trials on random images."""

from collections.abc import Sequence
from typing import Any

from backends.bench import VIT
from backends.errors import MixlabError, choices
from backends.models.variants import VARIANTS
from experiments.design.ablation import COMMAND_LINE
from experiments.spec import fields
from experiments.spec.config import TrialConfig
from experiments.spec.overrides import read_override
from experiments.spec.resolve import resolve
from experiments.spec.trial import DataInfo, Trial

# P 4, C 128, D_S 64, D_C 512, 8 blocks reaches 90.8 % on CIFAR-10.
CIFAR: dict[str, Any] = {
    "model.patch_size": 4,
    "model.hidden_dim": 128,
    "model.tokens_mlp_dim": 64,
    "model.channels_mlp_dim": 512,
    "model.num_blocks": 8,
    "train.batch_size": 128,
}
CIFAR_VIT = CIFAR | {f"model.{name}": value for name, value in VIT.items()}
SMALL = {"cifar": CIFAR, "cifar-vit": CIFAR_VIT}
NAMES = (*SMALL, *VARIANTS)
LARGE_BATCH = 16  # of the paper's models, at 224 pixels
# The sizes of the data, and a step that has no part that the peers leave out.
ALL = {"train.steps": 10**6, "train.clip_norm": 0.0, "train.weight_decay": 0.05, "data.source": "synthetic"}


def trial(name: str, overrides: Sequence[str] = ()) -> Trial:
    """The trial of a model by name, with some fields set.

    Raises: MixlabError: no such model or field, or a value that does not fit.
    """
    if name not in NAMES:
        raise MixlabError(f"{COMMAND_LINE}: --config: expected a model's name, got {name!r}; {choices(name, NAMES)}")
    settings = dict(read_override(override, COMMAND_LINE, axes=False) for override in overrides)
    size, classes = (32, 10) if name in SMALL else (224, 1000)
    sizes = SMALL.get(name) or {"model.variant": name, "train.batch_size": LARGE_BATCH}
    config = fields.set_fields(TrialConfig(), {**ALL, **sizes, **fields.typed(settings, COMMAND_LINE)})
    size = config.data.image_size or size
    info = DataInfo("random", size, config.data.image_channels or 3, classes, config.train.batch_size, 0, 0)
    return resolve(config, info, COMMAND_LINE)
