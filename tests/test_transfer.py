"""Weights that another model begins with: what is kept, drawn anew, expanded, interpolated, or refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from backends.arrays import Array, State
from backends.models import folds, mixer
from backends.models.config import ModelConfig
from backends.models.family import Misfit
from backends.models.mixer_spec import MixerSpec
from backends.models.mixer_transfer import expanded, interpolated, sub_images
from backends.models.transfer import transfer

FIXTURE = Path(__file__).parent / "fixtures" / "highres_example.npz"


def spec(size: int = 8, **model: Any) -> MixerSpec:
    """A small model of patches of 2 pixels, for images of a size."""
    config = ModelConfig(**{"patch_size": 2, "hidden_dim": 8, "num_blocks": 2, "tokens_mlp_dim": 3, **model})
    return mixer.plain(mixer.make(config, size, 3, 5))


def some(model: MixerSpec, seed: int = 0) -> State:
    """Parameters none of which is a round number."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in folds.shapes(model).items()}


def test_token_mixing_is_expanded_as_in_the_worked_example() -> None:
    example = np.load(FIXTURE)
    places, hidden = sub_images(2, 2), np.arange(12).reshape(4, 3)
    assert np.array_equal(places, example["token_index"])
    axes = {"W1": (places, hidden), "b1": (hidden,), "W2": (hidden, places), "b2": (places,)}
    for name, own in axes.items():
        assert np.array_equal(
            expanded(example[name], own).reshape(example[f"{name}_large"].shape), example[f"{name}_large"]
        )


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("old", "new"), [(4, 7), (3, 6), (6, 3), (1, 2), (2, 1), (5, 5)])
def test_a_position_embedding_is_interpolated_as_by_scipy(old: int, new: int, first: int) -> None:
    table = np.random.default_rng(old).normal(size=(first + old * old, 3))
    grid = ndimage.zoom(table[first:].reshape(old, old, 3), (new / old, new / old, 1), order=1)
    expected = np.concatenate([table[:first], grid.reshape(new * new, 3)])
    np.testing.assert_allclose(interpolated(table, new, first), expected, rtol=0, atol=1e-14)


