"""The spec of a trial: what YAML may say, with unit and range beside each field, and its resolution to exact values.

`TrialConfig` is what a user writes: anything may be left out. `Trial` is what runs: every size, step count and data
fingerprint is known, and `Trial.id` is the hash of all of it except `run`.
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from backends import contract
from backends.contract import ModelSpec, OptimizerSpec
from backends.errors import MixlabError, choices

# Part of every id: raise it when the same spec would train to another result, so also with decoded.LAYOUT.
SPEC_VERSION = 1

# Variant: (patch size, C, blocks, D_S, D_C).  Source: arXiv 2105.01601, Table 1.
VARIANTS = {
    "S/32": (32, 512, 8, 256, 2048),
    "S/16": (16, 512, 8, 256, 2048),
    "B/32": (32, 768, 12, 384, 3072),
    "B/16": (16, 768, 12, 384, 3072),
    "L/32": (32, 1024, 24, 512, 4096),
    "L/16": (16, 1024, 24, 512, 4096),
    "H/14": (14, 1280, 32, 640, 5120),
}
DEFAULT_SIZES = (None, 64, 4, None, None)
DEFAULT_EPOCHS = 20
DEFAULT_EVALUATIONS = 10  # over a run, where train.evaluate_every is not given


def option(default: Any, *, low: float | None = None, high: float | None = None, allowed: tuple[str, ...] = ()) -> Any:
    """A field with its range: low and high are included; `allowed` lists the words that it may be."""
    return field(default=default, metadata={"low": low, "high": high, "allowed": allowed})


@dataclass(frozen=True)
class ModelConfig:
    """The model. Sizes that are left out come from `variant`, else from the paper's ratios D_S = C/2 and D_C = 4C."""

    variant: Optional[str] = option(None, allowed=tuple(VARIANTS))
    num_classes: Optional[int] = option(None, low=2)  # none: as many as the data has
    patch_size: Optional[int] = option(None, low=1)  # pixels a side; none: near an eighth of the image's side
    hidden_dim: Optional[int] = option(None, low=1)  # C; none: 64
    num_blocks: Optional[int] = option(None, low=1)  # none: 4
    tokens_mlp_dim: Optional[int] = option(None, low=1)  # D_S
    channels_mlp_dim: Optional[int] = option(None, low=1)  # D_C
    token_mixing: str = option("tied", allowed=contract.TOKEN_MIXING)
    token_groups: int = option(1, low=1)  # G, for the grouped forms of token mixing
    channel_mixing: str = option("tied", allowed=contract.CHANNEL_MIXING)
    share_blocks: bool = option(False)
    position_embedding: str = option("none", allowed=contract.POSITION_EMBEDDING)
    activation: str = option("gelu_tanh", allowed=contract.ACTIVATION)
    norm_epsilon: float = option(1e-6, low=1e-30, high=1.0)
    pre_head_norm: bool = option(True)
    dropout: float = option(0.0, low=0.0, high=0.95)  # rate
    stochastic_depth: float = option(0.0, low=0.0, high=0.95)  # rate at the last block, rising linearly from 0
    rescale: bool = option(False)  # timm's form: one rate for all blocks, kept branches divided by the keep rate


@dataclass(frozen=True)
class AugmentConfig:
    """Changes to training images, drawn anew for each step."""

    flip: bool = option(False)  # mirror left and right with probability 1/2
    crop: int = option(0, low=0)  # pixels of black padding on each side before a random crop to the image's size
    mixup: float = option(0.0, low=0.0, high=10.0)  # alpha of Beta(alpha, alpha); 0: off


