"""Token-mixing operators: the three places that one has name the same ones, and one without an MLP is whole too."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import backends
from backends.models import folds, mixing
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec
from tests.conftest import Ended, base, records, write_yaml

WITHOUT_MLP = ("pooling", "identity")


@pytest.mark.parametrize("backend", backends.names())
def test_each_value_of_the_field_is_declared_and_has_a_forward_pass(backend: str) -> None:
    own = import_module(f"backends.{backend}.models.mixing").OPERATORS
    assert set(TOKEN_MIXING) == set(mixing.OPERATORS) == set(own)
    for name, function in (*mixing.OPERATORS.items(), *own.items()):
        assert function.__name__ == name
        assert function.__module__ in (mixing.__name__, f"backends.{backend}.models.mixing")  # none of their helpers


def test_an_operator_without_an_mlp_costs_nothing_of_one() -> None:
    tied, pooling, identity = (
        MixerSpec(8, 1, 10, 2, 8, 2, 4, 32, token_mixing=name) for name in ("tied", *WITHOUT_MLP)
    )
    mlp = 2 * (16 * 4 + 4 + 4 * 16 + 16)  # blocks x (kernels and biases)
    assert folds.count(tied) - folds.count(pooling) == mlp
    assert folds.count(pooling) == folds.count(identity)
    assert folds.forward_macs(tied) - folds.forward_macs(pooling) == 2 * 2 * 16 * 4 * 8
    assert len(folds.branches(identity)) == len(folds.branches(tied)) == 4
    assert len(folds.dropout_sites(identity)) == 4 and len(folds.dropout_sites(tied)) == 8


def test_a_model_without_a_token_mixing_kernel_trains_to_its_end_and_is_shown(run: Any, tmp_path: Path) -> None:
    grid = {"model.token_mixing": list(WITHOUT_MLP), "backend": backends.names(), "seed": 0}
    write_yaml(tmp_path / "a.yaml", base=base(), grid=grid)
    ended: Ended = run("run", "a.yaml")
    assert ended.code == 0, ended.err
    by_id = records(tmp_path / "runs")
    assert [record["status"] for record in by_id.values()] == ["done"] * 2 * len(backends.names())
    shown: Ended = run("show", next(iter(by_id)))
    assert shown.code == 0 and "MixerBlock_0/LayerNorm_0" in shown.out and "token_mixing/Dense_0" not in shown.out
    assert run("report", "a").code == 0
