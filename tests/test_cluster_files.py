"""Cluster files: what each key may say, what is refused, and which layer wins."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design import ablation
from experiments.design import trials as resolving
from experiments.design.ablation import GridTrial
from slurm.cluster import ClusterSpec
from slurm.cluster_file import read_cluster, stored_cluster
from slurm.cluster_keys import cluster_from, tree_of
from slurm.needs import Needs
from slurm.software import Container, EnvironmentSpec
from slurm.time_limit import limit_minutes
from tests.conftest import base, write_yaml

LONGEST = 300  # letters of a sentence


def read(folder: Path, text: str) -> ClusterSpec:
    """A cluster file of this text."""
    path = folder / "c.yaml"
    path.write_text(text)
    return read_cluster(path)


def refusal(folder: Path, text: str) -> str:
    """The sentence by which a cluster file is refused, without the file's name."""
    with pytest.raises(MixlabError) as caught:
        read(folder, text)
    sentence = str(caught.value)
    assert sentence.startswith(f"{folder / 'c.yaml'}: ") and len(sentence.splitlines()) == 1
    said = sentence.removeprefix(f"{folder / 'c.yaml'}: ")
    assert len(said) <= LONGEST, said
    return said


# --- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["time", "time_min"])
@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("1:00:00", 60),
        ("01:30:00", 90),
        ("0:00:30", 1),
        ("1:00:01", 61),
        ("100:00:00", 6000),
        ("2-0", 2880),
        ("1-12:30", 1440 + 12 * 60 + 30),
        ("2-00:00:00", 2880),
        ("'1:00:00'", 60),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(tmp_path: Path, key: str, text: str, minutes: int) -> None:
    """Source: sbatch(1), --time. YAML 1.1 reads some of these as numbers of base 60."""
    assert read(tmp_path, f"{key}: {text}").time == minutes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1:30", "time: 1:30 is 1 min 30 s to Slurm and 1 h 30 min to many; write minutes alone, or 1:30:00"),
        ("90:00", "time: 90:00 is 90 min 0 s to Slurm and 90 h 0 min to many"),
        ("0", "time: 0 is too small"),
        ("0:00:00", "time: '0:00:00' is too small"),
        ("1:75:00", "has 75 minutes"),
        ("1-30", "has 30 hours"),
        ("090", "time: '090' is not a time limit; expected minutes (90)"),
        ("1_000", "time: 1_000 is not a time limit"),
        ("1.5", "time: 1.5 is not a time limit"),
        ("2h", "time: '2h' is not a time limit"),
        ("-5", "time: -5 is not a time limit"),
        ("true", "time: true is not a time limit"),
        ("[1, 2]", "is not a time limit"),
        ("2024-01-05", "time: 2024-01-05 is not a time limit"),
    ],
)
def test_a_time_limit_of_two_readings_is_refused_with_both(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, f"time: {text}")


def test_the_old_name_of_time_stands_alone(tmp_path: Path) -> None:
    assert "time_min is the old name of time; give one" in refusal(tmp_path, "{time: 5, time_min: 5}")
    inner = "environments: {torch: {time: 5, time_min: 5}}"
    assert refusal(tmp_path, inner).startswith("environments: torch: time_min is the old name")


@pytest.mark.parametrize(
    ("shown", "minutes"), [("infinite", None), ("30:00", 30), ("1:00:00", 60), ("7-00:00:00", 10080), ("5", 5)]
)
def test_a_limit_that_slurm_shows_is_read(shown: str, minutes: int | None) -> None:
    assert limit_minutes(shown) == minutes


