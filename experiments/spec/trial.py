"""What runs: a trial whose every size and number is known, and its id, the hash of all that can change the result."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from backends.microbatches import ALONE, Group
from backends.models import FAMILIES, read_spec
from backends.specs import ModelSpec, OptimizerSpec, RunSpec
from experiments.spec.config import AugmentConfig, DataConfig, RandAugmentConfig, RunConfig, TrainOptions

# Part of every id: raise it when the same spec would train to another result.
SPEC_VERSION = 2


@dataclass(frozen=True)
class DataInfo:
    """What a data source holds, after resizing and splitting."""

    content: str  # hash of the decoded images and labels
    image_size: int  # pixels a side
    image_channels: int
    num_classes: int
    num_train: int  # examples to train on: validation examples and those outside `fraction` are not counted
    num_validation: int
    num_test: int


@dataclass(frozen=True)
class Start:
    """Weights that a trial begins from."""

    name: str  # by their content, as ids have it: `file:<hash of the arrays>`, `trial:<id>/last` or `trial:<id>/best`
    model: ModelSpec  # theirs
    file: str | None = None  # absolute path; None: they are those that a trial of the store has kept


@dataclass(frozen=True, kw_only=True)
class TrainSpec(TrainOptions):
    """The optimization of a trial, every number known; `init_from` is the name of a Start."""

    steps: int
    evaluate_every: int  # steps
    epochs: None = None  # a spec counts in steps; ids and stored specs have the field


@dataclass(frozen=True)
class Trial:
    """One training run, fully resolved. Its id depends on what can change the result, and on nothing else."""

    model: ModelSpec
    data: DataConfig
    train: TrainSpec
    info: DataInfo
    backend: str
    seed: int
    run: RunConfig
    start_file: str | None = None  # where the file of weights lies that it begins from, if it does from a file

    @property
    def science(self) -> dict[str, Any]:
        """The hashed fields. Data counts by its content and the number of examples, not by where it lies."""
        data: dict[str, Any] = {name: getattr(self.data, name) for name in ("split_seed", "permutation")}
        sections = {name: _hashed(getattr(self, name)) for name in ("model", "train", "info")}
        data["augment"] = _hashed(self.data.augment)
        return {"version": SPEC_VERSION, **sections, "backend": self.backend, "seed": self.seed, "data": data}

    @cached_property
    def id(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the hashed fields as canonical JSON."""
        text = json.dumps(self.science, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def start_id(self) -> str | None:
        """The trial whose kept weights this one begins from; None: it begins from none's."""
        kind, _, name = (self.train.init_from or "").partition(":")
        return name.partition("/")[0] if kind == "trial" else None

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.train.steps

    @property
    def optimizer(self) -> OptimizerSpec:
        """The part of `train` that a backend is told."""
        names = [f.name for f in dataclasses.fields(OptimizerSpec)]
        return OptimizerSpec(**{name: getattr(self.train, name) for name in names})

    def run_spec(
        self, threads: int, device: str | None = None, compile_cache: Path | None = None, group: Group = ALONE
    ) -> RunSpec:
        """What a backend is told of where and how the trial runs.

        Args: threads: where run.threads leaves them open.    device, compile_cache: in place of run's own.
              group: the processes that train it together.
        """
        run, cache = self.run, compile_cache or (Path(self.run.compile_cache) if self.run.compile_cache else None)
        same = {name: getattr(run, name) for name in ("compile", "remat", "deterministic")}
        return RunSpec(
            device or run.device,
            self.train.precision,
            threads=run.threads or threads,
            compile_cache=cache,
            microbatches=self.train.microbatches,
            group=group,
            shares_optimizer=run.sharded_optimizer and group.size > 1,
            **same,
        )


def as_tree(config: Any) -> dict[str, Any]:
    """Nested mappings of a dataclass of numbers, words and dataclasses; six times faster than dataclasses.asdict."""
    values = [(name, getattr(config, name)) for name in type(config).__dataclass_fields__]
    return {name: as_tree(value) if hasattr(value, "__dataclass_fields__") else value for name, value in values}


def _hashed(config: Any) -> dict[str, Any]:
    """The fields that count for an id: all but those that came later and have the value of before; see option."""
    tree, before = as_tree(config), values_before(config.__class__)
    return {name: value for name, value in tree.items() if name not in before or value != before[name]}


def values_before(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass that came later, each with the value at which it does not count for an id."""
    return _values_before(kind)


@cache
def _values_before(kind: Any) -> dict[str, Any]:
    return {f.name: f.metadata["before"] for f in dataclasses.fields(kind) if "before" in f.metadata}


def with_later_fields(spec: dict[str, Any]) -> dict[str, Any]:
    """The tree of a trial as a file holds it, with the fields that came after it was written: they had these values."""
    model, train = (spec.get(name) for name in ("model", "train"))
    family = FAMILIES.get(model.get("family", "mixer")) if isinstance(model, dict) else None
    later = {"model": values_before(family.Spec)} if family else {}
    later |= {"train": values_before(TrainSpec)} if isinstance(train, dict) else {}
    return spec | {name: {**own, **spec[name]} for name, own in later.items()}


def trial_from_json(fields: dict[str, Any]) -> Trial:
    """The trial of a tree that `as_tree` gave; fields that an older store lacks get their defaults.

    Raises: KeyError, TypeError: it is no such tree.
    """
    run: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in fields["run"].items()}
    augment = dict(fields["data"]["augment"])
    augment["randaugment"] = RandAugmentConfig(**augment.get("randaugment", {}))
    data = DataConfig(**{**fields["data"], "augment": AugmentConfig(**augment)})
    return Trial(
        model=read_spec(fields["model"]),
        data=data,
        train=TrainSpec(**fields["train"]),
        info=DataInfo(**fields["info"]),
        backend=fields["backend"],
        seed=fields["seed"],
        run=RunConfig(**run),
        start_file=fields.get("start_file"),
    )