@dataclass(frozen=True)
class DataConfig:
    """The data: images as uint8, scaled to [-1, 1]."""

    source: str = option("digits")  # digits, synthetic, a local folder, or the id of a data set on the Hugging Face hub
    train_split: str = option("train")
    test_split: Optional[str] = option(None)  # none: test, else validation, else test_fraction of the training split
    image_column: Optional[str] = option(None)  # none: the one column of images
    label_column: Optional[str] = option(None)  # none: the one column of classes or whole numbers
    image_size: Optional[int] = option(None, low=1)  # pixels a side, resized to; none: as it is
    image_channels: Optional[int] = option(None, low=1, high=3)  # 1 grey, 3 colour; none: as it is
    num_classes: int = option(10, low=2)  # of the synthetic source
    num_examples: int = option(1000, low=4)  # of the synthetic source, test examples included
    fraction: float = option(1.0, low=1e-6, high=1.0)  # of the training examples, by class; smaller lies inside larger
    validation_fraction: float = option(0.1, low=0.0, high=0.9)  # of the training split, by class
    test_fraction: float = option(0.2, low=0.01, high=0.9)  # of the training split, where the source has no test split
    split_seed: int = option(0, low=0)  # of splits, subsets and the permutation: the same for all seeds of a trial
    permutation: str = option("none", allowed=("none", "patches", "pixels"))
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TrainConfig:
    """The optimization. Every step is `batch_size` examples; each epoch drops the examples that fill no batch."""

    optimizer: str = option("adamw", allowed=contract.OPTIMIZER)
    learning_rate: float = option(1e-3, low=0.0, high=1e3)  # the highest, reached after the warm-up
    schedule: str = option("cosine", allowed=("cosine", "linear", "constant"))  # to 0 at the end
    warmup_steps: int = option(0, low=0)
    b1: float = option(0.9, low=0.0, high=0.999999)
    b2: float = option(0.999, low=0.0, high=0.99999999)
    epsilon: float = option(1e-8, low=0.0, high=1.0)
    momentum: float = option(0.9, low=0.0, high=0.999999)
    nesterov: bool = option(False)
    weight_decay: float = option(0.0, low=0.0, high=1e3)  # decoupled, times the learning rate
    decay: str = option("kernels", allowed=contract.DECAY)
    clip_norm: float = option(1.0, low=0.0)  # of the gradient of all parameters together; 0: off
    loss: str = option("softmax", allowed=contract.LOSS)
    label_smoothing: float = option(0.0, low=0.0, high=0.99)
    batch_size: int = option(128, low=1)
    epochs: Optional[float] = option(None, low=0.0)
    steps: Optional[int] = option(None, low=1)  # in place of epochs
    ema_decay: float = option(0.0, low=0.0, high=0.99999999)  # average of the parameters used to evaluate; 0: off
    precision: str = option("float32", allowed=contract.PRECISION)
    evaluate_every: Optional[int] = option(None, low=1)  # steps; none: ten times over the run
    evaluate_train_examples: int = option(2000, low=1)  # training examples, without augmentation, in each evaluation


@dataclass(frozen=True)
class RunConfig:
    """Where and how a trial runs: not part of its id."""

    device: str = option("auto")  # auto, cpu, cuda, cuda:1, ...
    threads: int = option(0, low=0)  # CPU threads of one worker; 0: the cores divided among the workers
    compile: bool = option(False)  # torch through Inductor; jax always compiles
    deterministic: bool = option(True)  # the same bits each time, also on a GPU
    checkpoint_every_s: float = option(60.0, low=0.0)  # seconds
    data_cache: Optional[str] = option(None)  # folder of decoded images; none: `data` inside the store


@dataclass(frozen=True)
class TrialConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    backend: str = option("torch")
    seed: int = option(0, low=0)  # of initial weights, data order, augmentation and masks
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True)
class DataInfo:
    """What a data source holds, after resizing and splitting."""

    fingerprint: str  # of the source's content
    image_size: int  # pixels a side
    image_channels: int
    num_classes: int
    num_train: int  # examples to train on: validation examples and those outside `fraction` are not counted
    num_validation: int
    num_test: int


