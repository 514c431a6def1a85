"""Bundles made to harm: signed by a trusted key or not, each is refused with a sentence, soon and in little memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import tifffile
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from asperity.runtime.bundle.reader import open_bundle
from asperity.runtime.errors import BundleError
from asperity.runtime.judging.recipes import recipe_name
from asperity.runtime.security.signing_keys import TrustStore
from tests.bundle_factory import HEIGHT_PX, WIDTH_PX, ToyBundle, write_toy_bundle
from tests.deflated import deflated_zeros

pytestmark = pytest.mark.usefixtures("forked_starts")

CPU_S, MEMORY_MB = 5.0, 500
LONG_S = 120
"""For a child of a crowded machine; what hangs takes longer."""

CHILD = """
import resource, sys
from pathlib import Path
from asperity.runtime.commands.inspect_bundle import command
from asperity.runtime.errors import AsperityError
try:
    command(Path(sys.argv[1]), keys=Path(sys.argv[2]), gate=False, threads=1, as_json=False)
except AsperityError as error:
    print("refused:", error)
used = resource.getrusage(resource.RUSAGE_SELF)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(used.ru_utime + used.ru_stime, int(status["VmHWM"].split()[0]) / 1000)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ToyBundle:
    folder = tmp_path_factory.mktemp("whole")
    return write_toy_bundle(folder / "bundle", TrustStore(folder / "keys"))


@pytest.fixture
def toy(whole: ToyBundle, tmp_path: Path) -> ToyBundle:
    """A copy, to be altered."""
    return ToyBundle(Path(shutil.copytree(whole.path, tmp_path / "bundle")), whole.key, whole.trust)


Change = Callable[[ToyBundle], None]


def edits_graph(change: Callable[[onnx.ModelProto], Any]) -> Change:
    """Changes the RGB network and signs the bundle again."""

    def alter(toy: ToyBundle) -> None:
        path = toy.path / "rgb.onnx"
        model = onnx.load_from_string(path.read_bytes())
        change(model)
        path.write_bytes(model.SerializeToString())
        toy.reseal()

    return alter


OUTSIDE = "outside.bin"


def outside(name: str) -> onnx.TensorProto:
    """A weight that is to be read from a file of the box, which lies in the folder where the command is given."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=OUTSIDE)
    return tensor


def inner_graph(name: str, tensor: onnx.TensorProto) -> onnx.GraphProto:
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])
    return helper.make_graph([helper.make_node("Identity", [tensor.name], [name])], "inner", [], [out], [tensor])


def add_branch(model: onnx.ModelProto) -> None:
    """An ``If`` whose branches bring their weights from outside."""
    yes = numpy_helper.from_array(np.array(True), "yes")
    model.graph.initializer.append(yes)
    branches = {
        "then_branch": inner_graph("a", outside("stolen")), "else_branch": inner_graph("b", outside("other"))
    }  # fmt: skip
    model.graph.node.append(helper.make_node("If", ["yes"], ["branched"], **branches))


def add_endless_loop(model: onnx.ModelProto) -> None:
    """As long as "go" is true, which it always is."""
    step, go, on, value, same = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (
            ("i", TensorProto.INT64), ("go", TensorProto.BOOL), ("on", TensorProto.BOOL),
            ("value", TensorProto.BOOL), ("same", TensorProto.BOOL),
        )
    )  # fmt: skip
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("go", "on"), ("value", "same"))]
    body = helper.make_graph(nodes, "body", [step, go, value], [on, same])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "begin"))
    model.graph.node.append(helper.make_node("Loop", ["", "begin", "begin"], ["never"], body=body))


def add_sparse(model: onnx.ModelProto) -> None:
    values = outside("sparse")
    indices = numpy_helper.from_array(np.arange(4), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8]))


def add_function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Constant", [], ["y"], value=outside("stolen"))]
    model.functions.append(helper.make_function("own", "F", [], ["y"], body, [helper.make_opsetid("", 18)]))


def add_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.CopyFrom(inner_graph("a", outside("stolen")))


def add_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["stolen"], value=outside("stolen")))


def hide_attribute(kind: str) -> Callable[[onnx.ModelProto], None]:
    """An operator that is allowed gets an attribute that it has no use for."""

    def change(model: onnx.ModelProto) -> None:
        attribute = model.graph.node[0].attribute.add(name="hidden")
        if kind in ("g", "graphs"):
            inner = inner_graph("a", outside("stolen"))
            attribute.type = onnx.AttributeProto.GRAPH
            attribute.g.CopyFrom(inner) if kind == "g" else attribute.graphs.append(inner)
        elif kind == "tensors":
            attribute.type = onnx.AttributeProto.TENSORS
            attribute.tensors.append(outside("stolen"))
        else:
            attribute.type = onnx.AttributeProto.SPARSE_TENSOR
            attribute.sparse_tensor.values.CopyFrom(outside("stolen"))

    return change


def take_foreign_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.somebody", 1))
    model.graph.node[0].domain = "com.somebody"


def expand_beyond_reason(model: onnx.ModelProto) -> None:
    """A network that is right but for 4 TB on its way, of constants: an optimiser computes them when it is opened."""
    graph = model.graph
    graph.initializer.extend([
        numpy_helper.from_array(np.ones((1, 1), np.float32), "one"),
        numpy_helper.from_array(np.array([2**20, 2**20]), "large"),
        numpy_helper.from_array(np.array([0, 1]), "axes"),
    ])  # fmt: skip
    graph.node[-1].output[0] = "before"
    graph.node.extend([
        helper.make_node("Expand", ["one", "large"], ["huge"]),
        helper.make_node("ReduceMax", ["huge", "axes"], ["small"], keepdims=0),
        helper.make_node("Add", ["before", "small"], ["tokens"]),
    ])  # fmt: skip


def double_again_and_again(model: onnx.ModelProto) -> None:
    graph = model.graph
    name = "kernel"
    for number in range(30):
        graph.node.append(helper.make_node("Concat", [name, name], [f"twice{number}"], axis=0))
        name = f"twice{number}"


def pose_as_onnx(toy: ToyBundle) -> None:
    """Bytes that are an ONNX model to one reader, and ONNX Runtime's own format to another."""
    path = toy.path / "rgb.onnx"
    path.write_bytes(b"\x12\x06..ORTM" + path.read_bytes())
    toy.reseal()