# --- options of sbatch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("cpus-per-task: 8", {"cpus": 8}),
        ("time: 2:00:00", {"time": 120}),
        ("partition: a", {"partition": "a"}),
        ("exclude: n1", {"exclude": "n1"}),
        ("mem: 8G", {"memory_gb": None}),
        ("mem-per-cpu: 4G", {"memory_gb": None}),
        ("mem-per-gpu: 4G", {"memory_gb": None}),
        ("gres: gpu:a100:2", {"gpus": 2}),
        ("gres: 'tmp:5G,gpu:1'", {"gpus": 1}),
        ("gres: gpu", {"gpus": 1}),
        ("gres: gpu:a100", {"gpus": 1}),
        ("gres: tmp:5G", {}),
        ("gpus-per-node: a100:4", {"gpus": 4}),
        ("gpus: 3", {"gpus": 3}),
        ("gpus-per-task: 2", {"gpus": 2}),
    ],
)
def test_an_option_that_a_key_says_too_is_what_the_job_needs(tmp_path: Path, text: str, needs: dict[str, Any]) -> None:
    assert read(tmp_path, f"sbatch: {{{text}}}").needs("torch") == Needs(**needs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{cpus: 2, sbatch: {cpus-per-task: 8}}", "sbatch: cpus-per-task and the key cpus ask for the same"),
        ("{memory_gb: 2, sbatch: {mem: 8G}}", "sbatch: mem and the key memory_gb ask for the same"),
        ("{time_min: 20, sbatch: {time: 10}}", "sbatch: time and the key time_min ask for the same"),
        ("{when: [{match: {seed: 1}, memory_gb: 9}], sbatch: {mem: 8G}}", "sbatch: mem and when: memory_gb"),
        ("{gpus: 1, sbatch: {gres: gpu:1}}", "a type of GPU has the key gpu_type"),
        ("{environments: {jax: {gpus: 1}}, sbatch: {gpus: 1}}", "sbatch: gpus and environments: jax: gpus ask for"),
        ("{sbatch: {mem: 1G, mem-per-cpu: 1G}}", "sbatch: mem and mem-per-cpu ask for the same"),
        ("{sbatch: {gpus: 1, gres: gpu:1}}", "sbatch: gpus and gres ask for the same"),
        (
            "{sbatch: {cpus-per-gpu: 4}}",
            "'cpus-per-gpu' leaves Mixlab not knowing what a job has; say it by the key 'cpus'",
        ),
        ("{sbatch: {container-mounts: /a}}", "say it by the key 'container'"),
        (
            "{sbatch: {gres: 'gpu:a:1,gpu:b:1'}}",
            "expected one type and a whole number of GPUs, such as gpu:a100:1, got 'gpu:a:1,gpu:b:1'",
        ),
        (
            "{sbatch: {gpus: many}}",
            "sbatch: gpus: expected one type and a whole number of GPUs, such as a100:1, got 'many'",
        ),
        ("{sbatch: {job-name: x}}", "sbatch: 'job-name' is set by Mixlab itself"),
        ("{sbatch: {quiet: true}}", "sbatch: 'quiet' is set by Mixlab itself"),
        ("{sbatch: {cpus-per-t: 8}}", "'cpus-per-t' is a part of a name; write it out: cpus-per-task"),
        ("{sbatch: {c: 8}}", "sbatch: 'c' is the short name of cpus-per-task; the key for it is 'cpus'"),
        ("{sbatch: {J: a}}", "sbatch: 'J' is the short name of job-name; Mixlab sets it itself"),
        ("{sbatch: {L: a}}", "sbatch: 'L' is the short name of licenses; write it out"),
        ("{sbatch: {pack: 8}}", "sbatch: 'pack' is a key of a cluster file; write it there, outside of sbatch"),
        ("{sbatch: {report: true}}", "sbatch: 'report' is a key of a cluster file"),
        ("{sbatch: {time_min: 8}}", "sbatch: 'time_min' is a key of a cluster file"),
        ("{sbatch: {mem-per-cpus: 4G}}", "'mem-per-cpus' is no option of sbatch; did you mean 'mem-per-cpu'?"),
        ("{sbatch: {--mem: 4G}}", "did you mean 'mem'?"),
        ("{sbatch: {time: 1:30}}", "sbatch: time: 1:30 is 1 min 30 s to Slurm"),
        ("{sbatch: {cpus-per-task: 010}}", "sbatch: cpus-per-task: 010 is 8 to YAML 1.1"),
        ("{sbatch: {mail_user: me}}", "did you mean 'mail-user'?"),
        (
            "{sbatch: {mem: false}}",
            "sbatch: mem: expected an amount, got false; the key for it is 'memory_gb' (null: left out)",
        ),
        ("{sbatch: {no-kill: off}}", "no-kill: off can be read as a text and as a flag; write 'off' in quotes"),
        ("{sbatch: {nice: null}}", "sbatch: nice: expected text, a number, true or false, got null"),
    ],
)
def test_what_would_be_asked_for_twice_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_options_keep_their_text_and_flags_are_flags(tmp_path: Path) -> None:
    text = "sbatch: {nice: 0100, comment: 'true', exclusive: true, contiguous: false, begin-x: 1_000, licenses: 'off'}"
    assert read(tmp_path, text).sbatch == {
        "nice": "0100",
        "comment": "true",
        "exclusive": True,
        "contiguous": False,
        "begin-x": "1_000",
        "licenses": "off",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "mail_user: me",
            "'mail_user' is not a key of a cluster file; it is an option of sbatch; put it under sbatch: {mail-user:",
        ),
        ("nice: 5", "put it under sbatch: {nice: ...}"),
        ("mem: 8G", "it is an option of sbatch; the key for it is 'memory_gb'"),
        ("gpus_per_node: 1", "the key for it is 'gpus'"),
        ("cpus-per-task: 1", "the key for it is 'cpus'"),
        ("job_name: x", "it is an option of sbatch that Mixlab sets itself"),
        ("array_paralelism: 2", "did you mean 'array_parallelism'?"),
        (
            "environments: {torch: {mail-type: END}}",
            "environments: torch: 'mail-type' is not a key of it; it is an option",
        ),
        ("environments: {torch: {store: x}}", "it stands for all jobs, beside the others of the file"),
        ("nothing_like_it: 2", "allowed: partition, account, qos, constraint, exclude"),
        ("mail: me@x.org", "put options of sbatch under sbatch: {mail-type: ..., mail-user: ...}"),
        (f"{'x' * 900}: 2", "all are in slurm/clusters/example.yaml"),
        (f"environments: {{{'x' * 900}: {{}}}}", "allowed: jax, torch"),
        ("nothing_like_it: 2", "all are in slurm/clusters/example.yaml"),
    ],
)
def test_a_word_that_is_no_key_is_told_its_place(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


# --- what a job runs in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/opt/py/bin/python", ("/opt/py/bin/python",)),
        ("uv run python", ("uv", "run", "python")),
        ("conda run -n x python", ("conda", "run", "-n", "x", "python")),
        ("[apptainer, exec, 'my img.sif', python]", ("apptainer", "exec", "my img.sif", "python")),
        ("'\"/my dir/python\" -I'", ("/my dir/python", "-I")),
        ("$TOP/bin/python", ("/a b/bin/python",)),
        ("~/env/bin/python", ("/home/me/env/bin/python",)),
        ("apptainer exec ~/img.sif python", ("apptainer", "exec", "/home/me/img.sif", "python")),
    ],
)
def test_a_python_may_be_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TOP", "/a b")
    monkeypatch.setenv("HOME", "/home/me")
    assert read(tmp_path, f"python: {text}").environment("jax").python == words
    assert read(tmp_path, f"environments: {{jax: {{python: {text}}}}}").environment("jax").python == words


