"""The authors' Mixer and ViT in Flax, which `mixlab bench` times beside ours."""

import importlib.util
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from backends.bench import VIT, PeerInfo
from backends.contract import ArrayDataset
from backends.errors import MixlabError
from backends.jax import peer_vit
from backends.jax.augment import scale
from backends.jax.device import check, open_device, peak_memory_bytes, set_numerics
from backends.jax.traced import DTYPES
from backends.models.mixer_spec import MixerSpec
from backends.specs import OptimizerSpec, RunSpec

PEERS = {
    "official-flax": PeerInfo(
        "gelu_tanh", "git clone https://github.com/google-research/vision_transformer, named by --peer-path"
    ),
    "big_vision-vit": PeerInfo("gelu_tanh", "pip install flax", VIT),
}
_FILE = "vit_jax/models_mixer.py"


def open_peer(
    name: str, model: MixerSpec, optimizer: OptimizerSpec, data: ArrayDataset, run: RunSpec, path: Path | None
) -> "Peer":
    """A model of this table on one batch; see bench.Peers."""
    set_numerics(run)
    check(run)
    if run.precision not in ("float32", "tf32"):
        raise MixlabError(
            f"bench: --peer {name}: expected float32 or tf32 for the authors' Flax model, got {run.precision}"
        )
    of_vit = name == "big_vision-vit"
    return Peer(peer_vit.VisionTransformer(model) if of_vit else _official(model, name, path), optimizer, data, run)


class Peer:
    """A model whose step is jitted with donated arguments and called from Python; see bench.Measured."""

    def __init__(self, module: Any, optimizer: OptimizerSpec, data: ArrayDataset, run: RunSpec):
        self.device = open_device(run.device)
        images = scale(jnp.asarray(data.images), jnp.float32)
        self.images_bhwc, self.labels = jax.device_put((images, jnp.asarray(data.labels)), self.device)
        self.params = module.init(jax.random.key(0), self.images_bhwc[:1], train=True)
        rule = optax.adamw(np.float32(1e-3), optimizer.b1, optimizer.b2, weight_decay=optimizer.weight_decay)
        self.moments = rule.init(self.params)

        def loss(params: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
            logits = module.apply(params, images, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        @partial(jax.jit, donate_argnums=(0, 1))
        def step(params: Any, moments: Any, images: jax.Array, labels: jax.Array) -> Any:
            value, gradient = jax.value_and_grad(loss)(params, images, labels)
            update, moments = rule.update(gradient, moments, params)
            return optax.apply_updates(params, update), moments, value

        self.precision, self.module = DTYPES[run.precision][2], module
        with jax.default_matmul_precision(self.precision), jax.default_device(self.device):
            self.step = step.lower(self.params, self.moments, self.images_bhwc, self.labels).compile()

    @cached_property
    def forward(self) -> Any:
        """The forward pass, compiled when it is first wanted, so that training does not wait for it."""
        forward = jax.jit(lambda params, images: self.module.apply(params, images, train=False))
        with jax.default_matmul_precision(self.precision), jax.default_device(self.device):
            return forward.lower(self.params, self.images_bhwc).compile()

    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.params, self.moments, loss = self.step(self.params, self.moments, self.images_bhwc, self.labels)
        float(loss)

    def predict(self, num_batches: int) -> None:
        for _ in range(num_batches):
            logits = self.forward(self.params, self.images_bhwc)
        logits.block_until_ready()

    def peak_memory_bytes(self) -> int | None:
        return peak_memory_bytes(self.device)


def _official(model: MixerSpec, name: str, path: Path | None) -> Any:
    """The authors' module, from one file of a clone: its package imports more than the model needs."""
    if path is None or not (path / _FILE).is_file():
        got = "none" if path is None else f"{path}, which has no {_FILE}"
        raise MixlabError(
            f"bench: --peer {name}: expected a clone at --peer-path, got {got}; get one with: {PEERS[name].how_to_get}"
        )
    spec = importlib.util.spec_from_file_location("models_mixer", path / _FILE)
    assert spec is not None and spec.loader is not None  # it is a file of Python
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise MixlabError(f"bench: --peer {name}: it needs the package {error.name!r}; install it with pip") from error
    return module.MlpMixer(
        patches=SimpleNamespace(size=(model.patch_size, model.patch_size)),
        num_classes=model.num_classes,
        num_blocks=model.num_blocks,
        hidden_dim=model.hidden_dim,
        tokens_mlp_dim=model.tokens_mlp_dim,
        channels_mlp_dim=model.channels_mlp_dim,
    )