def many_entries(toy: ToyBundle) -> None:
    path = toy.path / "rgb.onnx"
    path.write_bytes(path.read_bytes() + b"\x08\x08" * 20_000_000)
    toy.reseal()


def png_bomb(toy: ToyBundle) -> None:
    """60 000 x 60 000 pixels of one colour."""
    side = 60_000

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    pixels = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    content = b"".join(pixels.compress(row) for _ in range(64)) + pixels.flush()
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    (toy.path / "golden" / "rgb" / "near.png").write_bytes(data)
    toy.reseal()


def png_bomb_as_described(toy: ToyBundle) -> None:
    png_bomb(toy)
    toy.edit(lambda m: m["geometry"].update(height_px=60_000, width_px=60_000))


def tiff_bomb(toy: ToyBundle) -> None:
    """As large as its frame by what it says, and 1 GB when a strip is inflated."""
    path = toy.path / "golden" / "xyz" / "near.tiff"
    tifffile.imwrite(path, np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.float32), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offsets, counts = (tiff.pages.first.tags[tag] for tag in (273, 279))
        kinds = {3: 2, 4: 4, 16: 8}
        places = [(tag.valueoffset, kinds[int(tag.dtype)]) for tag in (offsets, counts)]
    bomb = deflated_zeros(60)
    data = bytearray(path.read_bytes())
    for (at, width), value in zip(places, (len(data), len(bomb)), strict=True):
        data[at : at + width] = value.to_bytes(width, "little")
    path.write_bytes(bytes(data) + bomb)
    toy.reseal()


def tiff_in_a_circle(toy: ToyBundle) -> None:
    path = toy.path / "golden" / "xyz" / "near.tiff"
    data = bytearray(path.read_bytes())
    at = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[at : at + 2], "little")
    link = at + 2 + 12 * entries
    data[link : link + 4] = at.to_bytes(4, "little")
    path.write_bytes(data)
    toy.reseal()


def in_its_place(name: str, put: Callable[[Path], None]) -> Change:
    def alter(toy: ToyBundle) -> None:
        (toy.path / name).unlink()
        put(toy.path / name)

    return alter


def sparse(nbytes: int) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(nbytes)

    return put


def list_huge(toy: ToyBundle) -> None:
    """3 GB of zeros, listed as such."""
    sparse(3 * 2**30)(toy.path / "banks.safetensors")
    values = toy.manifest()
    next(file for file in values["files"] if file["path"] == "banks.safetensors")["nbytes"] = 3 * 2**30
    data = msgspec.json.encode(values)
    (toy.path / "manifest.json").write_bytes(data)
    (toy.path / "signature").write_bytes(toy.key.sign(data))


def nest_deeply(toy: ToyBundle) -> None:
    data = b'{"format": 1, "surprise": ' + b"[" * 1_000_000
    (toy.path / "manifest.json").write_bytes(data)
    (toy.path / "signature").write_bytes(toy.key.sign(data))


def crowd(toy: ToyBundle) -> None:
    for number in range(5000):
        (toy.path / f"{number}").touch()


