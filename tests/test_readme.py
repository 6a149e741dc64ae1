"""README.md says what is true: its commands run as written, its links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_example_runs(tmp_path):
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "nce-28nm" in done.stdout
    assert "accuracy" in done.stdout


@pytest.mark.slow
def test_vgg16_command_runs(tmp_path):
    (command,) = (
        line for block in blocks("bash") for line in block.splitlines() if "vgg16" in line
    )
    run_command(command, tmp_path)


def test_commands_run_in_their_order(tmp_path):
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    plain = [line for line in commands if line.startswith("nce-sim ") and "vgg16" not in line]
    assert len(plain) >= 3
    for command in plain:
        run_command(command, tmp_path)
    assert (tmp_path / "split-40" / "summary.json").exists()


def run_command(command: str, folder: Path) -> None:
    program = f'"{sys.executable}" -c "from nce_sim.cli.main import main; main()"'
    done = subprocess.run(
        command.replace("nce-sim", program, 1), shell=True, capture_output=True, text=True,
        timeout=600, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_test_command_is_the_one_of_ci():
    assert any("tests/run" in block for block in blocks("bash"))
    assert "tests/run" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/machine.md",
        "docs/method.md",
        "docs/faults.md",
        "docs/voltage.md",
        "docs/safety.md",
        "docs/designs.md",
        "docs/cost.md",
        "docs/protection.md",
        "docs/silicon.md",
    ],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("http"):
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_every_folder_of_the_map_exists():
    for name in re.findall(r"`([a-z_]+/(?:[a-z_-]+/)?)`", README):
        assert (ROOT / name).is_dir() or (ROOT / "nce_sim" / name).is_dir(), name
