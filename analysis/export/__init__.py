"""Export of an ablation to other people's programs: one table of targets, a module of this room each.

A further target is a row of TARGETS and a module of its name here, with a function `export`. What it needs beside
Mixlab is an extra of pyproject.toml, and is imported inside its functions.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backends.errors import MixlabError


@dataclass(frozen=True)
class Target:
    """What an ablation can be exported to.

    package: that its module imports.    extra: of pyproject.toml, which installs it.    beside: what else is in it.
    of_runs: whether `export(runs, folder)` takes the runs of an ablation, see run.py and folder.py; else
        `export(store, selection, out)` takes trials whose weights are in the store, see weights.py, and a path. Both
        return sentences for the user: what was written, how it is opened.
    has_numbers: whether it may be given those of the test split.    apart: whether the package needs an environment of
        its own, since it does not go with what constraints.txt has.
    """

    package: str
    extra: str
    of_runs: bool
    has_numbers: bool = True
    apart: bool = False
    beside: tuple[str, ...] = ()

    @property
    def missing(self) -> str | None:
        """The first of its packages that is not installed."""
        packages = (self.package, *self.beside)
        return next((package for package in packages if importlib.util.find_spec(package) is None), None)

    @property
    def install(self) -> str:
        """How its extra is installed."""
        constraints = "" if self.apart else "-c constraints.txt "
        place = ", in an environment of its own" if self.apart else ""
        return f"pip install {constraints}-e '.[{self.extra}]'{place}"


TARGETS = {
    "tensorboard": Target("tensorboard", "tensorboard", of_runs=True),
    "wandb": Target("wandb", "wandb", of_runs=True),
    "mlflow": Target("mlflow", "mlflow", of_runs=True, beside=("sqlalchemy", "alembic")),
    "trackio": Target("trackio", "trackio", of_runs=True, apart=True),
    "hf": Target("huggingface_hub", "hf", of_runs=False),
    "onnx": Target("onnxruntime", "onnx", of_runs=False, has_numbers=False, beside=("onnx", "onnxscript")),
}


def exporter(name: str) -> Callable[..., list[str]]:
    """The function `export` of a target.

    Raises: MixlabError: what it needs is not installed.
    """
    target = TARGETS[name]
    if missing := target.missing:
        raise MixlabError(
            f"command line: --to {name}: the package {missing} is not installed; install it with: {target.install}"
        )
    module: Any = importlib.import_module(f"{__name__}.{name}")
    made: Callable[..., list[str]] = module.export
    return made
