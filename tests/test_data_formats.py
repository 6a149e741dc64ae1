"""Data sets in their published formats, made small: what is read, and what is refused."""

import gzip
import os
import pickle
import shutil
import struct
import threading
from hashlib import md5
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from cifar_parts import cifar_batches, cifar_files, write_archive, write_cifar
from hypothesis import given
from hypothesis import strategies as st
from image_folder_parts import (
    FOLDER_YAML,
    SYNSETS,
    list_classes,
    photo,
    write_folders,
    write_ilsvrc,
    write_record,
)
from PIL import Image

import nce_sim as nce
from nce_sim.workload.data_config import FolderData, NpzData, Parts, ranking_part
from nce_sim.workload.dataset_descriptions import CIFAR_10, DATASETS, MNIST
from nce_sim.workload.datasets import load_data, numbering_doubt
from nce_sim.workload.image_folders import Cut, find_images
from nce_sim.workload.images import pixel_bytes

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# CIFAR-10 -------------------------------------------------------------------------------------


def check_cifar(place, batches):
    mean, deviation = CIFAR_10.scale.mean, CIFAR_10.scale.deviation
    for part, names in (("test", ["test_batch"]), ("train", CIFAR_10.parts["train"].files)):
        data = load_data("cifar-10", part, folder=place)
        assert data.labels.tolist() == [label for name in names for label in batches[name][1]]
        pixels = np.concatenate([batches[name][0] for name in names])
        image, channel, row, column = 2, 1, 5, 30
        value = pixels[image, 1024 * channel + 32 * row + column] / 255
        expected = (value - mean[channel]) / deviation[channel]
        found = data.images[2:3][0, channel, row, column].item()
        assert found == pytest.approx(expected, abs=1e-6)
    assert len(load_data("cifar-10", "ranking", folder=place)) == 3


@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize("kind", ["binary", "python", "python 2"])
def test_cifar_is_read_from_archives_and_folders(tmp_path, kind, archived):
    batches = cifar_batches()
    write_cifar(tmp_path, kind, archived, batches)
    check_cifar(tmp_path, batches)
    (inside,) = tmp_path.iterdir()
    check_cifar(inside, batches)


def test_all_forms_of_cifar_give_the_same_bytes(tmp_path):
    digests = set()
    for kind in ("binary", "python", "python 2"):
        (tmp_path / kind).mkdir()
        write_cifar(tmp_path / kind, kind, True, cifar_batches())
        data = load_data("cifar-10", "train", folder=tmp_path / kind)
        digests.add((b"".join(pixel_bytes(data.images)), tuple(data.labels.tolist())))
    assert len(digests) == 1


@pytest.mark.parametrize("kept", [0, 20, 1000, -30, -4])
@pytest.mark.parametrize("kind", ["binary", "python"])
def test_a_truncated_archive_is_refused(tmp_path, kind, kept):
    write_cifar(tmp_path, kind, True, cifar_batches())
    (archive,) = tmp_path.iterdir()
    archive.write_bytes(archive.read_bytes()[:kept])
    with pytest.raises(nce.InputError, match=r"tar\.gz is truncated or damaged.*fetch it again"):
        load_data("cifar-10", folder=tmp_path)


def test_other_archives_and_folders_are_refused(tmp_path):
    with pytest.raises(nce.InputError, match="holds no CIFAR-10: it must be, or hold"):
        load_data("cifar-10", folder=tmp_path)
    with pytest.raises(nce.InputError, match="holds no CIFAR-10"):
        load_data("cifar-10", folder=tmp_path / "nowhere")
    write_archive(tmp_path / "cifar-10-binary.tar.gz", {"data/readme": b"no batches"})
    with pytest.raises(nce.InputError, match="is no CIFAR-10: it lacks test_batch"):
        load_data("cifar-10", folder=tmp_path)
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(bytes(3073))
    with pytest.raises(nce.InputError, match=r"data_batch_1\.bin"):
        load_data("cifar-10", "train", folder=tmp_path)


