import json
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.evaluation.evaluate import evaluate
from reid_core.files import save_model
from reid_core.models import ReIDModel, build_model
from reid_core.training.checkpoint import CHECKPOINT
from reid_core.training.log import CURVES, LOG
from reid_core.training.plans import (
    Strategy,
    TrainSettings,
    TripletDistance,
    described,
    described_config,
    learning_rate,
    paper_settings,
)
from reid_core.training.recipe import metrics_of
from reid_core.training.run import Run
from reid_core.training.train import FAILED_BATCH, train
from schemas.cards import Baseline, DiffAttentionSettings, InputConvention, ModelConfig
from schemas.errors import CoreError, InputError, OutOfDeviceMemory
from schemas.settings import Settings
from synthetic.training import training_set

SMALL = InputConvention(height=32, width=16)
SETTINGS = Settings(device="cpu")
QUICK = TrainSettings(epochs=3, identities_per_batch=4, learning_rate=2e-3, milestones=(0.7,), validate_every=2)


@pytest.fixture(scope="module")
def people() -> PersonPictures:
    found = training_set(5, 6, 8, (SMALL.height, SMALL.width))
    return PersonPictures(found.pictures, found.identities * 7, found.cameras)


def tiny(classes: int | None = 6, *, attention: bool = True, baseline: str = "bagtricks") -> ReIDModel:
    torch.manual_seed(0)
    return build_model(
        ModelConfig(
            architecture="resnet10s",
            input=SMALL,
            baseline="agw" if baseline == "agw" else "bagtricks",
            diff_attention=DiffAttentionSettings() if attention else None,
        ),
        num_classes=classes,
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def convolution(model: nn.Module) -> Tensor:
    return model.get_parameter("backbone.conv1.weight").detach()


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


class Killed(Exception):
    pass


def ctrl_c() -> None:
    """Calls the handler that is installed for Ctrl-C, as Python does.

    A real signal ended the whole process where a thousand other tests had loaded Prefect, OpenVINO and Triton.
    """
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


@pytest.mark.parametrize("strategy", ["plain", "joint", "separate"])
def test_an_interrupted_run_gives_the_same_bits(strategy: Strategy, people: PersonPictures, tmp_path: Path) -> None:
    plan = replace(QUICK, strategy=strategy)
    straight = tiny()
    records = train(straight, people, plan, tmp_path / "straight", SETTINGS)

    batches = 0

    def kill_in_the_third_epoch(_: str, done: int, total: int) -> None:
        nonlocal batches
        batches += 1
        if batches == 2 * total // 3 + 1:
            raise Killed

    with pytest.raises(Killed):
        train(tiny(), people, plan, tmp_path / "cut", SETTINGS, progress=kill_in_the_third_epoch)
    resumed = tiny()
    again = train(resumed, people, plan, tmp_path / "cut", SETTINGS)
    assert same(state(straight), state(resumed))
    assert [record.losses for record in again] == [record.losses for record in records]
    log = [json.loads(line) for line in (tmp_path / "cut" / LOG).read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1, 2, 3]
    # A finished run is only read.
    assert train(tiny(), people, plan, tmp_path / "cut", SETTINGS) == again


def test_ctrl_c_on_an_epochs_last_batch_and_in_validation(people: PersonPictures, tmp_path: Path) -> None:
    plan = replace(QUICK, strategy="plain", epochs=2, validate_every=1)
    straight, resumed = tiny(), tiny()
    records = train(straight, people, plan, tmp_path / "straight", SETTINGS)

    def press_at_the_end(_: str, done: int, total: int) -> None:
        if done == total // 2:
            ctrl_c()

    def press(_: ReIDModel) -> dict[str, float]:
        ctrl_c()
        return {}

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), people, plan, tmp_path / "cut", SETTINGS, progress=press_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), people, plan, tmp_path / "cut", SETTINGS, validate=press)
    again = train(resumed, people, plan, tmp_path / "cut", SETTINGS)
    assert same(state(straight), state(resumed))
    assert [(record.losses, record.learning_rate) for record in again] == [
        (record.losses, record.learning_rate) for record in records
    ]


@pytest.mark.parametrize("plan", [
    replace(QUICK, strategy="joint", average_decay=0.9, clip_norm=1.0),
    replace(QUICK, strategy="separate", cached_views=2),
])  # fmt: skip
def test_ctrl_c_saves_in_the_middle_of_an_epoch(plan: TrainSettings, people: PersonPictures, tmp_path: Path) -> None:
    straight = tiny()
    records = train(straight, people, plan, tmp_path / "straight", SETTINGS)

    def press_ctrl_c(step: str, done: int, total: int) -> None:
        if step.endswith("training") and done == total // 2:
            ctrl_c()

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), people, plan, tmp_path / "cut", SETTINGS, progress=press_ctrl_c)
    assert signal.getsignal(signal.SIGINT) is before
    resumed = tiny()
    steps: list[tuple[str, int, int]] = []
    again = train(resumed, people, plan, tmp_path / "cut", SETTINGS, progress=lambda *step: steps.append(step))
    done, total = next((done, total) for step, done, total in steps if step == f"{plan.strategy} training")
    assert done == total // 2 + 1 and total % 2 == 1, "it goes on with the next batch, inside an epoch"
    assert same(state(straight), state(resumed))
    assert [record.losses for record in again] == [record.losses for record in records]


def test_separate_changes_the_module_alone(people: PersonPictures, tmp_path: Path) -> None:
    model = tiny(classes=None)
    before = state(model)
    train(model, people, replace(paper_settings("separate", "bagtricks"), epochs=1, identities_per_batch=4),
          tmp_path, SETTINGS)  # fmt: skip
    changed = {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("diff_attention.")}


@pytest.mark.parametrize(("strategy", "baseline"), [("plain", "agw"), ("joint", "bagtricks"), ("joint", "agw")])
def test_plain_and_joint_change_everything_but_the_necks_bias(
    strategy: Strategy, baseline: Literal["bagtricks", "agw"], people: PersonPictures, tmp_path: Path
) -> None:
    model = tiny(attention=strategy == "joint", baseline=baseline)
    before = state(model)
    plan = paper_settings(strategy, baseline)
    train(model, people, replace(plan, epochs=2, identities_per_batch=4), tmp_path, SETTINGS)
    kept = {name for name, tensor in state(model).items() if torch.equal(tensor, before[name])}
    assert kept <= {"neck.bn.bias", "diff_attention.mix", "diff_attention.bias"} and "neck.bn.bias" in kept


@pytest.mark.parametrize(
    ("strategy", "triplet", "distance"),
    [
        ("plain", "batch_hard", "training"),
        ("plain", "circle", "training"),
        ("plain", "batch_hard", "test"),
        ("joint", "weighted", "training"),
        ("joint", "batch_hard", "test"),
    ],
)
def test_it_learns(
    strategy: Strategy,
    triplet: Literal["batch_hard", "weighted", "circle"],
    distance: TripletDistance,
    people: PersonPictures,
    tmp_path: Path,
) -> None:
    model = tiny(attention=strategy == "joint")

    def validate(trained: ReIDModel) -> dict[str, float]:
        save_model(trained, tmp_path / "model", name="m")
        return metrics_of(evaluate(SETTINGS, tmp_path / "model", *people.split_queries()))

    untrained = validate(model)
    plan = replace(QUICK, strategy=strategy, triplet=triplet, triplet_distance=distance, epochs=12)
    records = train(model, people, plan, tmp_path, SETTINGS, validate=validate)
    assert records[-1].losses["identity"] < records[0].losses["identity"] - 0.3
    assert records[-1].metrics["plain_mAP"] > untrained["plain_mAP"] + 10
    assert [bool(record.metrics) for record in records] == [epoch % 2 == 0 for epoch in range(1, 13)]
    assert ("attended_mAP" in records[-1].metrics) == (strategy == "joint")


@pytest.mark.parametrize(("start", "learns"), [(0.0, True), (0.5, True), (1.0, False)])
def test_the_module_learns_from_its_start_on(
    start: float, learns: bool, people: PersonPictures, tmp_path: Path
) -> None:
    model = tiny()
    before = state(model)
    train(model, people, replace(QUICK, strategy="joint", epochs=2, module_start=start), tmp_path, SETTINGS)
    changed = {name for name, tensor in state(model).items() if not torch.equal(tensor, before[name])}
    assert {name.startswith("diff_attention") for name in changed} == ({True, False} if learns else {False})


def test_the_triplet_can_use_the_test_distance(people: PersonPictures, tmp_path: Path) -> None:
    """With W2 = 0 the attended test distance equals the plain one, for features of any length."""
    triplets = []
    strategies: tuple[Strategy, ...] = ("plain", "joint")
    for strategy in strategies:
        for scale in (1.0, 3.0):
            model = tiny()
            assert model.diff_attention is not None
            with torch.no_grad():
                model.diff_attention.excite.weight.zero_()
                model.get_parameter("neck.bn.weight").mul_(scale)
            plan = replace(QUICK, strategy=strategy, epochs=1, learning_rate=1e-9, triplet_distance="test")
            records = train(model, people, plan, tmp_path / f"{strategy} {scale}", SETTINGS)
            triplets.append(records[0].losses["triplet"])
    assert max(triplets) - min(triplets) < 1e-4 * min(triplets)
    records = train(tiny(), people, replace(plan, triplet_distance="training"), tmp_path / "training", SETTINGS)
    assert abs(records[0].losses["triplet"] - triplets[0]) > 0.1


def test_a_loss_that_is_not_finite_stops_the_run(people: PersonPictures, tmp_path: Path) -> None:
    model = tiny()
    convolution(model)[0, 0, 0, 0] = torch.nan
    named = replace(people, names=tuple(f"{number:04d}.jpg" for number in range(len(people))))
    with pytest.raises(CoreError, match=r"not finite in epoch 1, batch 1.* \d{4}\.jpg, "):
        train(model, named, QUICK, tmp_path, SETTINGS)
    assert not (tmp_path / CHECKPOINT).exists()
    listed = (tmp_path / FAILED_BATCH).read_text().splitlines()
    assert len(listed) == 16 and set(listed) <= set(named.names)


def test_averaged_weights_replace_the_last_ones(people: PersonPictures, tmp_path: Path) -> None:
    plan = replace(QUICK, strategy="plain", epochs=1)
    start, last, averaged = tiny(), tiny(), tiny()
    train(last, people, plan, tmp_path / "last", SETTINGS)
    train(averaged, people, replace(plan, average_decay=0.999), tmp_path / "averaged", SETTINGS)
    kept, reached, began = (convolution(model) for model in (averaged, last, start))
    assert 0 < (kept - began).abs().max() < (reached - began).abs().max() / 20
    mean, reached = (model.get_buffer("backbone.bn1.running_mean") for model in (averaged, last))
    assert 0 < mean.abs().max() < reached.abs().max() / 20, "BatchNorm's means are averaged too"


def test_the_gradient_is_clipped(people: PersonPictures, tmp_path: Path) -> None:
    # Adam's step does not depend on the gradient's scale, except far below its eps.
    plan = replace(QUICK, strategy="plain", epochs=1, weight_decay=0)
    start, clipped = tiny(), tiny()
    train(clipped, people, replace(plan, clip_norm=1e-12), tmp_path, SETTINGS)
    assert (convolution(clipped) - convolution(start)).abs().max() < 1e-5


def test_the_log_and_its_picture(people: PersonPictures, tmp_path: Path) -> None:
    train(tiny(), people, QUICK, tmp_path, SETTINGS, validate=lambda model: {"plain_mAP": 50.0})
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3] and lines[1]["metrics"] == {"plain_mAP": 50.0}
    picture = cv2.imread(str(tmp_path / CURVES))
    assert picture is not None and picture.std() > 5


def test_another_runs_checkpoint_is_an_error(people: PersonPictures, tmp_path: Path) -> None:
    train(tiny(), people, replace(QUICK, epochs=1), tmp_path, SETTINGS)
    with pytest.raises(CoreError, match="checkpoint of another model, other settings"):
        train(tiny(), people, QUICK, tmp_path, SETTINGS)
    other = tiny()
    convolution(other)[0, 0, 0, 0] += 1
    for model in (tiny(baseline="agw"), other):
        with pytest.raises(CoreError, match="checkpoint of another model"):
            train(model, people, replace(QUICK, epochs=1), tmp_path, SETTINGS)
    with pytest.raises(CoreError, match="checkpoint of another model"):
        train(tiny(baseline="agw"), people, replace(QUICK, epochs=1), tmp_path, SETTINGS)


def test_models_and_pictures_that_do_not_fit(people: PersonPictures, tmp_path: Path) -> None:
    with pytest.raises(CoreError, match="6 identities, the model's classifier has 5"):
        train(tiny(5), people, QUICK, tmp_path, SETTINGS)
    with pytest.raises(CoreError, match="needs a model with diff attention"):
        train(tiny(attention=False), people, QUICK, tmp_path, SETTINGS)
    with pytest.raises(CoreError, match="circle loss needs cosines"):
        train(tiny(), people, replace(QUICK, triplet="circle"), tmp_path, SETTINGS)
    with pytest.raises(InputError, match="cannot fill a batch of 16"):
        train(tiny(), people, TrainSettings(), tmp_path, SETTINGS)


def test_junk_is_left_out_and_the_first_identity_is_not(people: PersonPictures, tmp_path: Path) -> None:
    identities = people.identities.copy()
    identities[identities == 35] = JUNK
    assert 0 in identities
    train(tiny(5), PersonPictures(people.pictures, identities, people.cameras), replace(QUICK, epochs=1),
          tmp_path, SETTINGS)  # fmt: skip


def test_the_rate_follows_the_paper() -> None:
    plan = paper_settings("plain", "bagtricks")
    found = [learning_rate(plan, moment) for moment in (0, 5, 10, 39.9, 40, 69.9, 70, 119.9)]
    assert found == pytest.approx([3.5e-6, 3.5e-4 * 0.505, 3.5e-4, 3.5e-4, 3.5e-5, 3.5e-5, 3.5e-6, 3.5e-6])
    separate = paper_settings("separate", "agw")
    found = [learning_rate(separate, moment) for moment in (0, 19.9, 20, 40, 59)]
    assert found == pytest.approx([0.05, 0.05, 0.005, 0.0005, 0.0005])
    assert (separate.margin, separate.triplet_weight, separate.triplet) == (None, 10, "weighted")
    scaled = replace(plan, epochs=12)
    assert learning_rate(scaled, 0.5) == pytest.approx(learning_rate(plan, 5))
    assert np.isclose(learning_rate(scaled, 7), 3.5e-6)


def test_other_schedules() -> None:
    """TriNet: from 60 % on, down to a thousandth. TransReID: a cosine down to 0.2 %, after 5 epochs of warm-up."""
    trinet, transreid = paper_settings("plain", "trinet"), paper_settings("plain", "transreid")
    found = [learning_rate(trinet, moment) for moment in (0, 84, 112, 140)]
    assert found == pytest.approx([3e-4, 3e-4, 3e-4 * 0.001**0.5, 3e-7])
    found = [learning_rate(transreid, moment) for moment in (0, 5, 60, 120)]
    assert found == pytest.approx([8e-5, 0.008, 0.008 * 0.501, 0.008 * 0.002], rel=0.01)


@pytest.mark.parametrize(
    ("baseline", "losses"),
    [
        ("trinet", {"triplet"}),
        ("pcb", {"identity"}),
        ("mgn", {"triplet", "identity"}),
        ("cbn", {"identity"}),
        ("transreid", {"triplet", "identity"}),
    ],
)
def test_a_methods_losses_and_its_resume(
    baseline: Baseline, losses: set[str], people: PersonPictures, tmp_path: Path
) -> None:
    """With its own optimizer, whose moments a checkpoint keeps: an interrupted run gives the same bits."""
    if baseline == "transreid":
        found = training_set(5, 6, 8, (32, 32))
        people = PersonPictures(found.pictures, found.identities, found.cameras)
    plan = replace(paper_settings("plain", baseline), epochs=2, identities_per_batch=4, learning_rate=1e-3)

    def fresh() -> ReIDModel:
        torch.manual_seed(0)
        return build_model(
            ModelConfig(
                architecture="timm:vit_tiny_patch16_224" if baseline == "transreid" else "resnet10s",
                input=SMALL.model_copy(update={"width": people.pictures.shape[2]}),
                baseline=baseline,
                cameras=tuple(sorted(set(people.cameras.tolist()))) if baseline == "transreid" else (),
            ),
            num_classes=6,
        )

    straight, resumed = fresh(), fresh()
    (first, second) = train(straight, people, plan, tmp_path / "straight", SETTINGS)
    assert set(first.losses) == losses and sum(second.losses.values()) < sum(first.losses.values())

    def kill_in_the_second_epoch(_: str, done: int, total: int) -> None:
        if done == total // 2 + 1:
            raise Killed

    with pytest.raises(Killed):
        train(fresh(), people, plan, tmp_path / "cut", SETTINGS, progress=kill_in_the_second_epoch)
    train(resumed, people, plan, tmp_path / "cut", SETTINGS)
    assert same(state(straight), state(resumed))


def test_the_backbone_has_a_share_of_the_rate(people: PersonPictures, tmp_path: Path) -> None:
    """Of SGD's first step each parameter moves by its rate times the gradient."""
    moved = []
    for share in (1.0, 0.1):
        model = tiny(attention=False)
        before = state(model)
        plan = replace(
            QUICK, strategy="plain", optimizer="sgd", backbone_share=share, weight_decay=0.0, warmup=0, epochs=1,
            identities_per_batch=6, pictures_per_identity=8,
        )  # fmt: skip
        train(model, people, plan, tmp_path / str(share), SETTINGS)
        after = state(model)
        moved.append([(after[name] - before[name]) for name in ("backbone.conv1.weight", "neck.classifier.weight")])
    torch.testing.assert_close(moved[1][0], moved[0][0] * 0.1, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(moved[1][1], moved[0][1])


def test_plans_are_described_as_before_their_later_settings() -> None:
    """Checkpoints and finished rows of earlier versions stay valid."""
    assert set(described(TrainSettings())) == {
        "strategy", "triplet", "margin", "triplet_weight", "triplet_distance", "label_smoothing", "center_weight",
        "center_learning_rate", "epochs", "learning_rate", "module_start", "weight_decay", "warmup", "milestones",
        "identities_per_batch", "pictures_per_identity", "clip_norm", "average_decay", "cached_views", "seed",
        "validate_every",
    }  # fmt: skip
    assert described(replace(TrainSettings(), optimizer="sgd"))["optimizer"] == "sgd"
    config = ModelConfig(architecture="resnet10s")
    assert "cameras" not in described_config(config)
    assert described_config(config.model_copy(update={"cameras": (1,)}))["cameras"] == [1]


def test_losses_are_float32_where_the_backbone_is_not(people: PersonPictures, tmp_path: Path) -> None:
    """In bfloat16, with 8 bits of mantissa, a loss of 1.79 would be 1.7891."""
    plan = replace(QUICK, strategy="plain", epochs=1, identities_per_batch=6, pictures_per_identity=8)
    half = SETTINGS.model_copy(update={"precision": "bfloat16"})
    (record,) = train(tiny(), people, plan, tmp_path / "half", half)
    (exact,) = train(tiny(), people, plan, tmp_path / "whole", SETTINGS.model_copy(update={"precision": "float32"}))
    for name, loss in record.losses.items():
        assert loss != float(torch.tensor(loss).bfloat16()), name
    assert record.losses["identity"] == pytest.approx(exact.losses["identity"], rel=1e-3)


def test_a_step_without_enough_memory_is_one_line(
    people: PersonPictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = Run.step, 0

    def limited(*arguments: Any) -> dict[str, float]:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return step(*arguments)

    plan = replace(QUICK, strategy="plain")
    monkeypatch.setattr(Run, "step", limited)
    with pytest.raises(OutOfDeviceMemory, match="too small for training on batches of 16 pictures of 32x16; use fewer"):
        train(tiny(), people, plan, tmp_path / "cut", SETTINGS)
    resumed, straight = tiny(), tiny()
    assert len(train(resumed, people, plan, tmp_path / "cut", SETTINGS)) == 3
    train(straight, people, plan, tmp_path / "straight", SETTINGS)
    assert same(state(resumed), state(straight))


def test_every_step_is_reported(people: PersonPictures, tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    plan = replace(QUICK, strategy="separate", cached_views=2, epochs=1)
    train(tiny(), people, plan, tmp_path, SETTINGS, progress=lambda *report: reports.append(report))
    assert reports == [
        ("computing the features to train on", 48, 96),
        ("computing the features to train on", 96, 96),
        *(("separate training", batch, 3) for batch in (1, 2, 3)),
    ]


BRITISH = "centre"  # codespell:ignore centre


def test_a_checkpoint_of_version_0_1_is_resumed(people: PersonPictures, tmp_path: Path) -> None:
    """It spells centers in the British way, in its settings, its losses and its tensors."""
    plan = replace(QUICK, strategy="plain", epochs=2)
    straight, resumed = tiny(), tiny()

    def kill(_: str, done: int, total: int) -> None:
        if done == total // 2 + 2:
            raise Killed

    records = train(straight, people, plan, tmp_path / "straight", SETTINGS)
    with pytest.raises(Killed):
        train(tiny(), people, plan, tmp_path / "cut", SETTINGS, progress=kill)
    path = tmp_path / "cut" / CHECKPOINT
    with safe_open(path, "pt") as file:
        run = file.metadata()["run"].replace("center", BRITISH)
        tensors = {name.replace("center", BRITISH): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"run": run})
    again = train(resumed, people, plan, tmp_path / "cut", SETTINGS)
    assert same(state(straight), state(resumed))
    assert [record.losses for record in again] == [record.losses for record in records]


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled")
def test_a_compiler_that_fails_is_one_line_or_a_warning(
    people: PersonPictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` compiles on CUDA only, so this takes the processor for one."""
    plan = replace(QUICK, strategy="plain", epochs=1)
    expected, found = tiny(), tiny()
    train(expected, people, plan, tmp_path / "off", SETTINGS.model_copy(update={"compile": "off"}))
    with pytest.raises(CoreError, match=r"compiled here .*No working C\+\+ compiler.*URBAN_REID_COMPILE=off") as caught:
        train(tiny(), people, plan, tmp_path / "on", SETTINGS.model_copy(update={"compile": "on"}))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(Settings, "compiles", lambda self, device: self.compile != "off")
    with pytest.warns(UserWarning, match=r"compiled here .*No working C\+\+ compiler.*training without"):
        train(found, people, plan, tmp_path / "auto", SETTINGS)
    assert same(state(found), state(expected)), "the trial changed the model"


@pytest.mark.parametrize(
    ("value", "on_cuda", "on_cpu"), [("auto", True, False), ("on", True, True), ("off", False, False)]
)
def test_each_value_of_the_setting(value: str, on_cuda: bool, on_cpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URBAN_REID_COMPILE", value)
    assert (Settings().compiles("cuda"), Settings().compiles("cpu")) == (on_cuda, on_cpu)


@pytest.mark.slow  # torch.compile takes minutes on two cores, and needs a C++ compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_run_learns_the_same(people: PersonPictures, tmp_path: Path) -> None:
    plan = replace(QUICK, strategy="plain", epochs=1)
    eager = train(tiny(), people, plan, tmp_path / "eager", SETTINGS)
    compiled = train(tiny(), people, plan, tmp_path / "compiled", SETTINGS.model_copy(update={"compile": "on"}))
    assert compiled[0].losses == pytest.approx(eager[0].losses, rel=0.05)