def test_a_file_with_a_space_in_its_name_is_not_taken_apart(tmp_path: Path) -> None:
    python = tmp_path / "my python"
    python.touch()
    assert read(tmp_path, f"python: {python}").python == (str(python),)
    assert read(tmp_path, f"python: [{python}]").python == (str(python),)
    python.unlink()
    assert read(tmp_path, f"python: {python}").python == (str(tmp_path / "my"), "python")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "python: module load x && python",
            "python: expected one command, but '&&' makes it several; 'setup' is for what comes",
        ),
        ("python: '\"/my dir/python'", "has a quote that does not end"),
        ("python: []", "python: expected a path, a command or a list of its words, got []"),
        ("python: {a: b}", "expected a path, a command or a list"),
        (
            "environments: {torch: {setup: {a: b}}}",
            "environments: torch: setup: expected a list of lines of shell, or one line, got {'a': 'b'}",
        ),
        ("setup: [[a]]", "setup: expected a list of lines of shell, or one line, got [['a']]"),
        (
            "environments: {torch: {gpus: two}}",
            "environments: torch: gpus: expected a whole number (at least 0), got 'two'",
        ),
        ("environments: {torch: {gpus: 0100}}", "environments: torch: gpus: 0100 is 64 to YAML 1.1 and 100"),
        (
            "environments: {torch: {gpus: -1}}",
            "environments: torch: gpus: expected a whole number (at least 0), got -1",
        ),
        ("environments: {torch: [a]}", "environments: torch: expected a mapping, got ['a']"),
        ("container: img.sif", "container: expected a mapping such as {runtime: apptainer"),
        ("container: {image: a.sif}", "container: runtime: expected text, got null"),
        (
            "container: {runtime: docker, image: a}",
            "runtime: 'docker' is not known; allowed: apptainer, singularity, pyxis",
        ),
        ("container: {runtime: enroot, image: a}", "pyxis runs enroot"),
        (
            "container: {runtime: pyxis, image: a, mount: [/b]}",
            "'mount' is not a key of it; allowed: runtime, image, mounts",
        ),
        (
            "container: {runtime: pyxis, image: a, mounts: [b]}",
            "mounts: expected /from, /from:/to or /from:/to:ro, got 'b'",
        ),
        (
            "container: {runtime: apptainer, image: a, options: [--cleanenv]}",
            "'--cleanenv' hides Slurm's variables from a job",
        ),
        ("gpu_type: a100", "gpu_type: 'a100' needs a number of GPUs"),
        (
            "{gpus: 1, gpu_type: 'a100:2'}",
            "gpu_type: expected one type of GPU, such as a100, got 'a100:2'; their number is",
        ),
        ("{gpus: 1, gpu_type: 'a100,h100'}", "gpu_type: expected one type of GPU, such as a100, got 'a100,h100'"),
        (f"python: {'x' * 1000} &&", "python: expected one command, but '&&' makes it several"),
        ("container: {runtime: apptainer, image: a, options: --nv --cleanenv}", "'--cleanenv' hides Slurm's variables"),
        ('container: {runtime: apptainer, image: a, options: "--env \'A"}', "has a quote that does not end"),
    ],
)
def test_what_a_job_cannot_run_in_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_lines_of_setup_may_be_a_text_and_come_after_those_of_all_backends(tmp_path: Path) -> None:
    text = "setup: module purge\nenvironments:\n  torch:\n    setup: |\n      module load cuda\n      export A=$B ~\n"
    spec = read(tmp_path, text)
    assert spec.environment("torch").setup == ("module purge", "module load cuda", "export A=$B ~")
    assert spec.environment("jax").setup == ("module purge",)


