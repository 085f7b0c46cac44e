"""Other people's Mixers and ViT in PyTorch, which `mixlab bench` times beside ours."""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from backends.bench import VIT, PeerInfo
from backends.contract import ArrayDataset
from backends.errors import MixlabError
from backends.models.mixer_spec import MixerSpec
from backends.specs import OptimizerSpec, RunSpec
from backends.torch import peer_vit
from backends.torch.augment import scale
from backends.torch.device import check, open_device, peak_memory_bytes, set_numerics
from backends.torch.program import DTYPES
from backends.weights.timm import arguments

PEERS = {
    "timm": PeerInfo("gelu", "pip install timm"),
    "timm-compile": PeerInfo("gelu", "pip install timm"),
    "lucidrains": PeerInfo("gelu", "pip install mlp-mixer-pytorch"),
    "timm-vit": PeerInfo("gelu", "pip install timm", VIT),
}


def open_peer(
    name: str, model: MixerSpec, optimizer: OptimizerSpec, data: ArrayDataset, run: RunSpec, path: Path | None
) -> "Peer":
    """A model of this table on one batch; see bench.Peers."""
    check(run)
    set_numerics(run)
    make = {"lucidrains": _lucidrains, "timm-vit": _timm_vit}.get(name, _timm)
    return Peer(make(model), name.endswith("-compile"), optimizer, data, run)


class Peer:
    """A model in the plain loop of PyTorch's tutorials, with the fused optimizer and autocast; see bench.Measured."""

    def __init__(self, module: nn.Module, compiled: bool, optimizer: OptimizerSpec, data: ArrayDataset, run: RunSpec):
        self.device = open_device(run.device)
        _, self.compute = DTYPES[run.precision]
        dtype = torch.float64 if run.precision == "float64" else torch.float32
        images_bhwc = scale(torch.tensor(data.images, device=self.device), dtype)
        self.images_bchw = images_bhwc.permute(0, 3, 1, 2).contiguous()
        self.labels = torch.tensor(data.labels, device=self.device).long()
        self.module = module.to(self.device, dtype)
        betas, decay = (optimizer.b1, optimizer.b2), optimizer.weight_decay
        self.optimizer = torch.optim.AdamW(self.module.parameters(), 1e-3, betas, weight_decay=decay, fused=True)
        self.forward = torch.compile(self.module) if compiled else self.module

    def train(self, num_steps: int) -> None:
        for _ in range(num_steps):
            with self._precision():
                loss = F.cross_entropy(self.forward(self.images_bchw), self.labels)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        loss.item()

    @torch.inference_mode()
    def predict(self, num_batches: int) -> None:
        self.module.eval()
        for _ in range(num_batches):
            with self._precision():
                logits = self.forward(self.images_bchw)
        float(logits[0, 0])
        self.module.train()

    def peak_memory_bytes(self) -> int | None:
        return peak_memory_bytes(self.device)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.compute is torch.bfloat16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()


def _timm(model: MixerSpec) -> nn.Module:
    """The Mixer of timm."""
    with _missing("timm"):
        mixer = import_timm("timm.models.mlp_mixer").MlpMixer
    return mixer(**arguments(model))


def _timm_vit(model: MixerSpec) -> nn.Module:
    """The ViT of timm, and where timm is not installed, the same written after it."""
    if importlib.util.find_spec("timm") is None:
        return peer_vit.VisionTransformer(model)
    vit: nn.Module = import_timm("timm.models.vision_transformer").VisionTransformer(
        img_size=model.image_size,
        patch_size=model.patch_size,
        in_chans=model.image_channels,
        num_classes=model.num_classes,
        embed_dim=model.hidden_dim,
        depth=model.num_blocks,
        num_heads=model.num_heads,
        mlp_ratio=model.channels_mlp_dim / model.hidden_dim,
        class_token=False,
        global_pool="avg",
        fc_norm=False,
    )
    return vit


def import_timm(module: str) -> Any:
    """A module of timm, which needs torchvision for its data alone: where that is missing, a stand-in is imported."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_Torchvision())
    return importlib.import_module(module)


def _lucidrains(model: MixerSpec) -> nn.Module:
    """The Mixer of mlp-mixer-pytorch.

    Its expansion_factor is the ratio D_S / C of the token MLP, its expansion_factor_token the ratio D_C / C.
    """
    with _missing("lucidrains"):
        mixer = importlib.import_module("mlp_mixer_pytorch").MLPMixer
    return mixer(
        image_size=model.image_size,
        channels=model.image_channels,
        patch_size=model.patch_size,
        dim=model.hidden_dim,
        depth=model.num_blocks,
        num_classes=model.num_classes,
        expansion_factor=model.tokens_mlp_dim / model.hidden_dim,
        expansion_factor_token=model.channels_mlp_dim / model.hidden_dim,
    )


@contextlib.contextmanager
def _missing(name: str) -> Any:
    """Turn a missing package into a sentence.  Raises: MixlabError."""
    try:
        yield
    except ModuleNotFoundError as error:
        how = PEERS[name].how_to_get
        raise MixlabError(
            f"bench: --peer {name}: the package {error.name!r} is not installed; install it with: {how}"
        ) from error


class _Placeholder(type):
    """A class whose attributes are classes of the same kind."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(cls, name, _Placeholder(name, (), {}))
        return getattr(cls, name)


class _Torchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A stand-in for torchvision where it is missing: timm imports it for data, and timm's Mixer does not use it."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        is_ours = name.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_ours else None

    def create_module(self, spec: Any) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        names = _Placeholder(spec.name, (), {})
        module.__getattr__ = lambda name: getattr(names, name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass
