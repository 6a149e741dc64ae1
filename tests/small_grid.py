"""A tiny network on the splits of a grid, and answers of it."""

from functools import cache

import numpy as np
import torch
from hardware import fused, machine
from small_networks import fill, images
from torch import nn

import nce_sim as nce
from nce_sim.accuracy.evaluate import predict_variants
from nce_sim.faults.effects import RandomValue
from nce_sim.faults.sites import Site
from nce_sim.runtime.answers import Asked
from nce_sim.runtime.checks import Checks
from nce_sim.runtime.conditions import Conditions
from nce_sim.runtime.grid import Grid, GridPoint
from nce_sim.runtime.real_answers import RealAnswers
from nce_sim.runtime.strikes import LaneFaults

FRACTIONS = (0.0, 0.3, 0.6, 1.0)
MACHINES = {
    "fp16": machine,
    "int8": lambda: machine(number_format="int8"),
    "fused": fused,
    "retries": lambda: machine(protected__array__scheme="dmr_retry"),
}


@cache
def network():
    """65 neurons: a convolution and two fully connected layers."""
    layers = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=3), nn.ReLU(),
        nn.Flatten(), nn.Linear(48, 12), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip
    return nce.Workload.from_module(fill(layers, 4), images(1))


@cache
def calibration():
    return nce.calibrate(network(), images(30, seed=8))


@cache
def labels(count=30, kind="fp16"):
    """What the network answers without faults."""
    precision = "int8" if kind == "int8" else "float16"
    found = predict_variants(
        network(), images(count), [], precision=precision, calibration=calibration()
    )
    return torch.from_numpy(found.clean.astype(np.int64))


@cache
def grid(kind="fp16"):
    ranking = nce.rank(network(), None, None, "random", seed=2)
    points = []
    for fraction in FRACTIONS:
        split = ranking.split(fraction)
        run = nce.simulate(network(), MACHINES[kind](), split)
        points.append(GridPoint(fraction, split, run))
    return Grid(tuple(points), {})


def lane_faults(rate=1.0, site="unprotected.lane", effect=None):
    return LaneFaults(Site.parse(site), effect or RandomValue(), rate)


def real(kind="fp16", faults=None, checks=None, seed=3, count=30):
    return RealAnswers(
        network(), grid(kind), images(count), labels(count, kind), faults or lane_faults(),
        checks or Checks(1.0), seed=seed, calibration=calibration() if kind == "int8" else None,
    )  # fmt: skip


def asked(request, point, rate=0.0, dead=0.0):
    """A request of a stream in which inferences may overlap blocks of cycles."""
    return Asked(request, request * 5000, point, Conditions(rate_factor=rate, dead_share=dead))