# --- variables ----------------------------------------------------------------------------------------------------


def test_variables_and_home_folders_are_put_into_every_text_but_setup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    text = (
        "{store: $SCRATCH/runs, compile_cache: ~/c, partition: '$$p', sbatch: {mail-user: '${SCRATCH}@x'}, "
        "container: {runtime: pyxis, image: ~/i.sqsh, mounts: ['$SCRATCH/d:/d']}, setup: [cd $TMPDIR_OF_JOB]}"
    )
    spec = read(tmp_path, text)
    assert (spec.store, spec.compile_cache, spec.partition) == ("/scratch/me/runs", "/home/me/c", "$p")
    assert spec.sbatch == {"mail-user": "/scratch/me@x"} and spec.setup == ("cd $TMPDIR_OF_JOB",)
    assert spec.container == Container("pyxis", "/home/me/i.sqsh", ("/scratch/me/d:/d",))


@pytest.mark.parametrize("key", ["store", "compile_cache", "python", "partition"])
def test_a_variable_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    assert f"{key}: '$NOWHERE/x': the variable NOWHERE is not set" in refusal(tmp_path, f"{key}: $NOWHERE/x")


# --- layers -------------------------------------------------------------------------------------------------------


def trials_of(folder: Path, **keys: Any) -> tuple[ablation.Ablation, list[GridTrial]]:
    whole = ablation.load_ablation(write_yaml(folder / "a.yaml", **keys))
    return whole, resolving.trials(whole, folder)


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    spec = read(
        tmp_path,
        """
        {partition: p, time: 60, gpus: 1, gpu_type: a100, cpus: 4,
         environments: {torch: {partition: q, memory_gb: null, share: 2}, jax: {gpus: 0}},
         when: [{match: {model.num_blocks: [2, 3]}, time: 2-0, cpus: 8, share: 3},
                {match: {seed: 1, model.num_blocks: 2}, time: 90, gpu_type: h100, gpus: 2}]}
        """,
    )
    whole, found = trials_of(tmp_path, grid={"model.num_blocks": [1, 2], "seed": [0, 1], "backend": ["torch", "jax"]})
    needs = {tuple(one.settings.values()): spec.needs(one.trial.backend, one, whole.base) for one in found}
    torch = Needs("q", time=60, gpus=1, gpu_type="a100", cpus=4, memory_gb=None, share=2)
    jax = Needs("p", time=60, gpus=0, gpu_type=None, cpus=4)
    assert needs[1, 0, "torch"] == needs[1, 1, "torch"] == torch == spec.needs("torch")
    assert needs[1, 0, "jax"] == jax
    assert needs[2, 0, "jax"] == Needs("p", time=2880, cpus=8, share=3)
    assert needs[2, 0, "torch"] == Needs("q", time=2880, gpus=1, gpu_type="a100", cpus=8, memory_gb=None, share=3)
    assert needs[2, 1, "torch"] == Needs("q", time=90, gpus=2, gpu_type="h100", cpus=8, memory_gb=None, share=3)


def test_a_dotted_name_is_a_key_of_the_mapping_inside(tmp_path: Path) -> None:
    dotted = (
        "environments.torch.partition: q\nenvironments.torch.time: 1-0\nenvironments: {torch: {cpus: 2}, jax.cpus: 3}"
    )
    spec = read(tmp_path, f"{dotted}\nsbatch.nice: 010\nretries.killed: 2\ntime: 5")
    assert spec.environments == {"torch": {"partition": "q", "time": 1440, "cpus": 2}, "jax": {"cpus": 3}}
    assert spec.sbatch == {"nice": "010"} and spec.tries("killed") == 2 and spec.time == 5
    twice = "environments.torch.time: 5\nenvironments: {torch: {time: 5}}"
    assert "environments: torch is given twice, by a dotted name" in refusal(tmp_path, twice)
    assert "'nothing' is not a key" in refusal(tmp_path, "nothing.like.it: 5")


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ("model.variant: S/32", True),  # given by the base
        ("model.patch_size: 32", True),  # resolved from it
        ("model.variant: [L/16, S/32]", True),
        ("model: {variant: S/32}", True),
        ("model.variant: S/16", False),
        ("train.learning_rate: 0.001", True),  # a default
        ("train.learning_rate: 1e-3", True),
        ("train.epochs: 7", True),  # given, and resolved to steps
        ("backend: jax", False),
        ("{seed: 1, backend: torch}", True),
        ("{seed: 2, backend: torch}", False),
    ],
)
def test_a_rule_matches_fields_as_given_or_as_resolved(tmp_path: Path, match: str, matches: bool) -> None:
    data = {"image_size": 32}
    given = base(model={"variant": "S/32"}, data=data, train={"batch_size": 8, "epochs": 7})
    del (
        given["model"]["hidden_dim"],
        given["model"]["num_blocks"],
        given["model"]["patch_size"],
        given["train"]["steps"],
    )
    whole, (planned,) = trials_of(tmp_path, base=given, grid={"seed": [1]})
    match = match if match.startswith("{") else f"{{{match}}}"
    spec = read(tmp_path, f"when: [{{match: {match}, cpus: 7}}]")
    assert (spec.needs("torch", planned, whole.base).cpus == 7) == matches