BUNDLES: list[tuple[str, Change, str]] = [
    ("branch with weights from outside", edits_graph(add_branch), "operator 'If'"),
    ("endless loop", edits_graph(add_endless_loop), "operator 'Loop'"),
    ("sparse weights from outside", edits_graph(add_sparse), "sparse weights"),
    ("function", edits_graph(add_function), "custom functions"),
    ("training information", edits_graph(add_training), "training information"),
    ("constant from outside", edits_graph(add_constant), "'Constant'"),
    ("graph in an attribute", edits_graph(hide_attribute("g")), "a graph inside a node"),
    ("graphs in an attribute", edits_graph(hide_attribute("graphs")), "graphs inside a node"),
    ("tensors in an attribute", edits_graph(hide_attribute("tensors")), "tensors in an attribute"),
    ("sparse tensor in an attribute", edits_graph(hide_attribute("sparse")), "sparse tensor in an attribute"),
    ("operator of somebody", edits_graph(take_foreign_operator), "'com.somebody'"),
    ("expanded constant", edits_graph(expand_beyond_reason), "'huge'"),
    ("doubled 30 times", edits_graph(double_again_and_again), "computes tensor 'twice"),
    ("ONNX Runtime's own format", pose_as_onnx, "own format"),
    ("millions of entries", many_entries, "entries"),
    ("PNG bomb", png_bomb, "golden/rgb/near.png"),
    ("PNG bomb as described", png_bomb_as_described, "60000 x 60000 pixels"),
    ("TIFF bomb", tiff_bomb, "golden/xyz/near.tiff"),
    ("TIFF form a loop", tiff_in_a_circle, "form a loop"),
    ("manifest is a pipe", in_its_place("manifest.json", os.mkfifo), "manifest.json cannot be read (it is a pipe"),
    ("manifest is a device", in_its_place("manifest.json", lambda p: p.symlink_to("/dev/zero")), "it is a link"),
    ("manifest without end", in_its_place("manifest.json", sparse(2**40)), "larger than"),
    ("signature is a pipe", in_its_place("signature", os.mkfifo), "signature cannot be read (it is a pipe"),
    ("network is a pipe", in_its_place("rgb.onnx", os.mkfifo), "rgb.onnx is a link or device"),
    ("network grew by a terabyte", in_its_place("rgb.onnx", sparse(2**40)), "rgb.onnx was modified"),
    ("3 GB of bank", list_huge, "banks.safetensors is listed with 3221225472 bytes"),
    ("nested manifest", nest_deeply, "manifest.json cannot be used"),
    ("crowded folder", crowd, "more than 256 files"),
]  # fmt: skip


def inspected(toy: ToyBundle) -> str:
    """What `asperity inspect` says in a process of its own."""
    (toy.path.parent / OUTSIDE).write_bytes(np.arange(4, dtype="<f4").tobytes())
    command = [sys.executable, "-c", CHILD, str(toy.path), str(toy.trust.folder)]
    done = subprocess.run(command, capture_output=True, timeout=LONG_S, cwd=toy.path.parent, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize(("change", "words"), [it[1:] for it in BUNDLES], ids=[it[0] for it in BUNDLES])
def test_a_hostile_bundle_is_refused_with_a_sentence_soon_and_in_little_memory(
    toy: ToyBundle, change: Change, words: str
) -> None:
    change(toy)
    *_, sentence, figures = inspected(toy).splitlines()
    assert sentence.startswith("refused: ") and words in sentence, sentence
    cpu_s, memory_mb = map(float, figures.split())
    assert cpu_s < CPU_S and memory_mb < MEMORY_MB, (cpu_s, memory_mb)


@pytest.mark.parametrize(
    "put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), sparse(2**40), lambda path: path.mkdir()],
    ids=["pipe", "device", "huge", "folder"],
)  # fmt: skip
def test_a_manifest_that_is_no_file_names_no_recipe(toy: ToyBundle, put: Callable[[Path], None]) -> None:
    in_its_place("manifest.json", put)(toy)
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        recipe_name(toy.path)


def test_the_memory_that_an_honest_bundle_takes_is_the_measure(toy: ToyBundle) -> None:
    """The control: the same child opens the bundle when nothing is wrong with it."""
    said = inspected(toy)
    assert "opens, signed by trusted key" in said and "refused" not in said


def test_what_a_bundle_says_of_itself_cannot_move_the_cursor(toy: ToyBundle) -> None:
    def change(values: dict[str, Any]) -> None:
        values["geometry"]["why"] = "good\x1b[2K\rstate      opens, signed by trusted key 0000"
        values["weights"][0]["source"] = "a\u202eb\nstate      opens"

    toy.edit(change)
    said = inspected(toy)
    assert "\x1b" not in said and "\r" not in said and "\u202e" not in said
    assert r"good\x1b[2K\rstate" in said and r"a\u202eb\nstate" in said
    (toy.path / "golden" / "a\x1b[31mb\udcff").touch()
    with pytest.raises(BundleError, match=r"holds golden/a\\x1b\[31mb\\udcff, which manifest"):
        open_bundle(toy.path, toy.trust)


def test_masks_and_frames_keep_their_limits(toy: ToyBundle) -> None:
    """The control of the limits: a mask as large as the frame, and a cloud of noise, which nothing compresses."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT_PX, WIDTH_PX), dtype=np.uint8)
    (toy.path / "masks").mkdir()
    Image.fromarray(noise).save(toy.path / "masks" / "inspect.png")
    toy.edit(lambda m: m["geometry"].update(inspect_mask="masks/inspect.png"))
    assert open_bundle(toy.path, toy.trust).inspect_mask() is not None