class Code:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "run"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda folder: Code(folder), "posix.mkdir, which would run code: refused"),
        (lambda folder: {b"data": Code(folder)}, "would run code: refused"),
        (lambda folder: {b"data": np.zeros((2, 3072), np.uint8)}, "KeyError"),
        (lambda folder: [1], "cannot be read as a batch"),
        (lambda folder: {b"data": [1], b"labels": [1]}, "no array of bytes"),
        (lambda folder: {b"data": np.zeros((2, 3072)), b"labels": [1, 2]}, "no array of bytes"),
        (lambda folder: {b"data": np.zeros((2, 9), np.uint8), b"labels": [1, 2]}, "N x 3072 and N"),
        (lambda folder: {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "N x 3072 and N"),
        (
            lambda folder: {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]},
            "label of cifar-10 is 10; its classes are 0 to 9",
        ),
        (
            lambda folder: {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, -1]},
            "labels begin at 0, and one is -1",
        ),
    ],
)
def test_pickles_hold_arrays_and_nothing_that_runs(tmp_path, content, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content(tmp_path), protocol=4))
    with pytest.raises(nce.InputError, match=message):
        load_data("cifar-10", folder=tmp_path)
    assert not (tmp_path / "run").exists()


def test_truncated_batches_and_wrong_labels_are_refused(tmp_path):
    batches = cifar_batches()
    whole = cifar_files("python", batches)["cifar-10-batches-py/test_batch"]
    (tmp_path / "test_batch").write_bytes(whole[:2000])
    with pytest.raises(nce.InputError, match=r"test_batch cannot be read.*truncated"):
        load_data("cifar-10", folder=tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(bytes(3 * 3073 - 1))
    with pytest.raises(nce.InputError, match=r"9218 bytes, not records of 3073"):
        load_data("cifar-10", folder=tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(bytes([200]) * 3073)
    with pytest.raises(nce.InputError, match="label of cifar-10 is 200"):
        load_data("cifar-10", folder=tmp_path)


# MNIST, and where published files lie ---------------------------------------------------------


def idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def mnist_files(count=4):
    draw = np.random.default_rng(3)
    return {
        name: idx(
            draw.integers(0, 256, (count, 28, 28), np.uint8)
            if "images" in name
            else np.arange(count, dtype=np.uint8)
        )
        for part in MNIST.parts.values()
        for name in part.files
    }


def write_mnist(folder):
    folder.mkdir(parents=True)
    for name, content in mnist_files().items():
        (folder / name).write_bytes(content)


def test_mnist_is_padded_and_scaled(tmp_path):
    write_mnist(tmp_path / "mnist")
    data = load_data(f"mnist={tmp_path / 'mnist'}", "train")
    assert (data.name, data.part, data.labels.tolist()) == ("mnist", "train", [0, 1, 2, 3])
    assert data.images.shape == (4, 1, 32, 32)
    assert data.images[0, 0, 0, 0].item() == pytest.approx(-0.1307 / 0.3081, abs=1e-6)


def test_the_environment_says_where_data_lie(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("NCE_SIM_DATA", str(tmp_path))
    assert len(load_data("mnist")) == 4
    assert len(load_data("digits")) == 797, "what is bundled stays what it is"


def test_labels_beyond_the_classes_are_refused(tmp_path):
    write_mnist(tmp_path / "mnist")
    labels = idx(np.array([1, 2, 3, 11], np.uint8))
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(labels)
    with pytest.raises(nce.InputError, match="label of mnist is 11"):
        load_data("mnist", folder=tmp_path / "mnist")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Serve `files` from this machine to itself; the cache is empty."""
    files = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = files.get(self.path.strip("/"))
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    monkeypatch.delenv("NCE_SIM_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    yield f"http://127.0.0.1:{serving.server_port}/", files
    serving.shutdown()
    thread.join()
    serving.server_close()


def serve(monkeypatch, known, server, files, sums=None):
    address, served = server
    served.update(files)
    sums = sums or {name: md5(content).hexdigest() for name, content in files.items()}
    for key, value in (("url", address), ("md5", sums)):
        monkeypatch.setitem(known.download.__dict__, key, value)


def test_downloads_are_checked_and_kept(server, monkeypatch):
    serve(monkeypatch, MNIST, server, mnist_files())
    assert len(load_data("mnist", "train")) == 4
    server[1].clear()
    assert len(load_data("mnist", "train")) == 4, "from the cache"
    with pytest.raises(nce.InputError, match=r"could not be fetched.*mnist=FOLDER"):
        load_data("mnist", "test")


def test_a_wrong_checksum_is_refused(server, monkeypatch, tmp_path):
    write_cifar(tmp_path, "binary", True, cifar_batches())
    archive = tmp_path / "cifar-10-binary.tar.gz"
    serve(monkeypatch, CIFAR_10, server, {archive.name: archive.read_bytes()})
    assert len(load_data("cifar-10")) == 3
    shutil.rmtree(tmp_path / "cache")
    serve(monkeypatch, CIFAR_10, server, {archive.name: archive.read_bytes() + b"!"},
          {archive.name: md5(archive.read_bytes()).hexdigest()})  # fmt: skip
    with pytest.raises(nce.InputError, match=r"could not be fetched.*does not match"):
        load_data("cifar-10")


def test_imagenet_is_not_downloaded(monkeypatch):
    monkeypatch.delenv("NCE_SIM_DATA", raising=False)
    with pytest.raises(nce.InputError, match=r"cannot be downloaded.*imagenet=FOLDER"):
        load_data("imagenet")


def test_published_checksums_have_their_length_and_files():
    for known in DATASETS.values():
        if known.download is not None:
            fetched = {known.download.archive} if known.download.archive else set().union(
                *(part.files for part in known.parts.values() if not part.bundled)
            )  # fmt: skip
            assert fetched == set(known.download.md5)
            assert all(len(bytes.fromhex(sum_)) == 16 for sum_ in known.download.md5.values())


# Folders of images ----------------------------------------------------------------------------


@pytest.fixture
def ilsvrc(tmp_path):
    write_ilsvrc(tmp_path)
    return tmp_path


def slow_resize(pixels, new):
    """Bilinear with antialias along axis 0: each output weighs inputs by a triangle."""
    old = len(pixels)
    ratio = old / new
    reach = max(ratio, 1)
    rows = []
    for place in range(new):
        centre = (place + 0.5) * ratio
        weights = np.array([max(0, 1 - abs(at + 0.5 - centre) / reach) for at in range(old)])
        rows.append(np.tensordot(weights / weights.sum(), pixels, axes=(0, 0)))
    return np.array(rows)


def slow_preparation(image, resize, height, width):
    """Resize, cut and scale as ImageNet is, pixel by pixel in floating point."""
    pixels = np.asarray(image.convert("RGB"), float)
    short = min(pixels.shape[:2])
    rows, columns = (int(resize * side / short) for side in pixels.shape[:2])
    across = slow_resize(pixels.transpose(1, 0, 2), columns).transpose(1, 0, 2)
    resized = slow_resize(across, rows)
    top, left = round((rows - height) / 2), round((columns - width) / 2)
    return resized[top : top + height, left : left + width]


@pytest.mark.parametrize("size", [(300, 260), (64, 50), (31, 97), (40, 40)])
@pytest.mark.parametrize("cut", [(32, 32, 32), (40, 28, 36)])
def test_resize_and_cut_agree_with_a_slow_twin(tmp_path, size, cut):
    (tmp_path / "val/a").mkdir(parents=True)
    photo(1, *size).save(tmp_path / "val/a/one.png")
    record = FolderData(
        kind="folder", name="photos", folder=str(tmp_path), size=list(cut[1:]), resize=cut[0],
        mean=list(IMAGENET_MEAN), deviation=list(IMAGENET_DEVIATION),
    )  # fmt: skip
    found = load_data(record).images[:1][0].numpy().transpose(1, 2, 0)
    back = (found * IMAGENET_DEVIATION + IMAGENET_MEAN) * 255
    slow = slow_preparation(photo(1, *size), *cut)
    assert back.shape == slow.shape
    assert np.abs(back - slow).max() < 1.6, "two roundings to bytes"
    assert np.abs(back - slow).mean() < 0.5


@given(width=st.integers(1, 400), height=st.integers(1, 400), resize=st.integers(8, 60))
def test_the_cut_has_its_size_whatever_the_image(width, height, resize):
    cut = Cut(resize, 8, 5)
    prepared = cut.of(Image.new("RGB", (width, height)))
    assert prepared.size == (5, 8)


def test_imagenet_is_cut_as_its_standard_says(ilsvrc):
    data = load_data("imagenet", folder=ilsvrc)
    assert data.images.shape == (6, 3, 224, 224)
    image = Image.open(ilsvrc / "val" / SYNSETS[0] / f"{SYNSETS[0]}_0.JPEG")
    expected = (slow_preparation(image, 256, 224, 224) / 255 - IMAGENET_MEAN) / IMAGENET_DEVIATION
    found = data.images[:1][0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1.6 / 255 / min(IMAGENET_DEVIATION)


def test_classes_are_folders_by_name_and_images_come_in_turns(ilsvrc):
    test, train = load_data("imagenet", folder=ilsvrc), load_data("imagenet", "train", ilsvrc)
    assert test.labels.tolist() == [0, 1, 2, 0, 2, 0]
    assert train.labels.tolist() == [0, 1, 2, 0, 1]
    names, _ = find_images(ilsvrc / "val")
    first, second, third = SYNSETS
    assert names == [
        f"{name}/{name}_{number}.JPEG"
        for name, number in (
            (first, 0),
            (second, 0),
            (third, 0),
            (first, 1),
            (third, 1),
            (first, 2),
        )
    ]
    assert find_images(ilsvrc / "val", most=2)[0] == names[:2]


def test_a_part_of_imagenets_classes_is_never_numbered_by_name(ilsvrc):
    whole = load_data("imagenet", folder=ilsvrc)
    assert whole.classes == whole.first(2).classes == 1000
    (ilsvrc / "classes.txt").write_text("\n".join(SYNSETS))
    message = r"classes\.txt lists 3 classes, and imagenet has 1,000.*kind: folder"
    with pytest.raises(nce.InputError, match=message):
        load_data("imagenet", folder=ilsvrc)
    (ilsvrc / "classes.txt").unlink()
    for part, folders in (("test", "val"), ("ranking", "val")):
        with pytest.raises(nce.InputError, match=f"{folders} holds folders of 3 classes"):
            load_data("imagenet", part, ilsvrc)
    shutil.rmtree(ilsvrc / "val")
    with pytest.raises(nce.InputError, match="train holds folders of 3 classes"):
        load_data("imagenet", "train", ilsvrc)
    for number in range(997):
        (ilsvrc / "train" / f"n2{number:07}").mkdir()
        (ilsvrc / "train" / f"n2{number:07}" / "image.JPEG").touch()
    assert load_data("imagenet", "train", ilsvrc).classes == 1000


def test_data_of_ones_own_are_numbered_by_name_and_a_doubt_is_told(ilsvrc):
    data = load_data(write_record(ilsvrc / "data.yaml", FOLDER_YAML))
    assert data.classes == 3
    assert numbering_doubt(data, 3) is None
    assert "number 3 classes and the network has 1,000 answers" in numbering_doubt(data, 1000)


def test_validation_images_may_lie_in_the_folder_itself(ilsvrc):
    list_classes(ilsvrc / "val")
    data = load_data("imagenet", folder=ilsvrc / "val")
    assert data.labels.tolist() == [0, 1, 2, 0, 2, 0]
    with pytest.raises(nce.InputError, match=r"imagenet' has no .*train, where its ranking images"):
        load_data("imagenet", "ranking", folder=ilsvrc / "val")


def test_labels_of_training_images_are_those_of_the_test_images(ilsvrc):
    shutil.rmtree(ilsvrc / "train" / SYNSETS[0])
    assert load_data("imagenet", "ranking", ilsvrc).labels.tolist() == [1, 2, 1]
    (ilsvrc / "train" / "n99").mkdir()
    with pytest.raises(nce.InputError, match="train has classes that are not listed: n99"):
        load_data("imagenet", "ranking", ilsvrc)


def test_a_data_yaml_names_a_folder_beside_it(ilsvrc):
    path = write_record(ilsvrc / "data.yaml", FOLDER_YAML)
    data = load_data(path)
    assert (data.name, data.images.shape) == ("photos", (6, 1, 20, 24))
    assert ranking_part(path, 5_000) == "ranking"
    assert ranking_part(path, 5_001) == "train"


def test_a_list_of_classes_gives_the_labels(ilsvrc):
    (ilsvrc / "classes.txt").write_text("\n".join(["other", *reversed(SYNSETS), ""]))
    path = write_record(ilsvrc / "data.yaml", FOLDER_YAML + "classes: classes.txt\n")
    assert load_data(path).labels.tolist() == [3, 2, 1, 3, 1, 3]
    (ilsvrc / "classes.txt").write_text("one\none\n")
    with pytest.raises(nce.InputError, match="must list all classes"):
        load_data(path)
    (ilsvrc / "classes.txt").unlink()
    with pytest.raises(nce.InputError, match="cannot read the list of classes"):
        load_data(path)


def test_grey_palette_and_transparent_images_become_what_is_asked(tmp_path):
    (tmp_path / "val/a").mkdir(parents=True)
    for mode in ("RGB", "L", "P", "RGBA", "LA", "1", "CMYK"):
        ending = "tif" if mode == "CMYK" else "png"
        photo(1, 20, 20, mode).save(tmp_path / f"val/a/{mode}.{ending}")
    (tmp_path / "val/a/notes.txt").write_text("passed over")
    (tmp_path / "val/a/.hidden.png").write_bytes(b"passed over")
    for mean in ([0.5], [0.5, 0.5, 0.5]):
        record = FolderData(
            kind="folder", name="p", folder=str(tmp_path), size=[20, 20], mean=mean, deviation=mean
        )
        images = load_data(record).images
        assert images[:].shape == (7, len(mean), 20, 20)
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "val/a/deep.png")
    with pytest.raises(nce.InputError, match=r"deep\.png has more than 8 bits"):
        load_data(record).images[:]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_an_image_that_cannot_be_decoded_is_named(ilsvrc, damage):
    path = ilsvrc / "val" / SYNSETS[1] / f"{SYNSETS[1]}_0.JPEG"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[:-300], "text": b"no image", "empty": b""}[damage])
    data = load_data("imagenet", folder=ilsvrc)
    assert len(data.images[:1]) == 1, "the others can be read"
    with pytest.raises(nce.InputError, match=rf"the image {path} cannot be decoded"):
        data.images[:2]


def test_folders_without_images_are_refused(tmp_path, monkeypatch):
    with pytest.raises(nce.InputError, match=r"imagenet' has no .*nowhere, where its test images"):
        load_data("imagenet", folder=tmp_path / "nowhere")
    with pytest.raises(nce.InputError, match="holds no folders: images must lie in one"):
        load_data("imagenet", folder=tmp_path)
    write_folders(tmp_path / "val", SYNSETS, (1, 0, 0))
    list_classes(tmp_path)
    empty = f"no image in the class folder {SYNSETS[1]}, {SYNSETS[2]}"
    with pytest.raises(nce.InputError, match=empty):
        load_data("imagenet", folder=tmp_path)
    (tmp_path / "train").write_text("a file")
    with pytest.raises(nce.InputError, match="cannot read the folder of images"):
        load_data("imagenet", "train", folder=tmp_path)

    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(nce.InputError, match=r"cannot read the folder of images.*denied"):
        load_data("imagenet", folder=tmp_path)


# .npz -----------------------------------------------------------------------------------------


def npz_record(folder, channels=3, **parts):
    mean, deviation = [0.1, 0.2, 0.3][:channels], [0.5, 0.6, 0.7][:channels]
    return NpzData(
        kind="npz", name="arrays", folder=str(folder), mean=mean, deviation=deviation,
        parts=Parts(test="test.npz", **parts),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_arrays_are_scaled_by_channel(tmp_path, dtype):
    images = np.random.default_rng(1).integers(0, 256, (4, 3, 5, 6)).astype(dtype)
    np.savez(tmp_path / "test.npz", images=images, labels=np.array([3, 1, 0, 2], np.uint8))
    data = load_data(npz_record(tmp_path))
    values = images / 255 if dtype is np.uint8 else images
    expected = (values[3, 2, 4, 5] - 0.3) / 0.7
    assert data.images[3:][0, 2, 4, 5].item() == pytest.approx(expected, rel=1e-5)
    assert data.labels.tolist() == [3, 1, 0, 2]


def test_grey_arrays_may_lack_the_channel(tmp_path):
    np.savez_compressed(tmp_path / "test.npz", images=np.zeros((2, 5, 6), np.uint8), labels=[0, 1])
    assert load_data(npz_record(tmp_path, 1)).images.shape == (2, 1, 5, 6)


GOOD = np.zeros((2, 3, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": GOOD, "y": [0, 1]}, r"holds x, y: an \.npz with the arrays images and labels"),
        ({"images": GOOD}, "holds images: an"),
        ({"images": GOOD.astype(float), "labels": [0, 1]}, "type float64; uint8 and float32"),
        ({"images": GOOD.transpose(0, 2, 3, 1), "labels": [0, 1]}, "N x 3 x H x W is needed"),
        ({"images": GOOD[:0], "labels": []}, "N x 3 x H x W is needed"),
        ({"images": GOOD, "labels": [0, 1, 2]}, "2 whole numbers are needed"),
        ({"images": GOOD, "labels": [0.0, 1.0]}, "2 whole numbers are needed"),
        ({"images": GOOD, "labels": [0, -1]}, "labels begin at 0, and one is -1"),
        ({"images": np.array([Code(Path())], object), "labels": [0]}, "cannot read .*test.npz"),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "test.npz", **{name: np.asarray(value) for name, value in arrays.items()})
    with pytest.raises(nce.InputError, match=message):
        load_data(npz_record(tmp_path))


def test_files_that_are_no_archives_are_refused(tmp_path):
    with pytest.raises(nce.InputError, match=r"has no .*test\.npz, where its test images"):
        load_data(npz_record(tmp_path))
    (tmp_path / "test.npz").write_bytes(b"no archive")
    with pytest.raises(nce.InputError, match="cannot read"):
        load_data(npz_record(tmp_path))
    with pytest.raises(nce.InputError, match="names no training images"):
        load_data(npz_record(tmp_path), "ranking")
    np.save(tmp_path / "array.npy", GOOD)
    (tmp_path / "array.npy").rename(tmp_path / "test.npz")
    with pytest.raises(nce.InputError, match=r"test\.npz"):
        load_data(npz_record(tmp_path))


def test_values_that_are_not_finite_are_refused_when_they_are_read(tmp_path):
    images = np.zeros((4, 3, 2, 2), np.float32)
    images[2, 1, 0, 0] = np.nan
    np.savez(tmp_path / "test.npz", images=images, labels=[0, 1, 2, 3])
    data = load_data(npz_record(tmp_path))
    assert len(data.images[:2]) == 2
    with pytest.raises(nce.InputError, match="hold NaN or infinity"):
        data.images[2:]