def test_a_rule_goes_by_the_trials_own_value_where_it_takes_the_place_of_the_bases(tmp_path: Path) -> None:
    given = base(train={"epochs": 7, "steps": None})
    whole, trials = trials_of(tmp_path, base=given, grid={"train.epochs": [7, 9]})
    spec = read(tmp_path, "when: [{match: {train.epochs: 7}, cpus: 7}]")
    assert [spec.needs("torch", one, whole.base).cpus for one in trials] == [7, 1]


@pytest.mark.parametrize(("share", "gpus", "jobs"), [(1, 0, 1), (2, 0, 2), (1, 3, 3), (2, 3, 6)])
def test_trials_at_a_time_are_the_share_of_each_gpu_or_of_the_job_without_one(share: int, gpus: int, jobs: int) -> None:
    assert Needs(share=share, gpus=gpus).jobs == jobs


def test_a_variant_is_known_by_its_sizes(tmp_path: Path) -> None:
    """Whether the sizes were given one by one, or by its name with another size in its place."""
    sizes = {"patch_size": 32, "hidden_dim": 512, "num_blocks": 8, "tokens_mlp_dim": 256, "channels_mlp_dim": 2048}
    whole, found = trials_of(
        tmp_path, base=base(model=sizes, data={"image_size": 32}), grid={"model.num_blocks": [8, 9]}
    )
    rule = read(tmp_path, "when: [{match: {model.variant: S/32}, cpus: 7}]")
    assert [rule.needs("torch", one, whole.base).cpus for one in found] == [7, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("when: {match: {seed: 1}, time: 5}", "time: 2-0}], got {'match': {'seed': 1}, 'time': 5}"),
        (
            "when: [{time: 5}]",
            "when: match: expected fields with their values, as in {match: {model.variant: L/16}, time: 2-0}, got null",
        ),
        (
            "when: [{match: {}, time: 5}]",
            "when: match: expected fields with their values, as in {match: {model.variant: L/16}, time: 2-0}, got {}",
        ),
        ("when: [{mach: {seed: 1}, time: 5}]", "when: 'mach' is not a key of it; did you mean 'match'?"),
        ("when: [{match: {seed: 1}}]", "says no need; allowed beside it: partition, account"),
        ("when: [{match: {sed: 1}, time: 5}]", "when: match: 'sed' is not a field of a trial"),
        ("when: [{match: {seed: x}, time: 5}]", "when: match: seed: expected a whole number (at least 0), got 'x'"),
        ("when: [{match: {seed: -1}, time: 5}]", "when: match: seed: expected a whole number (at least 0), got -1"),
        ("when: [{match: {seed: []}, time: 5}]", "when: match: seed: it has no values"),
        (
            "when: [{match: {model.token_mixing: [tied, untide]}, time: 5}]",
            "match: model.token_mixing: expected one of tied, untied, grouped, ",
        ),
        ("when: [{match: {model.token_mixing: untide}, time: 5}]", "got 'untide'; did you mean 'untied'?"),
        (
            "when: [{match: {model.variant: L16}, time: 5}]",
            "model.variant: expected one of S/32, S/16, B/32, B/16, L/32, L/16, H/14, ViT-Ti/32, ",
        ),
        ("when: [{match: {backend: pytorch}, time: 5}]", "backend: expected the name of a backend, got 'pytorch'"),
        ("when: [{match: {seed: 1}, gpu_type: h100}]", "when: gpu_type: 'h100' needs a number of GPUs"),
        ("when: [{match: {seed: 1}, store: x}]", "it stands for all jobs"),
        ("when: [{match: {seed: 1}, time: 1:30}]", "when: time: 1:30 is 1 min 30 s to Slurm"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_type_of_gpu_may_be_said_apart_from_their_number(tmp_path: Path) -> None:
    """By a rule that is about the trials of one backend, whose number of GPUs stands in its own layer."""
    spec = read(
        tmp_path,
        "{environments: {torch: {gpus: 1}, jax: {}}, when: [{match: {model.num_blocks: 2}, gpu_type: h100}]}",
    )
    asked = {(one.gpus, one.gpu_type) for one in spec.all_needs(("torch", "jax"))}
    assert (1, "h100") in asked


# --- the form in the store ----------------------------------------------------------------------------------------


def test_a_cluster_file_comes_back_from_a_submission_as_it_was(tmp_path: Path) -> None:
    """Also what a second reading would change: a dollar sign, flags, numbers, what options stand for, a null."""
    spec = read(
        tmp_path,
        """
        {time: 1-0, partition: $$p, memory_gb: null, python: [a b, c], setup: [x],
         sbatch: {gres: gpu:2, exclusive: true, contiguous: false, comment: 'true', cpus-per-task: 3, nice: 010},
         container: {runtime: apptainer, image: i, mounts: [/d], options: [--nv]},
         environments: {torch: {container: null, memory_gb: 3}, jax: {python: uv run python, setup: y, time: 5}},
         when: [{match: {model.variant: [L/16], train.learning_rate: 0.1}, time: 2-0, memory_gb: null}],
         retries: {killed: 2}}
        """,
    )
    assert spec.partition == "$p" and spec.cpus == 3 and spec.environment("torch").container is None
    assert stored_cluster(json.loads(json.dumps(tree_of(spec))), "cluster.json") == spec


def test_a_submission_of_an_earlier_form_is_read_as_it_was_meant() -> None:
    """Of before: every key, one word for a Python, flags as text, options in place of keys."""
    old = {
        **{"partition": "low", "account": None, "qos": None, "constraint": None, "time_min": 30, "gpus": 1, "cpus": 1},
        **{"memory_gb": 0.5, "array_parallelism": 4, "pack": 2, "share": 1, "store": None, "signal": "USR2"},
        **{"signal_delay_s": 60, "compile_cache": None, "snapshot_limit_mb": 50.0, "report": False, "retries": {}},
        "sbatch": {"exclusive": "True", "gres": "gpu:a100:2", "mem-per-cpu": "1G", "partition": "high", "nice": "5"},
        "environments": {"torch": {"python": "/my dir/python", "setup": ["a"]}, "jax": {"python": None, "setup": []}},
    }
    spec = stored_cluster(old, "cluster.json")
    assert spec.needs("torch") == Needs("high", time=30, gpus=2, cpus=1, memory_gb=None, pack=2)
    assert spec.sbatch == {"exclusive": True, "gres": "gpu:a100:2", "mem-per-cpu": "1G", "nice": "5"}
    assert spec.environment("torch") == EnvironmentSpec(("/my dir/python",), ("a",))
    assert spec.environment("jax") == EnvironmentSpec() and not spec.report
    assert stored_cluster(json.loads(json.dumps(tree_of(spec))), "cluster.json") == spec


def test_a_mapping_of_numbers_is_a_cluster_file_too() -> None:
    spec = cluster_from({"time_min": 30, "gpus": 1, "memory_gb": 2, "report": False, "sbatch": {"nice": 5}}, "c")
    assert spec == ClusterSpec(time=30, gpus=1, memory_gb=2.0, report=False, sbatch={"nice": "5"})
