"""Memory of ranking: it must not grow with the number of images, which are read block by block."""

import nce_sim as nce
from benchmarks.child import in_child, peak_mib, reset_peak
from benchmarks.options import Options
from benchmarks.table import Row
from benchmarks.timing import attempt

PACKAGES = ()

FEW, MANY = 256, 1024
PEAK = "MiB above the loaded network, at most"


def measure(options: Options) -> list[Row]:
    """Rank few and many images of All-CNN-C, each in a process of its own."""
    return attempt("nce-sim LRP float32", PEAK, lambda: _rows(options))


def _rows(options: Options) -> list[Row]:
    few, many = options.images(FEW), options.images(MANY)
    found = {count: in_child(ranked, images=count) for count in (few, many)}
    rows = [
        Row.one(f"nce-sim LRP float32, {count:,} images", figure, peaks[name])
        for count, peaks in found.items()
        for name, figure in (("above", PEAK), ("whole", "MiB, whole process"))
    ]
    ratio = found[many]["above"] / found[few]["above"]
    return [*rows, Row.one(f"{many:,} against {few:,} images", "times the memory", ratio)]


def ranked(images: int) -> dict[str, float]:
    """Rank images read as they are needed; return the most memory, MiB."""
    network = nce.load_model("allcnn-fashion")
    data = nce.load_data("fashion-mnist", "test").first(images)
    before = reset_peak()
    nce.rank(network, data.images, data.labels)
    return {"above": peak_mib() - before, "whole": peak_mib()}
