"""What YAML may say of a trial, with unit and range beside each field. Anything may be left out; see resolve.py."""

from dataclasses import dataclass, field
from typing import Optional

from backends.models.config import ModelConfig
from backends.specs import PRECISION, OptimizerSpec, option

AUTO = "auto"
INTERPOLATION = ("bilinear", "bicubic", "lanczos", "box", "hamming", "nearest")  # Pillow's filters
MIXUP = ("drawn", "authors")
INCEPTION_AREA = {"tf": 0.05, "torchvision": 0.08}  # the least share of an image, where none is given
RANDAUGMENT = ("big_vision", "fixed", "torchvision")
STORAGE = (AUTO, "memory", "disk", "encoded")
# What all trials had of it before it was there, as an id has it.
NO_RANDAUGMENT = {"num": 0, "magnitude": 10.0, "style": "big_vision"}


@dataclass(frozen=True)
class RandAugmentConfig:
    """RandAugment: some operations on each image, one after the other, each drawn anew.  Source: arXiv 1909.13719."""

    num: int = option(0, low=0, high=16)  # operations on each image; 0: off
    magnitude: float = option(10.0, low=0.0, high=30.0)  # of the operations, in tenths of their largest; may pass 10
    style: str = option("big_vision", allowed=RANDAUGMENT)  # of which code; fixed: big_vision's, its contrast mended


@dataclass(frozen=True)
class AugmentConfig:
    """Changes to training images, drawn anew for each step. What came later counts for an id where it is on."""

    flip: bool = option(False)  # mirror left and right with probability 1/2
    crop: int = option(0, low=0)  # pixels of black padding on each side before a random crop to the image's size
    mixup: float = option(0.0, low=0.0, high=10.0)  # alpha of Beta(alpha, alpha); 0: off
    mixup_style: str = option("drawn", allowed=MIXUP, before="drawn")  # authors: the next one in, by half at most
    cutmix: float = option(0.0, low=0.0, high=10.0, before=0.0)  # alpha; beside mixup a step draws one; 0: off
    inception: Optional[str] = option(
        None, allowed=tuple(INCEPTION_AREA), before=None
    )  # a random area, resized, in whose form
    inception_area: Optional[float] = option(None, low=0.0, high=1.0, before=None)  # the least share; none: its form's
    randaugment: RandAugmentConfig = field(default_factory=RandAugmentConfig, metadata={"before": NO_RANDAUGMENT})
    color_jitter: float = option(0.0, low=0.0, high=1.0, before=0.0)  # of brightness, contrast and saturation; 0: off
    three_augment: bool = option(False, before=False)  # grey, solarized or blurred: DeiT III's, one of them each
    erasing: float = option(0.0, low=0.0, high=1.0, before=0.0)  # probability of a grey box in an image; 0: off
    repeat: int = option(1, low=1, high=16, before=1)  # times that a batch holds each of its examples

    @property
    def mixes(self) -> bool:
        """Whether an image gets parts of another one of its batch."""
        return bool(self.mixup or self.cutmix)

    @property
    def on_host(self) -> bool:
        """Whether pixels are changed before the device has them; see training/host.py."""
        return bool(self.inception or self.randaugment.num or self.color_jitter or self.three_augment or self.erasing)


@dataclass(frozen=True)
class DataConfig:
    """The data: images as uint8, scaled to [-1, 1]."""

    source: str = option("digits", path=True)  # digits, synthetic, a folder, or the id of a data set on the hub
    subset: Optional[str] = option(None)  # a configuration of the data set, where it has several
    train_split: str = option("train")  # its name in the source
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
    permutation: str = option("none", allowed=("none", "patches", "pixels"))  # one for all images
    storage: str = option(AUTO, allowed=STORAGE)  # where images are read from while training; auto: memory if they fit
    labels_real: Optional[str] = option(None, path=True)  # a file with all right classes of each test example; see data
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TrainOptions(OptimizerSpec):
    """What a config and a spec of the optimization have in common."""

    learning_rate: float = option(1e-3, low=0.0, high=1e3)  # the highest, reached after the warm-up
    schedule: str = option("cosine", allowed=("cosine", "linear", "constant"))  # to 0 at the end
    warmup_steps: int = option(0, low=0)  # steps over which the rate rises
    batch_size: int = option(128, low=1)  # examples a step
    microbatches: int = option(1, low=1, high=4096, before=1)  # parts of a batch, summed in a fixed order: 1, 2, 4, ...
    precision: str = option("float32", allowed=PRECISION)  # of products; float32 is IEEE's, tf32 is asked for by name
    evaluate_train_examples: int = option(2000, low=1)  # training examples, without augmentation, in each evaluation
    init_from: Optional[str] = option(None, path=True, before=None)  # FILE, trial:ID or ablation:NAME(seed=0 ...)


@dataclass(frozen=True)
class TrainConfig(TrainOptions):
    """The optimization. Every step is `batch_size` examples; each epoch drops the examples that fill no batch."""

    epochs: Optional[float] = option(None, low=0.001)  # none: 20, where steps is none too
    steps: Optional[int] = option(None, low=1)  # in place of epochs
    evaluate_every: Optional[int] = option(None, low=1)  # steps; none: ten times over the run


@dataclass(frozen=True)
class RunConfig:
    """Where and how a trial runs: not part of its id."""

    device: str = option("auto", word=True)  # auto, cpu, cuda, cuda:1, ...; gpu is cuda; tpu, tpu:1, ... (jax)
    devices: int = option(1, low=1)  # that train a trial together; divides train.microbatches
    sharded_optimizer: bool = option(False)  # of run.devices each holds its share of the moments: less memory
    threads: int = option(0, low=0)  # CPU threads of one worker; 0: the cores divided among the workers
    compile: bool = option(False)  # torch through Inductor; jax always compiles
    replicas: str = option("1", word=True)  # trials as one program: 1, at most N, or auto; see running/replicas.py
    remat: bool = option(False)  # compute each block again for its gradient: less memory, a longer step
    deterministic: bool = option(True)  # the same bits each time, also on a GPU
    checkpoint_every_s: float = option(60.0, low=0.0)  # seconds
    keep: str = option("last", allowed=("best", "last", "none"))  # weights of a trial that is done: weights.safetensors
    probe_shots: Optional[int | tuple[int, ...]] = option(None, low=1)  # of probes beside evaluations: 1, 5, 10, 25
    compile_cache: Optional[str] = option(None, path=True)  # folder of compiled programs, shared by all; none: not kept
    data_cache: Optional[str] = option(None, path=True)  # folder of decoded images; none: `data` inside the store

    @property
    def shots(self) -> tuple[int, ...]:
        """The shots of the probes in order, each once."""
        asked = self.probe_shots or ()
        return (asked,) if isinstance(asked, int) else tuple(sorted(set(asked)))


@dataclass(frozen=True)
class TrialConfig:
    """One trial as a user writes it."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    backend: str = option("torch", word=True)  # torch, jax, or one that another package brings
    seed: int = option(0, low=0)  # of initial weights, data order, augmentation and masks
    run: RunConfig = field(default_factory=RunConfig)
