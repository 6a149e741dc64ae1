"""A main job that takes a second: a tiny network on made-up images."""

import torch
from small_networks import all_convolutional, images, labels

import nce_sim as nce
from nce_sim.study.main_job import MainJobResult, Plan, run_main_job
from nce_sim.workload.datasets import Dataset

PLAN = Plan(
    fractions=(0.0, 0.4, 1.0),
    dropout_probabilities=(0.5,),
    noise_sigmas=(1.0,),
    ranking_images=70,
    test_images=80,
    realisations=1,
    seed=0,
    ranking_precision="float32",
    precision="float32",
)


def quiet(name, steps):
    return lambda done: None


def small_result() -> MainJobResult:
    network = nce.Workload.from_module(
        all_convolutional(), torch.zeros(1, 2, 12, 12), "tiny <network>"
    )
    train = Dataset("made up", "train", images(70, seed=8), labels(70))
    test = Dataset("made up", "test", images(80), labels(80))
    return run_main_job(network, nce.load_machine("nce-small"), train, test, PLAN, quiet)