def mixed(operator: str, model: MixerSpec, params: State, x_sc: Array) -> Array:
    """The token mixing of block 0, in float64, without its norm; written anew, tokens in raster order."""
    own = {name.removeprefix("MixerBlock_0/token_mixing/"): value for name, value in params.items()}
    if operator in ("linear", "random"):
        if operator == "random":
            return np.asarray(own["random/matrix"] @ x_sc)
        return np.asarray((x_sc.T @ own["Dense_0/kernel"] + own["Dense_0/bias"]).T)
    if operator == "gating":
        return np.asarray((x_sc.T @ own["gate/kernel"] + own["gate/bias"]).T)
    if operator == "untied":
        hidden = np.maximum(np.einsum("sc,csd->cd", x_sc, own["Dense_0/kernel"]) + own["Dense_0/bias"], 0)
        return np.asarray(np.einsum("cd,cds->sc", hidden, own["Dense_1/kernel"]) + own["Dense_1/bias"].T)
    (s, c), groups = x_sc.shape, model.token_groups
    rows = x_sc.reshape(s, c // groups, groups).transpose(0, 2, 1).reshape(s * groups, c // groups)
    hidden = np.maximum(rows.T @ own["Dense_0/kernel"] + own["Dense_0/bias"], 0)
    out = (hidden @ own["Dense_1/kernel"] + own["Dense_1/bias"]).T
    return np.asarray(out.reshape(-1, groups, c // groups).transpose(0, 2, 1).reshape(-1, c))


def cut(x_sc: Array, factor: int) -> list[Array]:
    """The tokens of each sub-image, cut out of the grid by rows and columns."""
    side = round(len(x_sc) ** 0.5)
    grid, part = x_sc.reshape(side, side, -1), side // factor
    corners = [(i * part, j * part) for i in range(factor) for j in range(factor)]
    return [grid[i : i + part, j : j + part].reshape(part * part, -1) for i, j in corners]


@pytest.mark.parametrize(
    ("operator", "more"),
    [
        ("tied", {}),
        ("untied", {}),
        ("grouped", {"token_groups": 4}),
        ("linear", {}),
        ("gating", {}),
        ("random", {}),
        ("tied", {"pyramid": (0,)}),
    ],
)
@pytest.mark.parametrize("factor", [2, 3])
def test_an_expanded_model_mixes_each_sub_image_as_the_small_one_did(
    operator: str, more: dict[str, Any], factor: int
) -> None:
    small = spec(8, token_mixing=operator, **more)
    large = spec(8 * factor, token_mixing=operator, tokens_mlp_dim=factor**2 * 3, **more)
    params = some(small)
    found = transfer(small, large).params(params, some(large))
    assert {name: value.shape for name, value in found.items()} == folds.shapes(large)
    x_sc = np.random.default_rng(1).normal(size=(16 * factor**2, 8))
    whole = mixed(operator, large, found, x_sc)
    for part, own in zip(cut(x_sc, factor), cut(whole, factor), strict=True):
        np.testing.assert_allclose(own, mixed(operator, small, params, part), rtol=0, atol=1e-12)


def test_untied_channel_mixing_is_that_of_the_token_in_its_sub_image() -> None:
    small, large = (spec(size, token_mixing="pooling", channel_mixing="untied") for size in (4, 8))
    params, name = some(small), "MixerBlock_1/channel_mixing/Dense_0/kernel"
    found = transfer(small, large).params(params, {})[name]
    for own in cut(found, 2):
        assert np.array_equal(own.reshape(params[name].shape), params[name])


def test_only_what_follows_from_the_resolution_changes() -> None:
    small = spec(8, token_mixing=["tied", "attention"], num_heads=2, position_embedding="learned")
    large = replace(small, image_size=16, tokens_mlp_dim=12, num_classes=9)
    found, params, drawn = transfer(small, large), some(small), some(large, seed=7)
    made, head = found.params(params, drawn), {"head/kernel", "head/bias"}
    changed = {
        name
        for name in params
        if made[name].shape != params[name].shape or not np.array_equal(made[name], params[name])
    }
    mlp = {f"MixerBlock_0/token_mixing/Dense_{i}/{part}" for i in (0, 1) for part in ("kernel", "bias")}
    assert changed == {*mlp, *head, "position_embedding"}
    assert all(made[name] is drawn[name] for name in head)
    assert found.text.endswith(
        "position_embedding interpolated from 4 x 4 to 8 x 8, 4 arrays expanded block-diagonally, K = 2, "
        "head drawn anew (9 classes, there 5)"
    )
    assert found.otherwise == [] and transfer(small, replace(small, activation="gelu")).otherwise == [
        "activation gelu, there gelu_tanh"
    ]


def test_the_head_of_as_many_classes_is_kept() -> None:
    assert transfer(spec(), spec()).names == {"kept": list(folds.shapes(spec()))}


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ({}, {"size": 16}, r"model.tokens_mlp_dim: .*K = 2 .*4 of the weights' MLPs, of D_S 3; expected 12, got 3"),
        ({}, {"size": 12}, r"data.image_size: tied of weights for 8 pixels .*multiple.*got 12"),
        ({"size": 16}, {"size": 8}, r"data.image_size: tied of weights for 16 pixels .*got 8"),
        ({}, {"hidden_dim": 16}, r"model.hidden_dim: expected 8, as the weights have, got 16"),
        ({}, {"num_blocks": 3}, r"model.num_blocks: expected 2"),
        (
            {},
            {"tokens_mlp_dim": 5},
            r"token_mixing/Dense_0/kernel has shape \(16, 3\) .*tokens_mlp_dim 3, and this one 5",
        ),
        ({}, {"norm": "rms"}, r"RMSNorm_0/scale is not among the weights.*norm layer, and this one rms"),
        ({"position_embedding": "learned"}, {}, r"position_embedding is among the weights"),
        ({"token_mixing": "linear"}, {"token_mixing": "tied"}, r"model.token_mixing: expected linear.*got tied"),
        (
            {"token_mixing": "attention", "num_heads": 2},
            {"token_mixing": "attention", "num_heads": 4},
            r"model.num_heads: expected 2",
        ),
        ({"pool": "cls"}, {"pool": "cls", "size": 16}, r"model.pool: a class token is in no sub-image"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(before: dict[str, Any], after: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Misfit, match=sentence):
        transfer(spec(**before), spec(**after))


def test_a_model_without_weights_by_tokens_takes_any_resolution() -> None:
    small = spec(8, token_mixing="attention", pool="cls", position_embedding="learned")
    assert set(transfer(small, replace(small, image_size=12)).names) == {"kept", "interpolated from 4 x 4 to 6 x 6"}
