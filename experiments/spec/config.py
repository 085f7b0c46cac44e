"""What YAML may say of a trial, with unit and range beside each field. Anything may be left out; see resolve.py."""

from dataclasses import dataclass, field
from typing import Any, Optional

from backends import specs

AUTO = "auto"
INTERPOLATION = ("bilinear", "bicubic", "lanczos", "box", "hamming", "nearest")  # Pillow's filters

# What a variant decides, and its numbers: (patch size, C, blocks, D_S, D_C).  Source: arXiv 2105.01601, Table 1.
SIZES = ("patch_size", "hidden_dim", "num_blocks", "tokens_mlp_dim", "channels_mlp_dim")
VARIANTS = {
    "S/32": (32, 512, 8, 256, 2048),
    "S/16": (16, 512, 8, 256, 2048),
    "B/32": (32, 768, 12, 384, 3072),
    "B/16": (16, 768, 12, 384, 3072),
    "L/32": (32, 1024, 24, 512, 4096),
    "L/16": (16, 1024, 24, 512, 4096),
    "H/14": (14, 1280, 32, 640, 5120),
}


def option(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    allowed: tuple[str, ...] = (),
    path: bool = False,
    word: bool = False,
) -> Any:
    """A field with its range: low and high are included; `allowed` lists the words that it may be.

    Args:   path: a path or a command, in which variables of the environment and `~` are expanded.
            word: one of some words that are known elsewhere, such as the name of a backend.
    """
    metadata = {"low": low, "high": high, "allowed": allowed, "path": path, "word": word or bool(allowed)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelConfig:
    """The model. Sizes that are left out come from `variant`, else from the paper's ratios D_S = C/2 and D_C = 4C."""

    variant: Optional[str] = option(None, allowed=tuple(VARIANTS))
    num_classes: Optional[int] = option(None, low=2)  # none: as many as the data has
    patch_size: Optional[int] = option(None, low=1)  # pixels a side; none: near an eighth of the image's side
    hidden_dim: Optional[int] = option(None, low=1)  # C; none: 64
    num_blocks: Optional[int] = option(None, low=1, high=1000)  # none: 4
    tokens_mlp_dim: Optional[int] = option(None, low=1)  # D_S
    channels_mlp_dim: Optional[int] = option(None, low=1)  # D_C
    token_mixing: str = option("tied", allowed=specs.TOKEN_MIXING)
    token_groups: Optional[int] = option(None, low=1)  # G, of the grouped forms of token mixing, which need it
    channel_mixing: str = option("tied", allowed=specs.CHANNEL_MIXING)
    share_blocks: bool = option(False)
    position_embedding: str = option("none", allowed=specs.POSITION_EMBEDDING)
    activation: str = option("gelu_tanh", allowed=specs.ACTIVATION)
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

    source: str = option("digits", path=True)  # digits, synthetic, a folder, or the id of a data set on the hub
    subset: Optional[str] = option(None)  # a configuration of the data set, where it has several
    train_split: str = option("train")
    test_split: Optional[str] = option(None)  # none: test, else validation, else test_fraction of the training split
    image_column: Optional[str] = option(None)  # none: the one column of images
    label_column: Optional[str] = option(None)  # none: the one column that can hold classes
    layout: Optional[str] = option(None, allowed=("classes", "splits"))  # of the first level of folders; none: see data
    background: str = option("black")  # colour behind transparent pixels: a name, a grey level or #rrggbb
    bits: Optional[int] = option(None, low=8, high=16)  # of images of 16 bits that are in use; none: by a survey
    image_size: Optional[int] = option(None, low=1)  # pixels a side, resized to; none: as it is
    shorter_side: Optional[int] = option(None, low=1)  # to it, then the middle is cut out; none: squashed
    interpolation: str = option("bilinear", allowed=INTERPOLATION)  # where images are resized
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

    optimizer: str = option("adamw", allowed=specs.OPTIMIZER)
    learning_rate: float = option(1e-3, low=0.0, high=1e3)  # the highest, reached after the warm-up
    schedule: str = option("cosine", allowed=("cosine", "linear", "constant"))  # to 0 at the end
    warmup_steps: int = option(0, low=0)
    b1: float = option(0.9, low=0.0, high=0.999999)
    b2: float = option(0.999, low=0.0, high=0.99999999)
    epsilon: float = option(1e-8, low=0.0, high=1.0)
    momentum: float = option(0.9, low=0.0, high=0.999999)
    nesterov: bool = option(False)
    weight_decay: float = option(0.0, low=0.0, high=1e3)  # decoupled, times the learning rate
    decay: str = option("kernels", allowed=specs.DECAY)
    clip_norm: float = option(1.0, low=0.0)  # of the gradient of all parameters together; 0: off
    loss: str = option("softmax", allowed=specs.LOSS)
    label_smoothing: float = option(0.0, low=0.0, high=0.99)
    batch_size: int = option(128, low=1)
    epochs: Optional[float] = option(None, low=0.001)
    steps: Optional[int] = option(None, low=1)  # in place of epochs
    ema_decay: float = option(0.0, low=0.0, high=0.99999999)  # average of the parameters used to evaluate; 0: off
    precision: str = option("float32", allowed=specs.PRECISION)
    evaluate_every: Optional[int] = option(None, low=1)  # steps; none: ten times over the run
    evaluate_train_examples: int = option(2000, low=1)  # training examples, without augmentation, in each evaluation


@dataclass(frozen=True)
class RunConfig:
    """Where and how a trial runs: not part of its id."""

    device: str = option("auto", word=True)  # auto, cpu, cuda, cuda:1, ...
    threads: int = option(0, low=0)  # CPU threads of one worker; 0: the cores divided among the workers
    compile: bool = option(False)  # torch through Inductor; jax always compiles
    replicas: str = option("1", word=True)  # trials as one program: 1, at most N, or auto; see running/replicas.py
    remat: bool = option(False)  # compute each block again for its gradient: less memory, a longer step
    deterministic: bool = option(True)  # the same bits each time, also on a GPU
    checkpoint_every_s: float = option(60.0, low=0.0)  # seconds
    keep: str = option("last", allowed=("best", "last", "none"))  # weights of a trial that is done: weights.safetensors
    compile_cache: Optional[str] = option(None, path=True)  # folder of compiled programs, shared by all; none: not kept
    data_cache: Optional[str] = option(None, path=True)  # folder of decoded images; none: `data` inside the store


@dataclass(frozen=True)
class TrialConfig:
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    backend: str = option("torch", word=True)
    seed: int = option(0, low=0)  # of initial weights, data order, augmentation and masks
    run: RunConfig = field(default_factory=RunConfig)
