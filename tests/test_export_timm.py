"""Exported folders as timm itself loads them; it is none of the tests' packages, and make test-timm installs it."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from analysis.export import hf
from backends.torch import peers
from experiments.results.store import Store
from tests.kept_models import keep, random_params, trial
from tests.test_export_models import S32, logits, pixels, single

pytestmark = pytest.mark.skipif("MIXLAB_TIMM" not in os.environ, reason="needs timm: make test-timm")
# Of the largest logit, both in float64; seen: 2.2e-15 (S/32).
TOLERANCE = 1e-12
SIZES: dict[str, dict[str, Any]] = {
    "S/32": {**S32, "num_classes": 10},
    "S/16, grey": {**S32, "patch_size": 16, "image_channels": 1, "num_classes": 10, "tokens_mlp_dim": 29},
    "small": {"activation": "gelu"},
    "gelu_tanh": {"activation": "gelu_tanh", "tokens_mlp_dim": 29, "hidden_dim": 49},
    "relu, epsilon": {"activation": "relu", "norm_epsilon": 0.1, "image_size": 12, "image_channels": 3},
}


def of_timm(module: nn.Module, images: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """The logits of timm's model in float64, of pixels scaled as the folder's config says."""
    mean, std = (np.array(config["pretrained_cfg"][name]) for name in ("mean", "std"))
    scaled = torch.tensor((images / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        return module.double().eval()(scaled).numpy()


@pytest.mark.parametrize("name", SIZES)
def test_timm_gives_the_logits_of_the_model(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = peers.import_timm("timm")
    of, store = trial(**SIZES[name]), Store(tmp_path / "runs")
    params, images = random_params(of), pixels(of, 5)
    hf.export(store, single(keep(store, of, params)), tmp_path / "out")
    config = json.loads((tmp_path / "out" / hf.CONFIG).read_text())
    monkeypatch.chdir(tmp_path / "out")
    (code,) = python_blocks((tmp_path / "out" / hf.CARD).read_text())
    assert ("timm.create_model" in code) == ("mixer_" in config["architecture"])
    names: dict[str, Any] = {"timm": timm, "partial": partial, "nn": nn}
    exec(code, names)
    made = of_timm(names["model"], images, config)
    expected = logits(of, params, images)
    apart = np.abs(made - expected).max()
    print(f"{name}: {apart:.1e} on logits up to {np.abs(expected).max():.1f}")
    assert apart <= TOLERANCE * np.abs(expected).max()


def python_blocks(text: str) -> list[str]:
    return [part.partition("```")[0] for part in text.split("```python\n")[1:]]
