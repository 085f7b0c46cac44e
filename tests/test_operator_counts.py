"""Each operator and axis of the block costs what a formula says that is written by hand, not taken from the layers."""

import math
from typing import Any

import pytest

from backends.models import folds
from backends.models.mixer_rules import plain
from backends.models.mixer_spec import TOKEN_MIXING, MixerSpec
from backends.models.summary import model_summary

S, C, D_S, D_C, K, BLOCKS, HEADS, SIDE, GROUPS = 16, 16, 10, 24, 5, 2, 4, 5, 2
FIELDS: dict[str, dict[str, Any]] = {
    "attention": {"num_heads": HEADS},
    "depthwise": {"kernel_size": SIDE},
    "grouped": {"token_groups": GROUPS},
    "grouped_views": {"token_groups": GROUPS},
}
MLP = (2 * S * D_S + D_S + S, 2 * S * D_S * C)
GROUPED = (2 * S * GROUPS * D_S + D_S + S * GROUPS, 2 * S * D_S * C)
# Of one block's token mixing: trained numbers, and multiply-accumulates of an image.
TOKEN_COSTS: dict[str, tuple[int, int]] = {
    "tied": MLP,
    "untied": (C * MLP[0], MLP[1]),
    "grouped": GROUPED,
    "grouped_views": (GROUPED[0] + C * C, GROUPED[1] + S * C * C),
    "attention": (4 * (C * C + C), 4 * S * C * C + 2 * S * S * C),  # four products; scores, and what they weigh
    "gating": (
        (C * D_C + D_C) + D_C + (S * S + S) + (D_C // 2 * C + C),
        S * C * D_C + S * S * D_C // 2 + S * D_C // 2 * C,
    ),
    "linear": (S * S + S, S * S * C),
    "pooling": (0, 0),  # sums alone
    "identity": (0, 0),
    "fourier": (0, 2 * S * S * C + 2 * S * C * C),  # cosines and sines of tokens, and of channels
    "random": (0, S * S * C),  # its matrix is drawn once
    "depthwise": (SIDE * SIDE * C + C, S * SIDE * SIDE * C),
    "shift": (0, 0),
}
CHANNEL_COSTS = (2 * C * D_C + D_C + C, 2 * S * C * D_C)
NORM = 2 * C
OUTSIDE = (48 * C + C) + NORM + (C * K + K), S * 48 * C + C * K  # stem, norm before the head, head


def spec(**fields: Any) -> MixerSpec:
    return MixerSpec(**{**SIZES, **FIELDS.get(str(fields.get("token_mixing")), {}), **fields})


SIZES: dict[str, Any] = {
    "image_size": 16,
    "image_channels": 3,
    "num_classes": K,
    "patch_size": 4,
    "hidden_dim": C,
    "num_blocks": BLOCKS,
    "tokens_mlp_dim": D_S,
    "channels_mlp_dim": D_C,
}


def test_every_operator_has_a_formula() -> None:
    assert tuple(TOKEN_COSTS) == TOKEN_MIXING


@pytest.mark.parametrize("operator", TOKEN_MIXING)
def test_an_operator_costs_what_its_formula_says(operator: str) -> None:
    model, whole = spec(token_mixing=operator), operator == "gating"  # its block has one norm, and no channel MLP
    params, macs = TOKEN_COSTS[operator]
    rest = (NORM, 0) if whole else (2 * NORM + CHANNEL_COSTS[0], CHANNEL_COSTS[1])
    assert folds.count(model) == OUTSIDE[0] + BLOCKS * (params + rest[0])
    assert folds.forward_macs(model) == OUTSIDE[1] + BLOCKS * (macs + rest[1])


@pytest.mark.parametrize(
    ("fields", "more", "more_macs"),
    [
        ({"norm": "affine"}, 0, 0),
        ({"norm": "rms"}, -C * (2 * BLOCKS + 1), 0),
        ({"norm_place": "post"}, 0, 0),
        ({"layer_scale": 1e-4}, 2 * BLOCKS * C, 0),
        ({"channel_mixing": "none"}, -BLOCKS * (NORM + CHANNEL_COSTS[0]), -BLOCKS * CHANNEL_COSTS[1]),
        (
            {"channel_mixing": "none", "layer_scale": 1e-4},
            -BLOCKS * (NORM + CHANNEL_COSTS[0] - C),
            -BLOCKS * CHANNEL_COSTS[1],
        ),
        ({"pool": "cls"}, C + BLOCKS * (2 * D_S + 1), BLOCKS * 2 * (D_S * C + C * D_C)),
        ({"position_embedding": "learned"}, S * C, 0),
        ({"position_embedding": "sincos2d"}, 0, 0),
        ({"representation": True}, C * C + C, C * C),
        ({"stem": "overlap"}, (7 * 7 - 4 * 4) * 3 * C, S * (7 * 7 - 4 * 4) * 3 * C),
        ({"share_token_mixing": True}, -MLP[0], 0),
        ({"share_channel_mixing": True}, -CHANNEL_COSTS[0], 0),
        ({"share_blocks": True}, -(2 * NORM + MLP[0] + CHANNEL_COSTS[0]), 0),
    ],
    ids=str,
)
def test_an_axis_of_the_block_adds_what_its_formula_says(fields: dict[str, Any], more: int, more_macs: int) -> None:
    usual, model = spec(), spec(**fields)
    assert folds.count(model) - folds.count(usual) == more
    assert folds.forward_macs(model) - folds.forward_macs(usual) == more_macs


def test_a_pyramid_costs_less_from_its_block_on() -> None:
    """Block 1 of 3 takes 16 tokens to 4: its second Dense gives 4, its channel MLP and block 2 have 4."""
    model, few = spec(num_blocks=3, pyramid=(1,)), S // 4
    to_few = (S * D_S + D_S + D_S * few + few, (S * D_S + D_S * few) * C)
    of_few = (2 * few * D_S + D_S + few, 2 * few * D_S * C)
    assert folds.count(model) == OUTSIDE[0] + MLP[0] + to_few[0] + of_few[0] + 3 * (2 * NORM + CHANNEL_COSTS[0])
    channels = CHANNEL_COSTS[1] + 2 * CHANNEL_COSTS[1] // 4
    assert folds.forward_macs(model) == OUTSIDE[1] + MLP[1] + to_few[1] + of_few[1] + channels


def test_attention_is_quadratic_in_tokens_and_an_mlp_over_them_linear() -> None:
    """Four times the tokens, at images of twice the side."""

    def mixing_macs(operator: str, image_size: int) -> int:
        layers = folds.layers(spec(token_mixing=operator, image_size=image_size))
        return sum(layer.macs for layer in layers if layer.name.endswith(("heads", "token_mixing/Dense_0", "Dense_1")))

    parts = {one: [mixing_macs(one, size) for size in (16, 32)] for one in ("attention", "tied", "linear")}
    for operator, times in (("tied", 4), ("linear", 16)):
        few, many = (macs - _channel_macs(16 * 4**i) for i, macs in enumerate(parts[operator]))
        assert many == times * few
    assert parts["attention"][1] - _channel_macs(64) == 16 * (parts["attention"][0] - _channel_macs(16))


def _channel_macs(tokens: int) -> int:
    """Of the second Dense of each channel MLP, whose name ends as those of token mixing do."""
    return BLOCKS * tokens * D_C * C


@pytest.mark.parametrize(
    ("fields", "simpler"),
    [
        ({"token_mixing": ("tied", "tied")}, {"token_mixing": "tied"}),
        ({"token_mixing": ("attention", "attention"), "num_heads": 2}, {"token_mixing": "attention", "num_heads": 2}),
        ({"token_mixing": ("grouped", "tied"), "token_groups": 1}, {}),
        ({"num_heads": 4}, {}),
        ({"kernel_size": 7}, {}),
        ({"token_mixing": "gating", "channel_mixing": "none"}, {"token_mixing": "gating"}),
        ({"pyramid": ()}, {}),
        ({"cls_position": False}, {}),
    ],
    ids=str,
)
def test_two_ways_to_say_one_model_are_one_spec(fields: dict[str, Any], simpler: dict[str, Any]) -> None:
    assert plain(spec(**fields)) == plain(spec(**simpler))


def test_different_models_stay_different() -> None:
    base = {"pool": "cls", "position_embedding": "learned"}
    different = [
        spec(token_mixing="attention", num_heads=2),
        spec(token_mixing="attention", num_heads=4),
        spec(token_mixing=("attention", "tied")),
        spec(token_mixing=("tied", "attention")),
        spec(token_mixing="depthwise", kernel_size=3),
        spec(token_mixing="depthwise", kernel_size=5),
        spec(token_mixing="gating", channels_mlp_dim=24),
        spec(token_mixing="gating", channels_mlp_dim=48),
        spec(pyramid=(0,)),
        spec(pyramid=(1,)),
        spec(**base),
        spec(**base, cls_position=False),
    ]
    assert len({plain(one) for one in different}) == len(different)


def test_a_constant_matrix_is_in_the_state_and_counted_nowhere() -> None:
    random, identity = spec(token_mixing="random"), spec(token_mixing="identity")
    names = set(folds.shapes(random)) - set(folds.shapes(identity))
    assert names == {f"MixerBlock_{i}/token_mixing/random/matrix" for i in range(BLOCKS)}
    assert all(math.prod(folds.shapes(random)[name]) == S * S for name in names)
    assert folds.count(random) == folds.count(identity) == sum(layer.parameters for layer in model_summary(random))