@dataclass(frozen=True)
class Trial:
    """One training run, fully resolved. Its id depends on what can change the result, and on nothing else."""

    model: ModelSpec
    data: DataConfig
    train: TrainConfig
    info: DataInfo
    backend: str
    seed: int
    run: RunConfig

    @property
    def science(self) -> dict[str, Any]:
        """The hashed fields. A source counts by its content, so the same data in another folder is the same trial."""
        fields = asdict(self)
        del fields["run"], fields["data"]["source"]
        return {"version": SPEC_VERSION, **fields}

    @property
    def id(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the hashed fields as canonical JSON."""
        text = json.dumps(self.science, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def num_steps(self) -> int:
        assert self.train.steps is not None  # resolve() sets it
        return self.train.steps

    @property
    def optimizer(self) -> OptimizerSpec:
        names = [f.name for f in dataclasses.fields(OptimizerSpec)]
        return OptimizerSpec(**{name: getattr(self.train, name) for name in names})


def trial_from_json(fields: dict[str, Any]) -> Trial:
    """A trial as `dataclasses.asdict` gave it."""
    data = DataConfig(**{**fields["data"], "augment": AugmentConfig(**fields["data"]["augment"])})
    return Trial(
        model=ModelSpec(**fields["model"]),
        data=data,
        train=TrainConfig(**fields["train"]),
        info=DataInfo(**fields["info"]),
        backend=fields["backend"],
        seed=fields["seed"],
        run=RunConfig(**fields["run"]),
    )


def check_ranges(config: Any, where: str, prefix: str = "") -> None:
    """Hold every field against its range.

    Raises: MixlabError: names the field, what came and what is allowed.
    """
    for f in dataclasses.fields(config):
        value, name, limits = getattr(config, f.name), f"{prefix}{f.name}", f.metadata
        if dataclasses.is_dataclass(value):
            check_ranges(value, where, f"{name}.")
        elif value is None or not limits:
            continue
        elif limits["allowed"] and value not in limits["allowed"]:
            raise MixlabError(f"{where}: {name}: {value!r} is not known; {choices(value, limits['allowed'])}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise MixlabError(f"{where}: {name}: {value} is not a finite number")
        elif limits["low"] is not None and value < limits["low"]:
            raise MixlabError(f"{where}: {name}: {value} is too small; at least {limits['low']}")
        elif limits["high"] is not None and value > limits["high"]:
            raise MixlabError(f"{where}: {name}: {value} is too large; at most {limits['high']}")


def resolve(config: TrialConfig, info: DataInfo, where: str) -> Trial:
    """Fill in every value that was left out, and check the fields against each other and the data.

    Raises: MixlabError: names the fields that do not fit.
    """
    model = _resolve_model(config, info, where)
    train = _resolve_train(config.train, info, where)
    data = dataclasses.replace(config.data, image_size=info.image_size, image_channels=info.image_channels)
    if data.augment.crop > info.image_size:
        raise MixlabError(
            f"{where}: data.augment.crop: {data.augment.crop} pixels of padding exceed "
            f"the image of {info.image_size} pixels"
        )
    return Trial(model, data, train, info, config.backend, config.seed, config.run)


def _resolve_model(config: TrialConfig, info: DataInfo, where: str) -> ModelSpec:
    model = config.model
    sizes = VARIANTS[model.variant] if model.variant else DEFAULT_SIZES
    names = ("patch_size", "hidden_dim", "num_blocks", "tokens_mlp_dim", "channels_mlp_dim")
    patch, hidden, blocks, tokens_dim, channels_dim = (
        size if getattr(model, name) is None else getattr(model, name) for name, size in zip(names, sizes, strict=True)
    )
    patch = patch or _default_patch_size(info.image_size)
    assert hidden is not None and blocks is not None  # DEFAULT_SIZES and VARIANTS give both
    if info.image_size % patch:
        divisors = [str(p) for p in range(1, info.image_size + 1) if info.image_size % p == 0]
        raise MixlabError(
            f"{where}: model.patch_size: {patch} does not divide the image of {info.image_size} pixels "
            f"(data.image_size); allowed: {', '.join(divisors)}"
        )
    grouped = model.token_mixing.startswith("grouped")
    if grouped and hidden % model.token_groups:
        raise MixlabError(
            f"{where}: model.token_groups: {model.token_groups} does not divide model.hidden_dim {hidden}"
        )
    if not grouped and model.token_groups != 1:
        raise MixlabError(
            f"{where}: model.token_groups: {model.token_groups} groups need model.token_mixing grouped or "
            f"grouped_views, not {model.token_mixing!r}"
        )
    if model.num_classes is not None and model.num_classes < info.num_classes:
        raise MixlabError(
            f"{where}: model.num_classes: {model.num_classes} is less than the {info.num_classes} classes of "
            f"data.source {config.data.source!r}"
        )
    return ModelSpec(
        image_size=info.image_size,
        image_channels=info.image_channels,
        num_classes=model.num_classes or info.num_classes,
        patch_size=patch,
        hidden_dim=hidden,
        num_blocks=blocks,
        tokens_mlp_dim=tokens_dim or max(1, hidden // 2),
        channels_mlp_dim=channels_dim or 4 * hidden,
        **{
            f.name: getattr(model, f.name)
            for f in dataclasses.fields(ModelSpec)
            if f.default is not dataclasses.MISSING
        },
    )


def _default_patch_size(image_size: int) -> int:
    """The divisor of the image's side that is nearest to an eighth of it, and to 2 in small images."""
    divisors = [size for size in range(1, image_size + 1) if image_size % size == 0]
    return min(divisors, key=lambda size: abs(size - max(2.0, image_size / 8)))


def _resolve_train(train: TrainConfig, info: DataInfo, where: str) -> TrainConfig:
    if train.steps is not None and train.epochs is not None:
        raise MixlabError(f"{where}: train.steps and train.epochs: give one of them, not both")
    if train.batch_size > info.num_train:
        raise MixlabError(
            f"{where}: train.batch_size: {train.batch_size} exceeds the {info.num_train} training examples; "
            f"lower it or raise data.fraction"
        )
    epochs = DEFAULT_EPOCHS if train.epochs is None else train.epochs
    steps = train.steps or max(1, round(epochs * (info.num_train // train.batch_size)))
    if train.warmup_steps > steps:
        raise MixlabError(f"{where}: train.warmup_steps: {train.warmup_steps} exceeds the {steps} steps of the run")
    every = train.evaluate_every or -(-steps // DEFAULT_EVALUATIONS)
    return dataclasses.replace(train, steps=steps, epochs=None, evaluate_every=min(every, steps))
