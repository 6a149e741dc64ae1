"""Archives of CIFAR-10 in both published formats, made small."""

import io
import pickle
import struct
import tarfile

import numpy as np

from nce_sim.workload.dataset_descriptions import CIFAR_10


def cifar_batches(count=3):
    """Return pixels N x 3072 and labels by batch."""
    draw = np.random.default_rng(5)
    names = [*CIFAR_10.parts["train"].files, "test_batch"]
    return {
        name: (draw.integers(0, 256, (count, 3072), np.uint8), draw.integers(0, 10, count).tolist())
        for name in names
    }


def of_python_2(pixels, labels):
    """Pickle a batch as Python 2 and the NumPy of then did, opcode by opcode."""

    def text(content):
        return b"U" + bytes([len(content)]) + content

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R("
        b"K\x01" + b"J" + struct.pack("<i", len(pixels)) + b"M\x00\x0c\x86cnumpy\ndtype\n"
        + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def cifar_files(kind, batches):
    """Return the content of each file as published, by name."""
    files = {}
    for name, (pixels, labels) in batches.items():
        if kind == "binary":
            records = np.hstack([np.array(labels, np.uint8)[:, None], pixels])
            files[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
        elif kind == "python 2":
            files[f"cifar-10-batches-py/{name}"] = of_python_2(pixels, labels)
        else:
            content = {b"data": pixels, b"labels": labels, b"batch_label": name.encode()}
            files[f"cifar-10-batches-py/{name}"] = pickle.dumps(content, protocol=4)
    return files


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_cifar(folder, kind, archived, batches):
    files = cifar_files(kind, batches)
    if archived:
        suffix = "binary" if kind == "binary" else "python"
        write_archive(folder / f"cifar-10-{suffix}.tar.gz", files)
        return
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
