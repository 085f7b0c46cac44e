"""What an id means: numbers that two tiny trials have led to ever since their SPEC_VERSION.

A name of a random stream, the order of a draw, an initial value, the rank of an example: a change of any of them
changes every result under the same id. MIXLAB_GOLDEN=write writes the file anew, after SPEC_VERSION has been raised.
"""

import json
import os
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import Array
from backends.contract import ArrayDataset
from backends.specs import RunSpec
from experiments import data
from experiments.data import Splits
from experiments.spec.trial import SPEC_VERSION, Trial
from experiments.training.plan import step_plan
from experiments.training.start import initial_state
from tests.conftest import planned, write_yaml

FILE = Path(__file__).parent / "fixtures" / "golden.json"
RAISE = "raise SPEC_VERSION: an id would stand for another result (then MIXLAB_GOLDEN=write)"

# Numbers that go through an exponential, a power or the inverse of a distribution: libraries round those differently.
NUMBER_TOLERANCE = 1e-12
# Ten steps in float64 with the sums of another processor. Seen between torch and jax: 4e-12.
LOSS_TOLERANCE = 1e-9

# Between them: every stream of random numbers, both optimizers, both losses, classes of unequal size.
SPECS: dict[str, dict[str, Any]] = {
    "synthetic": {
        "model": {"hidden_dim": 12, "num_blocks": 2, "patch_size": 4, "dropout": 0.1, "stochastic_depth": 0.5},
        "data": {
            "source": "synthetic",
            "image_size": 8,
            "num_classes": 3,
            "num_examples": 100,
            "augment": {"flip": True, "crop": 2, "mixup": 0.4},
        },
        "train": {
            "steps": 12,
            "batch_size": 8,
            "warmup_steps": 4,
            "label_smoothing": 0.1,
            "weight_decay": 0.1,
            "ema_decay": 0.9,
            "precision": "float64",
        },
        "seed": 3,
    },
    "digits": {
        "model": {
            "hidden_dim": 8,
            "num_blocks": 2,
            "patch_size": 2,
            "token_mixing": "untied",
            "position_embedding": "learned",
        },
        "data": {"source": "digits", "fraction": 0.3, "permutation": "patches", "split_seed": 5},
        "train": {
            "optimizer": "sgd",
            "loss": "sigmoid",
            "schedule": "linear",
            "learning_rate": 0.05,
            "steps": 12,
            "batch_size": 16,
            "precision": "float64",
        },
    },
}


def crc(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def prepare(name: str, folder: Path) -> tuple[Trial, Splits]:
    path = write_yaml(folder / f"{name}.yaml", base=SPECS[name], grid={"backend": ["torch"]})
    [only] = planned(path, folder / "data")
    return only.trial, data.load(only.trial.data, only.trial.info, folder / "data")


def plan_numbers(trial: Trial, splits: Splits) -> dict[str, Any]:
    """The arrays of three steps: whole numbers by their checksum, others as they are."""
    plan = step_plan(trial, splits.train, 0, 3)
    arrays = {f.name: np.asarray(getattr(plan, f.name)) for f in fields(plan) if getattr(plan, f.name) is not None}
    whole = {"examples", "crops", "flips", "mixup_partners", "branch_scales", "dropout_keys"}
    return {name: crc(array) if name in whole else array.tolist() for name, array in arrays.items()}


def losses(trial: Trial, splits: Splits, backend: str) -> list[float]:
    order = data.pixel_order(
        trial.data.permutation, trial.info.image_size, trial.model.patch_size, trial.data.split_seed
    )
    images = ArrayDataset(np.asarray(splits.images), np.asarray(splits.labels), order)
    program = backends.load(backend).open(trial.model, trial.optimizer, images, RunSpec("cpu", "float64", threads=1))
    program.load([initial_state(trial)])
    return [float(loss) for loss in program.train([step_plan(trial, splits.train, 0, 10)])[0].loss]


def numbers(trial: Trial, splits: Splits) -> dict[str, Any]:
    """All that is no loss. Initial weights are rounded to float32 for their checksum."""
    state = initial_state(trial)
    return {
        "spec_version": SPEC_VERSION,
        "id": trial.id,
        "first training examples": splits.train[:8].tolist(),
        "splits": {name: crc(getattr(splits, name)) for name in ("train", "validation", "test")},
        "images": crc(splits.images),
        "initial weights": {
            name: crc(state[name].astype("<f4")) for name in sorted(state) if name.startswith("params/")
        },
        "plan": plan_numbers(trial, splits),
    }


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if os.environ.get("MIXLAB_GOLDEN") == "write":
        written = {}
        for name in SPECS:
            trial, splits = prepare(name, tmp_path_factory.mktemp(name))
            written[name] = {**numbers(trial, splits), "losses": losses(trial, splits, "torch")}
        FILE.write_text(json.dumps(written, indent=1) + "\n")
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


def assert_close(found: Any, golden: Any, tolerance: float, where: str) -> None:
    """Floats to a relative tolerance, all else as it is."""
    if isinstance(golden, dict):
        assert set(found) == set(golden), f"{where}: {RAISE}"
        for key in golden:
            assert_close(found[key], golden[key], tolerance, f"{where}: {key}")
    elif isinstance(golden, list):
        assert np.shape(found) == np.shape(golden), f"{where}: {RAISE}"
        np.testing.assert_allclose(found, golden, rtol=tolerance, atol=0, err_msg=f"{where}: {RAISE}")
    elif isinstance(golden, float):
        assert found == pytest.approx(golden, rel=tolerance), f"{where}: {RAISE}"
    else:
        assert found == golden, f"{where}: {RAISE}"


@pytest.mark.parametrize("name", SPECS)
def test_an_id_stands_for_the_same_examples_weights_and_plan(name: str, golden: dict[str, Any], tmp_path: Path) -> None:
    found = numbers(*prepare(name, tmp_path))
    expected = {key: value for key, value in golden[name].items() if key != "losses"}
    assert_close(found, expected, NUMBER_TOLERANCE, name)


@pytest.mark.parametrize("backend", backends.names())
@pytest.mark.parametrize("name", SPECS)
def test_an_id_stands_for_the_same_losses(name: str, backend: str, golden: dict[str, Any], tmp_path: Path) -> None:
    found = losses(*prepare(name, tmp_path), backend)
    assert len(golden[name]["losses"]) == 10
    assert_close(found, golden[name]["losses"], LOSS_TOLERANCE, f"{name} on {backend}")


def test_the_golden_file_tells_a_difference() -> None:
    assert_close({"a": [1.0, 2.0], "b": 3}, {"a": [1.0, 2.0], "b": 3}, 1e-12, "same")
    for other in ({"a": [1.0, 2.1], "b": 3}, {"a": [1.0, 2.0], "b": 4}, {"a": [1.0], "b": 3}, {"a": [1.0, 2.0]}):
        with pytest.raises(AssertionError, match="SPEC_VERSION"):
            assert_close(other, {"a": [1.0, 2.0], "b": 3}, 1e-12, "other")
