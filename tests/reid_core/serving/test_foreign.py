"""Foreign embedders: small ONNX files written here, and published models."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from reid_core.files import CARD, read_card, write_card
from reid_core.serving.engines import ONNX_INPUT, onnx_providers, openvino_device
from reid_core.serving.extras import load_extra
from reid_core.serving.factory import open_core
from reid_core.serving.foreign import ForeignEmbedder, foreign_card, foreign_files
from reid_core.serving.local import LocalCore
from schemas.cards import InputConvention
from schemas.errors import CoreError, InputError, ModelFileError, VectorError
from schemas.settings import Settings
from tests.helpers.assets import CONVENTION, asset
from tests.helpers.onnx_files import Node, onnx_file, onnx_graph

PLAIN = InputConvention(height=32, width=16, color="rgb", range=1, mean=(0, 0, 0), std=(1, 1, 1))
RETAIL = "models/person-reidentification-retail-0277/person-reidentification-retail-0277.xml"
ANY = ("batch", 3, 32, 16)
Nodes = list[Node]
MEAN: Node = ("GlobalAveragePool", ("image",), "mean", {})


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(1, 256, (count, 32, 16, 3), dtype=np.uint8)


def directory(tmp_path: Path, file: Path, convention: InputConvention) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for part in foreign_files(file):
        shutil.copy(part, folder)
    write_card(foreign_card(file, "foreign", convention, Settings(precision="float32")), folder)
    return folder


@pytest.mark.parametrize("shape", [(1, 3, 32, 16), ("batch", 3, "height", "width")])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_an_onnx_file_is_a_core(tmp_path: Path, shape: tuple[int | str, ...], color: str) -> None:
    convention = PLAIN.model_copy(update={"color": color, "range": 255})
    folder = directory(tmp_path, onnx_file(tmp_path / "m.onnx", shape), convention)
    core = open_core(Settings(home=tmp_path), folder)
    assert isinstance(core, LocalCore)
    assert (core.card.engine, core.card.dims, core.card.input) == ("onnx", 3, convention)
    means = pictures(9).reshape(9, -1, 3).mean(axis=1)
    features = core.embed(pictures(9))
    assert features.dtype == np.float32
    assert np.allclose(features, means if color == "rgb" else means[:, ::-1], rtol=1e-5)
    assert np.array_equal(core.embed(pictures(9)[4:5])[0], features[4])


def test_the_file_fixes_the_inputs_size(tmp_path: Path) -> None:
    card = foreign_card(onnx_file(tmp_path / "m.onnx", ("n", 3, 48, 24)), "m", PLAIN, Settings())
    assert (card.input.height, card.input.width) == (48, 24)


@pytest.mark.parametrize("shape", [(4, 3, 32, 16), (1, 1, 32, 16), (1, 3), (1, 32, 16, 3), (1, 3, 5000, 16)])
def test_inputs_that_are_not_pictures(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelFileError, match=r"finds no picture embedder|input's height 5000: .* 2048$") as caught:
        foreign_card(onnx_file(tmp_path / "m.onnx", shape), "m", PLAIN, Settings())
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path / "m.onnx"))


def ir_file(path: Path, shape: Any, dtype: str = "f32", axes: tuple[int, ...] = (2, 3)) -> Path:
    """An OpenVINO IR whose feature is the mean over `axes` of the picture."""
    openvino = load_extra("openvino")
    operators = openvino.opset13
    image = operators.parameter(openvino.PartialShape(shape), getattr(openvino.Type, dtype))
    mean = operators.reduce_mean(operators.convert(image, "f32"), operators.constant(np.array(axes)), True)
    openvino.save_model(openvino.Model([mean], [image], "mean"), str(path))
    return path


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (None, r"its input has the shape \[\], not that"),  # any number of sizes
        ([2, 3, 32, 16], r"\[2, 3, 32, 16\], not that of one picture"),
        ([0, 3, 32, 16], r"\[0, 3, 32, 16\], not that of one picture"),
        ([1, -1, 32, 16], r"\[1, None, 32, 16\], not that of one picture"),
        ([1, 3, 0, 16], "its input's height 0: Input should be greater than or equal to 16"),
        ([1, 3, 32, 2**31 - 1], "its input's width 2147483647: Input should be less than or equal to 2048"),
    ],
)
def test_an_ir_of_odd_shape_is_one_line(tmp_path: Path, shape: Any, why: str) -> None:
    openvino = load_extra("openvino")
    file = ir_file(tmp_path / "m.xml", openvino.PartialShape.dynamic() if shape is None else shape)
    with pytest.raises(ModelFileError, match=why) as caught:
        foreign_card(file, "m", PLAIN, Settings())
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{file}: ")


def test_an_ir_whose_output_is_no_row_or_whose_input_is_whole_numbers(tmp_path: Path) -> None:
    card = foreign_card(ir_file(tmp_path / "any.xml", [-1, 3, -1, -1]), "m", PLAIN, Settings())
    assert (card.dims, card.input) == (3, PLAIN)
    with pytest.raises(ModelFileError, match="4 pictures give an output of shape"):
        foreign_card(ir_file(tmp_path / "m.xml", [-1, 3, 32, 16], axes=(0, 2, 3)), "m", PLAIN, Settings())
    with pytest.raises(VectorError, match=r"u\.xml: vector 0 of 6 is zero"):
        foreign_card(ir_file(tmp_path / "u.xml", [1, 3, 32, 16], "u8"), "m", PLAIN, Settings())


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"<net", b"\x00" * 1000])
def test_files_that_are_no_models(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(ModelFileError, match="finds no picture embedder") as caught:
        foreign_card(tmp_path / name, "m", PLAIN, Settings())
    assert "\n" not in str(caught.value)


def test_unknown_operators_other_files_and_missing_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="finds no picture embedder"):
        foreign_card(onnx_file(tmp_path / "m.onnx", (1, 3, 32, 16), "Explode"), "m", PLAIN, Settings())
    (tmp_path / "m.tflite").write_bytes(b"TFL3")
    with pytest.raises(ModelFileError, match="not a model file"):
        foreign_card(tmp_path / "m.tflite", "m", PLAIN, Settings())
    (tmp_path / "m.xml").write_bytes(b"<net/>")
    with pytest.raises(ModelFileError, match="are not beside it"):
        foreign_card(tmp_path / "m.xml", "m", PLAIN, Settings())


@pytest.mark.parametrize(
    ("name", "extra", "module"), [("m.onnx", "onnx", "onnxruntime"), ("m.xml", "openvino", "openvino")]
)
def test_an_engine_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python itself marks what cannot be imported
    onnx_file(tmp_path / name, ANY)
    (tmp_path / "m.bin").write_bytes(b"")
    with pytest.raises(CoreError, match=rf"needs {module}: pip install 'urban-reid\[{extra}\]'"):
        foreign_card(tmp_path / name, "m", PLAIN, Settings())


def test_a_published_openvino_model(tmp_path: Path) -> None:
    core = open_core(Settings(home=tmp_path), directory(tmp_path, asset(RETAIL), CONVENTION))
    assert (core.card.engine, core.card.dims) == ("openvino", 256)
    assert (core.card.input.height, core.card.input.width) == (256, 128)
    many = np.random.default_rng(0).integers(0, 256, (5, 256, 128, 3), dtype=np.uint8)
    features = core.embed(many)
    assert np.array_equal(core.embed(many[::-1]), features[::-1])
    assert np.array_equal(core.embed(many[3:4])[0], features[3])
    assert not core.distances(features.astype(np.float64), features.astype(np.float64)).any()


def test_features_are_flattened_to_one_row_a_picture(tmp_path: Path) -> None:
    embedder = ForeignEmbedder.open(onnx_file(tmp_path / "m.onnx", (1, 3, 32, 16)), PLAIN, Settings())
    assert embedder.dims == 3 and embedder(pictures(4)).shape == (4, 3)


# ---- the input convention: stated by whoever registers the file, by the file, or by its publisher


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (None, "--color rgb|bgr, --range 1|255, --mean X,Y,Z, --std X,Y,Z as it"),
        (
            InputConvention(),
            "--color rgb|bgr, --range 1|255, --mean X,Y,Z, --std X,Y,Z as it",
        ),  # a default says nothing
        (InputConvention(color="bgr"), "give --range 1|255, --mean X,Y,Z, --std X,Y,Z as it"),
        (InputConvention(color="bgr", range=255, mean=(0, 0, 0)), "give --std X,Y,Z as it"),
    ],
)
def test_a_file_needs_its_input_convention(tmp_path: Path, given: InputConvention | None, missing: str) -> None:
    file = onnx_file(tmp_path / "m.onnx", ANY)
    with pytest.raises(InputError) as caught:
        foreign_card(file, "m", given, Settings())
    assert str(caught.value).startswith(f"{file}: ") and missing in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_size_that_the_file_leaves_open_has_to_be_given(tmp_path: Path) -> None:
    file = onnx_file(tmp_path / "m.onnx", ("n", 3, "height", "width"))
    colors = InputConvention(color="rgb", range=1, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(InputError, match="give --size HEIGHTxWIDTH as it"):
        foreign_card(file, "m", colors, Settings())
    card = foreign_card(file, "m", colors.model_copy(update={"height": 64, "width": 24}), Settings())
    assert (card.input.height, card.input.width) == (64, 24)


def test_a_file_that_states_its_convention(tmp_path: Path) -> None:
    metadata = {ONNX_INPUT: PLAIN.model_copy(update={"color": "bgr"}).model_dump_json()}
    nodes: Nodes = [("GlobalAveragePool", ("image",), "feature", {})]
    file = onnx_graph(tmp_path / "m.onnx", ANY, nodes, metadata=metadata)
    assert foreign_card(file, "m", None, Settings()).input == PLAIN.model_copy(update={"color": "bgr"})
    assert foreign_card(file, "m", InputConvention(color="rgb"), Settings()).input == PLAIN  # what is given counts
    wrong = onnx_graph(tmp_path / "w.onnx", ANY, nodes, metadata={ONNX_INPUT: '{"range": 7}'})
    with pytest.raises(ModelFileError, match=r"w\.onnx: its input's range 7: "):
        foreign_card(wrong, "m", InputConvention(color="rgb", mean=(0, 0, 0), std=(1, 1, 1)), Settings())
    for text in ("", "[1]", "{", "[" * 50_000):
        damaged = onnx_graph(tmp_path / "d.onnx", ANY, nodes, metadata={ONNX_INPUT: text})
        with pytest.raises(ModelFileError, match=r"d\.onnx: .*an input that is not a JSON object"):
            foreign_card(damaged, "m", PLAIN, Settings())


def test_a_published_file_is_recognized(tmp_path: Path) -> None:
    """0286 is the file of the Open Model Zoo, byte for byte."""
    name = "person-reidentification-retail-0286"
    card = foreign_card(asset(f"models/{name}/{name}.xml"), None, None, Settings())
    assert (card.name, card.input, card.dims) == (name, CONVENTION, 256)
    with pytest.raises(InputError, match="give --color"):
        foreign_card(asset(RETAIL), None, None, Settings())  # of another release


# ---- the device


def test_cuda_is_refused_where_the_engine_has_none(tmp_path: Path) -> None:
    with pytest.raises(
        CoreError, match=r"URBAN_REID_DEVICE=cuda, but this ONNX Runtime has no CUDA provider, only .*CPU"
    ):
        foreign_card(onnx_file(tmp_path / "m.onnx", ANY), "m", PLAIN, Settings(device="cuda"))
    with pytest.raises(CoreError, match=r"URBAN_REID_DEVICE=cuda, but OpenVINO finds no GPU here, only CPU"):
        foreign_card(asset(RETAIL), "m", CONVENTION, Settings(device="cuda"))


def test_the_provider_and_device_that_are_used() -> None:
    cpu, cuda, tensorrt = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
    exact = (cuda, {"use_tf32": "0"})
    both = [tensorrt, cuda, cpu]
    assert onnx_providers(both, Settings(device="auto")) == [exact, cpu]
    assert onnx_providers(both, Settings(device="cuda")) == [exact, cpu]
    assert onnx_providers(both, Settings(device="cuda", precision="bfloat16")) == [(cuda, {}), cpu]
    assert onnx_providers([tensorrt, cpu], Settings(device="cuda")) == [(tensorrt, {}), cpu]
    assert onnx_providers(both, Settings(device="cpu")) == [cpu]
    assert onnx_providers(["AzureExecutionProvider", cpu], Settings(device="auto")) == [cpu]
    for device, expected in (("cuda", "GPU.0"), ("auto", "CPU"), ("cpu", "CPU")):
        assert openvino_device(["CPU", "GPU.0", "GPU.1"], Settings(device=device)) == expected
    assert openvino_device(["CPU", "GPU", "NVIDIA.0"], Settings(device="cuda")) == "NVIDIA.0"
    with pytest.raises(CoreError, match="only CPU, NPU; set it to auto or cpu"):
        openvino_device(["CPU", "NPU"], Settings(device="cuda"))


# ---- files in several parts


def colors_file(path: Path, external: str | None) -> Path:
    """The mean color through a matrix that is kept in another file."""
    matrix = np.arange(15, dtype=np.float32).reshape(5, 3, 1, 1)
    nodes = [MEAN, ("Conv", ("mean", "matrix"), "feature", {})]
    return onnx_graph(path, ANY, nodes, {"matrix": matrix}, external=external)


@pytest.mark.parametrize("name", ["m.onnx", "M.ONNX"])
def test_an_onnx_file_with_external_data_comes_with_its_parts(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    file = colors_file(source / name, f"{name}.data")
    folder = directory(tmp_path, file, PLAIN)
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, name, f"{name}.data"])
    assert sorted(read_card(folder).sha256) == sorted([name, f"{name}.data"])
    shutil.rmtree(source)
    alone = ForeignEmbedder.open(colors_file(tmp_path / "alone.onnx", None), PLAIN, Settings())
    assert np.array_equal(open_core(Settings(home=tmp_path), folder).embed(pictures(3)), alone(pictures(3)))
    data = folder / f"{name}.data"
    data.write_bytes(data.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ModelFileError, match="its SHA-256 is not the one"):
        read_card(folder)


def test_parts_of_parts_are_found(tmp_path: Path) -> None:
    """A tensor in an attribute of a node in a branch of another node."""
    file = onnx_file(tmp_path / "m.onnx", ANY)
    model = onnx.load(file)
    part = onnx.numpy_helper.from_array(np.ones(3, np.float32), "ones")
    part.ClearField("raw_data")
    part.data_location = onnx.TensorProto.EXTERNAL
    part.external_data.add(key="location", value="hidden.data")
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=part)], "inner", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["image"], ["f"], then_branch=inner, else_branch=inner))
    onnx.save(model, file)
    (tmp_path / "hidden.data").write_bytes(bytes(12))
    assert foreign_files(file) == [file, tmp_path / "hidden.data"]


@pytest.mark.parametrize(
    "location", ["../m.data", "/etc/passwd", "sub/m.data", "..", "", "card.json", "m.onnx", "link.data", "folder"]
)
def test_parts_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "source"
    (folder / "folder").mkdir(parents=True)
    (folder / "sub").mkdir()
    file = colors_file(folder / "m.onnx", "m.data")
    for place in (tmp_path, folder / "sub"):
        shutil.copy(folder / "m.data", place)
    (folder / "link.data").symlink_to(tmp_path / "m.data")
    (folder / "card.json").write_text("{}")
    model = onnx.load(file, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    onnx.save(model, file)
    with pytest.raises(ModelFileError, match=r"m\.onnx: keeps tensors in .* not (a plain|another) file") as caught:
        foreign_card(file, "m", PLAIN, Settings())
    assert "\n" not in str(caught.value)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    file = colors_file(tmp_path / "m.onnx", "m.onnx.data")
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelFileError, match=f"{file}: its part m.onnx.data is not beside it"):
        foreign_card(file, "m", PLAIN, Settings())


def test_an_ir_in_capitals(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(asset(RETAIL), source / "R.XML")
    shutil.copy(asset(RETAIL).with_suffix(".bin"), source / "R.BIN")
    folder = directory(tmp_path, source / "R.XML", CONVENTION)
    assert sorted(path.name for path in folder.iterdir()) == ["R.BIN", "R.XML", CARD]
    many = np.random.default_rng(0).integers(0, 256, (1, 256, 128, 3), dtype=np.uint8)
    expected = ForeignEmbedder.open(asset(RETAIL), CONVENTION, Settings())(many)
    assert np.array_equal(open_core(Settings(home=tmp_path), folder).embed(many), expected)


# ---- files that compute no feature


def test_a_feature_of_more_dims_than_the_store_holds(tmp_path: Path) -> None:
    file = onnx_graph(tmp_path / "m.onnx", ("n", 3, 96, 64), [("Flatten", ("image",), "feature", {})])
    with pytest.raises(ModelFileError, match="its output has 18,432 values a picture; a feature has 1 to 16,000 dims"):
        foreign_card(file, "m", PLAIN, Settings())
    nothing: Nodes = [("Slice", ("image", "zero", "zero"), "feature", {})]
    file = onnx_graph(tmp_path / "n.onnx", ANY, nothing, {"zero": np.zeros(4, np.int64)})
    with pytest.raises(ModelFileError, match=r"n\.onnx: "):
        foreign_card(file, "m", PLAIN, Settings())


def test_several_outputs_are_ambiguous(tmp_path: Path) -> None:
    nodes = [MEAN, ("Relu", ("mean",), "feature", {})]
    file = onnx_graph(tmp_path / "m.onnx", ANY, nodes, outputs=("feature", "mean"))
    with pytest.raises(ModelFileError, match="has 2 outputs, and which one is the feature is unknown"):
        foreign_card(file, "m", PLAIN, Settings())


def test_a_card_that_does_not_fit_its_file(tmp_path: Path) -> None:
    folder = directory(tmp_path, onnx_file(tmp_path / "m.onnx", (1, 3, 32, 16)), PLAIN)
    card = read_card(folder)
    for change, why in (
        ({"dims": 4}, "card.json says 4 dims, the file has 3"),
        ({"input": PLAIN.model_copy(update={"height": 64})}, "takes pictures of height 32, and its card says 64"),
    ):
        write_card(card.model_copy(update=change), folder)
        with pytest.raises(ModelFileError, match=why):
            LocalCore.open(Settings(home=tmp_path), folder)


CENTERED: Nodes = [MEAN, ("ReduceMean", ("mean",), "all", {"axes": [0]}), ("Sub", ("mean", "all"), "feature", {})]
NORMALIZED: Nodes = [MEAN, ("LpNormalization", ("mean",), "feature", {"axis": 0, "p": 2})]
NOISY: Nodes = [MEAN, ("RandomNormalLike", ("mean",), "noise", {}), ("Add", ("mean", "noise"), "feature", {})]
CONSTANT: Nodes = [MEAN, ("Mul", ("mean", "zero"), "nothing", {}), ("Add", ("nothing", "one"), "feature", {})]


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        (CENTERED, "order|alone"),
        (NORMALIZED, "order|alone"),
        (NOISY, "in a second run differs .*export it in eval mode"),
        (CONSTANT, "different pictures the same"),
    ],
)
def test_a_trial_refuses_what_is_not_an_embedder(tmp_path: Path, nodes: Nodes, why: str) -> None:
    constants = {"zero": np.zeros(1, np.float32), "one": np.ones(1, np.float32)}
    file = onnx_graph(tmp_path / "m.onnx", ANY, nodes, constants)
    with pytest.raises(ModelFileError, match=f"not an embedder: .*({why})") as caught:
        foreign_card(file, "m", PLAIN, Settings())
    assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("operator", "why"), [("Log", "holds NaN"), ("Relu", "is zero")])
def test_a_trial_refuses_features_that_cannot_be_stored(tmp_path: Path, operator: str, why: str) -> None:
    nodes = [MEAN, ("Neg", ("mean",), "negative", {}), (operator, ("negative",), "feature", {})]
    with pytest.raises(VectorError, match=why):
        foreign_card(onnx_graph(tmp_path / "m.onnx", ANY, nodes), "m", PLAIN, Settings())


#: In a process of its own, which a fault would end.
_INTERRUPTED = """
import faulthandler, gc, os, signal, sys, time
from pathlib import Path
from reid_core.serving.engines import open_file
from schemas.settings import Settings

signal.signal(signal.SIGINT, signal.default_int_handler)
faulthandler.enable()  # gives the process a signal stack, as pytest does
opened = [open_file(Path(sys.argv[1]), Settings()) for _ in range(2)]
for _ in range(2):
    del opened[0]
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_process_that_closed_openvino_models_can_be_interrupted(tmp_path: Path) -> None:
    file = ir_file(tmp_path / "m.xml", [1, 3, 32, 16])
    command = [sys.executable, "-c", _INTERRUPTED, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
