"""The estimate by which a trial is admitted holds for the memory that its process really takes.

The whole table of bench/memory.py is measured by `make test-memory`; a part of it runs with the other tests.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from backends.footprint import EVALUATION, SAVING, STEP, Work, needs
from experiments.bench import config, memory
from experiments.doctor.memory import HIGH, LOW
from experiments.running import fit, storage

# A part of the table that is trained in seconds; see analysis/results/memory.md for all of it.
SHORT = [("torch", "float32"), ("torch", "bfloat16"), ("torch", "dropout"), ("jax", "dropout")]
ALL = [(backend, name) for name in memory.EIGHT for backend in ("torch", "jax")]
WHOLE_TABLE = "MIXLAB_MEMORY" in os.environ  # make test-memory


@pytest.mark.parametrize(("backend", "name"), ALL if WHOLE_TABLE else SHORT)
def test_the_estimate_is_near_the_peak_of_the_process_which_leaves_nothing_behind(
    backend: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    measured = memory.measure(name, backend)
    print(f"{backend} {name}: {measured.estimate_bytes / 2**20:.0f} {measured.peak_bytes / 2**20:.0f} MiB")
    assert LOW <= measured.ratio <= HIGH, f"{measured.ratio:.2f}: {measured}"
    assert not list(tmp_path.iterdir())


def test_an_unknown_setting_is_a_sentence() -> None:
    with pytest.raises(MixlabError, match=r"expected a setting, got 'float23'; .* did you mean 'float32'"):
        memory.measure("float23", "torch")


def test_a_trial_that_fails_says_why() -> None:
    with pytest.raises(MixlabError, match=r"memory: trial \w+ failed: .*(CUDA|run\.device)"):
        memory.measure("float32", "torch", "cuda:9")


def of(overrides: Mapping[str, Any], **work: Any) -> dict[str, Any]:
    """The needs at each peak, by its name, of the cifar model."""
    trial = config.trial("cifar", [f"{name}={value}" for name, value in overrides.items()])
    given = Work(**{"precision": "float32", "batch_size": 128, "evaluation_size": 256, **work})
    return {need.peak: need for need in needs(trial.model, trial.optimizer, given)}


def test_masks_take_a_byte_an_element() -> None:
    plain, dropped = of({}, on_host=False)[STEP], of({"model.dropout": 0.1}, on_host=False)[STEP]
    tokens, c, hidden = 64, 128, 512
    masks = 8 * (64 * c + tokens * hidden + 2 * tokens * c)
    assert dropped.activations - plain.activations == 128 * (masks + 4 * tokens * hidden)


def test_a_norm_keeps_its_input_in_float32() -> None:
    """With bfloat16, everything else that is kept takes half."""
    single, half = (of({}, precision=p, on_host=False)[STEP].activations for p in ("float32", "bfloat16"))
    norms = 17 * 64 * 128 * 128 * 4
    assert half > single / 2 + norms / 4


def test_the_data_is_counted_unless_it_is_there_already() -> None:
    trial = config.trial("cifar")
    images = trial.info.num_train * 32 * 32 * 3
    there, new = fit.need(trial, on_host=False, is_placed=True), fit.need(trial, on_host=False)
    assert new.total - there.total == images
    host_there, host_new = fit.need(trial, on_host=True, is_placed=True), fit.need(trial, on_host=True)
    assert host_new.total - host_there.total == 2 * images, "the cache's file, and its copy"


def test_a_checkpoint_is_a_peak_of_the_host_alone() -> None:
    assert SAVING not in of({}, on_host=False)
    wide = of({"model.hidden_dim": 1024, "train.batch_size": 1}, batch_size=1, evaluation_size=1)
    assert max(wide.values(), key=lambda need: need.total).peak == SAVING
    assert of({})[EVALUATION].total < of({})[STEP].total


def test_replicas_share_the_data_and_nothing_else() -> None:
    one, three = (of({}, num_replicas=n, data_bytes=1000, on_host=False)[STEP] for n in (1, 3))
    assert (three.state, three.activations, three.data) == (3 * one.state, 3 * one.activations, one.data)


def test_microbatches_need_less_and_a_refusal_names_the_smallest_setting_that_fits() -> None:
    trial = config.trial("cifar", ["train.batch_size=512"])
    parts = [replace(trial, train=replace(trial.train, microbatches=number)) for number in (1, 2, 4, 8, 16)]
    needs = [fit.need(one, False).total for one in parts]
    assert needs == sorted(needs, reverse=True) and needs[-1] < needs[0] / 3
    remat = fit.need(replace(trial, run=replace(trial.run, remat=True)), False).total
    assert remat < needs[0]
    for free, words in (
        (needs[0] - 1, "run.remat=true would fit"),
        (needs[3], "run.remat=true and train.microbatches=2 (another trial)"),
    ):
        with pytest.raises(fit.DoesNotFit) as refused:
            fit.check(trial, free)
        assert words in str(refused.value) and "would fit, or take a device" in str(refused.value)


def test_processes_of_a_trial_share_the_memory_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = config.trial("cifar", ["train.batch_size=32", "train.microbatches=4", "run.devices=4", "run.device=cpu"])
    needed = fit.need(trial, True).total
    assert storage.needed_bytes(trial) == 4 * needed
    monkeypatch.setattr(fit.memory, "available_bytes", lambda: 4 * needed)
    assert fit.check(trial, None, num_processes=4) == needed
    monkeypatch.setattr(fit.memory, "available_bytes", lambda: 4 * needed - 1)
    with pytest.raises(fit.DoesNotFit, match="GiB are free for each of 4 processes"):
        fit.check(trial, None, num_processes=4)


def test_what_a_backend_knows_of_its_program_counts() -> None:
    trial = config.trial("cifar")
    assert fit.check(trial, 1000, known=1000) == 1000
    with pytest.raises(fit.DoesNotFit):
        fit.check(trial, 999, known=1000)


@pytest.mark.parametrize(
    ("overrides", "large", "less"),
    [
        ({}, "the activations", "run.remat=true, a smaller train.batch_size or model"),
        ({"model.channel_mixing": "untied", "train.batch_size": 1}, "the state", "a smaller model"),
    ],
)
def test_a_refusal_says_what_is_large(overrides: Mapping[str, Any], large: str, less: str) -> None:
    trial = config.trial("cifar", [f"{name}={value}" for name, value in overrides.items()])
    with pytest.raises(fit.DoesNotFit) as refused:
        fit.check(trial, 1)
    assert f"most of it is {large}" in str(refused.value) and less in str(refused.value)
    assert len(str(refused.value)) < 300
