"""An export to TensorBoard, read by its own readers: the accumulator of events, the server, its page in a browser."""

import errno
import json
import math
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboard import program
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef

from analysis.export.graph import graph_of, inputs_of
from analysis.export.tensorboard import PART
from backends.models import FAMILIES, folds
from backends.models.config import ModelConfig
from backends.models.mixer import make
from backends.models.mixer_spec import CHANNEL_MIXING, TOKEN_MIXING
from tests import exporting
from tests.conftest import Ended, command, files, wait_until
from tests.test_page import BROWSER
from tests.test_report_files import MIXING, Bench

Command = Callable[..., Ended]
CELL, LAST_CELL = "token MLP=tied backend=jax", "token MLP=per channel backend=jax"


@pytest.fixture
def own(tmp_path: Path, cache: Path) -> Bench:
    """A store that a test may change, in the folder of its commands."""
    return exporting.store_of(tmp_path, cache)


@pytest.fixture
def out(run: Command, own: Bench, tmp_path: Path) -> Path:
    """The folder of its export."""
    assert run("export", "one", "--to", "tensorboard", "out").code == 0
    return tmp_path / "out"


def again(run: Command, *words: str) -> None:
    ended = run("export", "one", "--to", "tensorboard", "out", *words)
    assert ended.code == 0, ended.err


def filled(place: Path) -> list[str]:
    """The files of a run that are not empty."""
    return [path.name for path in place.iterdir() if path.stat().st_size]


def read(place: Path) -> Any:
    """What TensorBoard's own reader finds in a run."""
    found = EventAccumulator(str(place))
    return found.Reload()


def points(place: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in read(place).Scalars(tag)]


def test_a_run_has_its_curve_and_its_last_numbers(out: Path) -> None:
    place = out / "one" / CELL / "seed=1"
    assert points(place, "validation.accuracy") == [(i, 0.53 * i / 4) for i in (1, 2, 3, 4)]
    assert points(place, "final/last.validation.accuracy") == [(4, 0.53)]
    assert [event.wall_time for event in read(place).Scalars("final/parameters")] == [203.0]
    assert {event.wall_time for event in read(place).Scalars("loss")} == {0.0}
    assert points(out / "one" / CELL / "mean", "validation.accuracy") == [(i, 0.525 * i / 4) for i in (1, 2, 3, 4)]
    assert points(out / "one" / LAST_CELL / "seed=0", "train.loss") == [(1, 0.5), (2, 0.5)]
    assert [tag for tag in read(place).Tags()["scalars"] if "test" in tag] == []


def test_a_repeated_export_changes_no_file_but_its_mark(out: Path, tmp_path: Path) -> None:
    before = files(out / "one")
    ended = command(tmp_path, "export", "one", "--to", "tensorboard", "out")  # in a process of its own: see _same_bytes
    assert ended.code == 0 and files(out / "one") == before


def test_test_numbers_come_and_go(run: Command, out: Path) -> None:
    place = out / "one" / CELL / "seed=1"
    again(run, "--test")
    assert points(place, "final/last.test.accuracy") == [(4, exporting.TEST)]
    again(run)
    assert "final/last.test.accuracy" not in read(place).Tags()["scalars"] and len(filled(place)) == 1


def test_a_run_that_grows_is_appended_to(run: Command, own: Bench, out: Path) -> None:
    place = out / "one" / LAST_CELL / "seed=0"
    (file,) = place.iterdir()
    opened, before = read(place), file.read_bytes()
    exporting.grow(own, 3)
    again(run)
    assert list(place.iterdir()) == [file] and file.read_bytes().startswith(before)
    assert [event.step for event in opened.Reload().Scalars("loss")] == [1, 2, 3]
    exporting.finish(own)
    again(run)
    assert list(place.iterdir()) == [file] and file.read_bytes().startswith(before)
    assert [event.step for event in opened.Reload().Scalars("loss")] == [1, 2, 3, 4]
    assert [event.value for event in opened.Scalars("final/last.validation.accuracy")] == [pytest.approx(0.56)]


def test_a_run_that_is_another_one_takes_the_place_of_the_old(run: Command, own: Bench, out: Path) -> None:
    place = out / "one" / CELL / "mean"
    opened = read(place)
    own.store.folder(own.trials[3].trial.id).joinpath("record.json").unlink()
    exporting.grow(own, 3)
    again(run)
    values = [(event.step, event.value) for event in opened.Reload().Scalars("validation.accuracy")]
    assert values == [(i, pytest.approx(0.52 * i / 4)) for i in (1, 2, 3, 4)]
    assert len(filled(place)) == 1


def test_an_export_that_was_killed_is_read_and_completed(run: Command, out: Path) -> None:
    place = out / "one" / CELL / "seed=1"
    (file,) = place.iterdir()
    whole, others = file.read_bytes(), files(out / "one")
    for cut in (0, 7, 30, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        read(place)  # not an error
        again(run)
        assert file.read_bytes() == whole and files(out / "one").keys() == others.keys()
    (out / PART).write_bytes(whole[:40])
    shutil.copy(file, place / "events.out.tfevents.0000000002.mixlab")  # killed before the old one was removed
    assert "tfevents" not in PART  # of which TensorBoard reads all files that have it in their names
    assert points(place, "loss") == [(i, 0.7) for i in (1, 2, 3, 4)]
    again(run)
    assert filled(place) == ["events.out.tfevents.0000000002.mixlab"]
    assert points(place, "loss") == [(i, 0.7) for i in (1, 2, 3, 4)]


def test_a_full_disk_is_a_sentence_and_what_is_there_stays_whole(
    run: Command, own: Bench, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, write = out / "one" / CELL / "mean", Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    before = files(out / "one")
    own.store.folder(own.trials[3].trial.id).joinpath("record.json").unlink()
    with monkeypatch.context() as here:
        here.setattr(Path, "write_bytes", full)
        ended = run("export", "one", "--to", "tensorboard", "out")
    assert ended.code == 2 and "no space is left" in ended.err and len(ended.err.splitlines()) == 1
    assert len(ended.err) < 400 and files(out / "one").keys() == before.keys()
    assert points(place, "validation.accuracy") == [(i, 0.525 * i / 4) for i in (1, 2, 3, 4)]
    again(run)
    assert points(place, "validation.accuracy") == [(i, 0.52 * i / 4) for i in (1, 2, 3, 4)]


def test_a_run_that_the_ablation_has_no_more_goes_and_nothing_else(run: Command, out: Path, tmp_path: Path) -> None:
    (out / "one" / CELL / "seed=1" / "notes.txt").write_text("mine")
    ended = run("export", "one.yaml", "--to", "tensorboard", "out", "seed=[0]")
    assert ended.code == 0 and [path.name for path in (out / "one" / CELL / "seed=1").iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in (out / "one" / LAST_CELL).iterdir()) == ["mean", "seed=0"]


# --- the graph --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_mixing", TOKEN_MIXING)
@pytest.mark.parametrize("channel_mixing", CHANNEL_MIXING)
def test_the_graph_is_that_of_the_declared_layers(token_mixing: str, channel_mixing: str) -> None:
    groups = 2 if token_mixing.startswith("grouped") else None
    config = ModelConfig(
        token_mixing=token_mixing, channel_mixing=channel_mixing, token_groups=groups, hidden_dim=8, num_blocks=2
    )
    trained = sum(math.prod(p.shape) for p in folds.params(make(config, 8, 3, 10)).values() if p.trained)
    spec = make(config, 8, 3, 10)
    graph = GraphDef.FromString(graph_of(spec).SerializeToString())
    nodes = {node.name: node for node in graph.node}
    assert list(nodes) == ["images", *(layer.name for layer in folds.layers(spec))] and len(nodes) == len(graph.node)
    layers = list(nodes.values())[1:]
    assert sum(node.attr["num_parameters"].i for node in layers) == trained
    assert sum(node.attr["multiply_accumulates_per_image"].i for node in layers) == folds.forward_macs(spec)
    shapes = [math.prod(size.dim[i].size for i in range(len(size.dim))) for node in layers for size in
              (value.shape for name, value in node.attr.items() if name.startswith("parameter "))]  # fmt: skip
    assert sum(shapes) == sum(map(math.prod, folds.shapes(spec).values()))
    assert [size.size for size in nodes["head"].attr["_output_shapes"].list.shape[0].dim] == [-1, 10]


def test_edges_follow_the_forward_pass_and_its_skip_connections() -> None:
    spec = make(ModelConfig(hidden_dim=8, num_blocks=2), 8, 3, 10)
    layers = folds.layers(spec)
    inputs = dict(zip((layer.name for layer in layers), inputs_of(layers), strict=True))
    assert [names[0] for names in inputs.values()] == ["images", *(layer.name for layer in layers[:-1])]
    skips = {name: names[1] for name, names in inputs.items() if len(names) > 1}
    assert skips == {
        "MixerBlock_0/token_mixing": "stem",
        "MixerBlock_0/channel_mixing": "MixerBlock_0/token_mixing",
        "MixerBlock_1/token_mixing": "MixerBlock_0/channel_mixing",
        "MixerBlock_1/channel_mixing": "MixerBlock_1/token_mixing",
    }


def edges(config: ModelConfig) -> dict[str, list[str]]:
    """The inputs of each layer of a model of 8 pixels, by its name."""
    spec = FAMILIES[config.family].make(config, 8, 3, 10)
    layers = folds.layers(spec)
    return dict(zip((layer.name for layer in layers), inputs_of(layers), strict=True))


def test_heads_and_gates_take_what_they_are_of() -> None:
    name = "MixerBlock_0/token_mixing"
    inputs = edges(ModelConfig(token_mixing=("attention", "gating"), hidden_dim=8, num_blocks=2))
    assert [inputs[f"{name}/{part}"] for part in ("query", "key", "value")] == [["MixerBlock_0/LayerNorm_0"]] * 3
    assert inputs[f"{name}/heads"] == [f"{name}/{part}" for part in ("query", "key", "value")]
    assert inputs[f"{name}/out"] == [f"{name}/heads"]
    gate = "MixerBlock_1/token_mixing"
    assert inputs[f"{gate}/gated"] == [f"{gate}/dropout_0", f"{gate}/gate"]
    assert inputs[gate] == [f"{gate}/stochastic_depth", "MixerBlock_0/channel_mixing"]


def test_a_pyramid_skips_by_its_mean_and_a_norm_behind_the_sum_is_what_the_next_branch_begins_with() -> None:
    name = "MixerBlock_1/token_mixing"
    inputs = edges(ModelConfig(pyramid=(1,), hidden_dim=8, num_blocks=2))
    assert inputs[f"{name}/skip"] == ["MixerBlock_0/channel_mixing"]
    assert inputs[name] == [f"{name}/stochastic_depth", f"{name}/skip"]
    assert inputs["MixerBlock_1/channel_mixing"][1] == name
    post = edges(ModelConfig(norm_place="post", pool="cls", position_embedding="learned", hidden_dim=8, num_blocks=2))
    sums = ("MixerBlock_0/token_mixing", "MixerBlock_0/channel_mixing", "MixerBlock_1/token_mixing")
    norms = ["position_embedding", "MixerBlock_0/LayerNorm_0", "MixerBlock_0/LayerNorm_1"]
    assert [post[name][1] for name in sums] == norms
    assert (post["cls_token"], post["position_embedding"]) == (["stem"], ["cls_token"])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_unit_of_a_resnet_adds_its_projection_or_what_came_in(version: str) -> None:
    inputs = edges(ModelConfig(family="resnet", version=version, depth=(2,), unit="bottleneck", width=8, norm_groups=2))
    first, second = "block1/unit01", "block1/unit02"
    came_in = "relu_root" if version == "v1" else f"{first}/relu1"
    assert inputs[f"{first}/conv1"] == inputs[f"{first}/conv_proj"] == [came_in]
    projected = f"{first}/gn_proj" if version == "v1" else f"{first}/conv_proj"
    assert inputs[f"{first}/sum"] == [f"{first}/stochastic_depth", projected]
    skipped = f"{first}/relu" if version == "v1" else f"{first}/sum"
    assert inputs[f"{second}/sum"] == [f"{second}/stochastic_depth", skipped]


def test_shared_weights_are_counted_once_and_say_whose_they_are() -> None:
    spec = make(ModelConfig(hidden_dim=8, num_blocks=3, share_blocks=True), 8, 3, 10)
    nodes = graph_of(spec).node
    assert sum(node.attr["num_parameters"].i for node in nodes) == folds.count(spec)
    (head,) = [node for node in nodes if node.name == "MixerBlock_2/LayerNorm_0"]
    assert head.attr["weights_of"].s == b"MixerBlock_0/LayerNorm_0"


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The folder of an export, beside its store."""
    from analysis.export import exporter
    from analysis.export.folder import opened
    from analysis.export.runs import read_runs

    folder = tmp_path_factory.mktemp("server")
    grid = {MIXING: ["tied", "untied"], "backend": ["jax"], "seed": [0, 1]}
    bench = exporting.store_of(folder, cache, grid=grid)
    with opened(folder / "out", "tensorboard") as out:
        exporter("tensorboard")(read_runs(bench.ablation, bench.trials, bench.store), out)
    return folder / "out"


@pytest.fixture(scope="module")
def url(exported: Path) -> Iterator[str]:
    """TensorBoard itself on that folder."""
    server = program.TensorBoard()
    server.configure(
        argv=["tensorboard", "--logdir", str(exported), "--port", "0", "--host", "127.0.0.1", "--load_fast", "false"]
    )
    address = server.launch()
    wait_until(lambda: len(ask(address, "data/runs")) == 7, "TensorBoard has read all runs")
    yield address


def ask(url: str, path: str, **body: Any) -> Any:
    content = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url + path, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_the_server_shows_curves_hyperparameters_fields_and_graphs(url: str) -> None:
    run = "one/token MLP=tied/seed=1".replace("=", "%3D").replace(" ", "%20")
    scalars = ask(url, f"data/plugin/scalars/scalars?run={run}&tag=validation.accuracy")
    assert [(step, value) for _, step, value in scalars] == [(i, pytest.approx(0.51 * i / 4)) for i in (1, 2, 3, 4)]
    assert len(ask(url, "data/plugin/graphs/info")) == 2
    columns = ask(url, "data/plugin/hparams/experiment", experimentName="")
    assert {one["name"] for one in columns["hparamInfos"]} == {"token MLP", "backend", "seed", "run"}
    rows = ask(
        url, "data/plugin/hparams/session_groups", experimentName="", startIndex=0, sliceSize=100,
        allowedStatuses=["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN"],
        colParams=[{"hparam": one["name"]} for one in columns["hparamInfos"]],
    )["sessionGroups"]  # fmt: skip
    assert sorted(row["hparams"]["run"] for row in rows) == ["mean"] + ["trial"] * 4
    (row,) = [
        one for one in rows if one["hparams"] == {"token MLP": "tied", "backend": "jax", "seed": 1.0, "run": "trial"}
    ]
    metrics = {value["name"]["tag"]: value["value"] for value in row["metricValues"]}
    assert metrics["final/last.validation.accuracy"] == pytest.approx(0.51)
    texts = ask(url, f"data/plugin/text/text?run={run}&tag=config")
    assert "<td>train.learning_rate</td>" in texts[0]["text"]


@pytest.mark.skipif(BROWSER is None, reason="needs a browser on PATH, as tests/test_page.py")
def test_the_tabs_of_its_page_load_without_errors(url: str) -> None:
    from playwright.sync_api import sync_playwright

    shows = {
        "TIME SERIES": "text=final/best.step",
        "GRAPHS": "g.node.meta",  # a block
        "HPARAMS": "text=last.validation.accuracy",
    }
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page, wrong, asked = browser.new_page(viewport={"width": 1440, "height": 1000}), list[str](), list[str]()
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("response", lambda one: wrong.append(one.url) if one.status >= 400 else None)
        page.on("request", lambda one: asked.append(one.url))
        page.goto(url)
        for tab, text in shows.items():
            page.get_by_role("tab", name=tab).click()
            page.locator(text).first.wait_for(state="visible", timeout=15_000)
        browser.close()
    assert wrong == [] and [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []
