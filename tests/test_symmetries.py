"""What must not change: token mixing that knows no order, none at all, and two ways to say one model."""

from typing import Any

import numpy as np
import pytest

import backends
from backends.arrays import Array, State
from backends.contract import ArrayDataset, Program
from backends.models import folds
from backends.models.mixer_spec import MixerSpec
from backends.plan import StepPlan
from backends.specs import OptimizerSpec, RunSpec
from backends.state import draw_state
from experiments.data import pixel_order
from experiments.spec.config import ModelConfig, TrialConfig
from experiments.spec.resolve import resolve
from experiments.spec.trial import DataInfo

SIDE, PATCH, BATCH, STEPS = 8, 2, 4, 2
TOKENS = (SIDE // PATCH) ** 2
OPTIMIZER = OptimizerSpec("sgd")
IMAGES = np.random.default_rng(0).normal(size=(BATCH, SIDE, SIDE, 1))
# In float64; a model that knows the order of tokens moves logits of order 1 by 1e-2 and more.
SAME, OTHER = 1e-12, 1e-4


def model(token_mixing: str, **fields: Any) -> MixerSpec:
    sizes = {"hidden_dim": 8, "num_blocks": 1, "tokens_mlp_dim": 6, "channels_mlp_dim": 12, "num_heads": 2}
    return MixerSpec(SIDE, 1, 3, PATCH, **sizes, token_mixing=token_mixing, **fields)


def state(spec: MixerSpec) -> State:
    """Numbers that are all of order 1: the initial head is zero, and would hide everything."""
    generator = np.random.default_rng(1)
    drawn = draw_state(spec, OPTIMIZER, lambda name, shape: generator.random(shape))
    return drawn | {f"params/{name}": generator.normal(size=shape) for name, shape in folds.shapes(spec).items()}


def opened(backend: str, spec: MixerSpec, order: Array | None = None) -> Program:
    dataset = ArrayDataset(IMAGES, np.arange(BATCH, dtype=np.int32) % 3, order)
    program = backends.load(backend).open(spec, OPTIMIZER, dataset, RunSpec(precision="float64"))
    program.load([state(spec)])
    return program


def losses(program: Program) -> Array:
    """Of some steps."""
    examples = np.tile(np.arange(BATCH, dtype=np.int32), (STEPS, 1))
    return program.train([StepPlan(0, np.full(STEPS, 0.1), np.ones((STEPS, 2)), examples)])[0].loss


# Of an image of permuted patches, the source of each pixel; and of a patch, the place of each in its source.
ORDER = pixel_order("patches", SIDE, PATCH, 5)
assert ORDER is not None
WITHIN = (ORDER // SIDE % PATCH * PATCH + ORDER % PATCH).reshape(SIDE, SIDE)[:PATCH, :PATCH].ravel()


def permuted(spec: MixerSpec) -> State:
    """The state whose stem reads the pixels of permuted patches as the other's reads them in their order."""
    own = state(spec)
    kernel = own["params/stem/kernel"].reshape(PATCH * PATCH, -1)[WITHIN]
    return own | {"params/stem/kernel": kernel.reshape(own["params/stem/kernel"].shape)}


# Operator, options, and whether the order of tokens is nothing to it.
MODELS: dict[str, tuple[MixerSpec, bool]] = {
    "attention": (model("attention"), True),
    "attention, cls": (model("attention", pool="cls"), True),
    "attention, learned": (model("attention", position_embedding="learned"), False),
    "identity": (model("identity"), True),
    "tied": (model("tied"), False),
}
BOTH = (
    "attention",
    "tied",
)  # of the others, torch alone: JAX compiles for a second, and the parity ladder holds it to torch


@pytest.mark.parametrize(
    ("case", "backend"), [(case, one) for case in MODELS for one in backends.names() if one == "torch" or case in BOTH]
)
def test_attention_without_positions_takes_tokens_in_any_order_and_an_mlp_over_them_does_not(
    case: str, backend: str
) -> None:
    spec, any_order = MODELS[case]
    program = opened(backend, spec)
    first = program.predict(IMAGES)[0].logits
    program.load([permuted(spec)])
    second = program.predict(IMAGES.reshape(BATCH, -1)[:, ORDER].reshape(IMAGES.shape))[0].logits
    moved = np.abs(first - second).max() / np.abs(first).max()
    assert moved < SAME if any_order else moved > OTHER


@pytest.mark.parametrize(("operator", "any_order"), [("attention", True), ("tied", False)])
def test_a_permutation_of_patches_changes_nothing_of_how_attention_learns(operator: str, any_order: bool) -> None:
    """In torch alone; see BOTH."""
    usual, other = (opened("torch", model(operator), order) for order in (None, ORDER))
    other.load([permuted(model(operator))])
    first, second = losses(usual), losses(other)
    moved = np.abs(first - second).max() / np.abs(first).max()
    assert moved < SAME if any_order else moved > OTHER
    assert first[0] != first[1]  # it learns


@pytest.mark.parametrize(("operator", "mixes"), [("identity", False), ("pooling", True)])
def test_identity_mixes_nothing(operator: str, mixes: bool) -> None:
    """Features are the mean over patches of those of images that are this patch everywhere. In torch; see BOTH."""
    program = opened("torch", model(operator))
    tokens = IMAGES.reshape(BATCH, SIDE // PATCH, PATCH, SIDE // PATCH, PATCH).transpose(0, 1, 3, 2, 4)
    patches = tokens.reshape(BATCH * TOKENS, PATCH, PATCH, 1)
    whole = np.tile(patches, (1, SIDE // PATCH, SIDE // PATCH, 1))
    alone = program.predict(whole)[0].features.reshape(BATCH, TOKENS, -1).mean(1)
    moved = np.abs(program.predict(IMAGES)[0].features - alone).max()
    assert moved > OTHER if mixes else moved < SAME


Words = dict[str, Any]


def trial_id(**fields: Any) -> str:
    """The id of a trial with these fields of the model."""
    config = TrialConfig(ModelConfig(num_blocks=2, hidden_dim=16, **fields))
    return str(resolve(config, DataInfo("content", 8, 1, 3, 400, 10, 10), "test").id)


@pytest.mark.parametrize(
    ("fields", "simpler"),
    [
        ({"token_mixing": ("attention", "attention")}, {"token_mixing": "attention"}),
        ({"token_mixing": ("tied", "tied")}, {}),
        ({"pyramid": ()}, {}),
        ({"pyramid": (1, 0)}, {"pyramid": (0, 1)}),
        ({"token_mixing": "gating", "channel_mixing": "none"}, {"token_mixing": "gating"}),
        ({"num_heads": 4}, {}),
        ({"norm": "layer", "norm_place": "pre", "layer_scale": 0.0, "init": "mixer"}, {}),
    ],
    ids=str,
)
def test_two_ways_to_say_one_model_have_one_id(fields: Words, simpler: Words) -> None:
    assert trial_id(**fields) == trial_id(**simpler)


def test_each_option_of_the_block_has_an_id_of_its_own() -> None:
    options: list[Words] = [
        {},
        {"token_mixing": ("tied", "attention")},
        {"token_mixing": ("attention", "tied")},
        {"pyramid": (0,)},
        {"pyramid": (1,)},
        {"norm": "rms"},
        {"norm": "affine"},
        {"norm_place": "post"},
        {"layer_scale": 0.1},
        {"layer_scale": 0.2},
        {"pool": "cls"},
        {"stem": "overlap"},
        {"init": "vit"},
        {"representation": True},
        {"share_token_mixing": True},
        {"share_channel_mixing": True},
        {"position_embedding": "sincos2d"},
        *({"token_mixing": name} for name in ("attention", "gating", "linear", "fourier", "random", "shift")),
        {"token_mixing": "depthwise"},
        {"token_mixing": "depthwise", "kernel_size": 5},
    ]
    assert len({trial_id(**fields) for fields in options}) == len(options)
