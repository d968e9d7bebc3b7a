"""The client as a distribution of its own: built, and installed where there is nothing else."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import importlib.util, sys
import oddity_client
assert not any(importlib.util.find_spec(name) for name in ("app", "models", "index", "fastapi", "torch", "numpy"))
with oddity_client.Client("http://127.0.0.1:9", retries=oddity_client.Retries(tries=1)) as client:
    try:
        client.alive()
    except oddity_client.Unreachable:
        print("isolated", oddity_client.__file__)
"""


def test_both_projects_say_the_same_of_the_client() -> None:
    client = tomllib.loads((ROOT / "app" / "client" / "pyproject.toml").read_text())["project"]
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert client["version"] == server["version"]
    assert [one.partition(">")[0] for one in client["dependencies"]] == ["httpx", "pydantic"]
    assert set(client["dependencies"]) <= set(server["dependencies"])
    assert (ROOT / "app" / "client" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.slow
def test_it_is_built_and_works_in_an_environment_of_its_own(tmp_path: Path) -> None:
    source = shutil.copytree(
        ROOT / "app" / "client", tmp_path / "source", ignore=shutil.ignore_patterns("*.egg-info", "build")
    )
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "--quiet", "wheel", "--no-deps", "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("oddity_client-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"oddity_client"}
    assert "oddity_client/py.typed" in names
    subprocess.run([python, "-m", "pip", "--quiet", "install", wheel], check=True)
    done = subprocess.run([python, "-I", "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.startswith("isolated ") and str(tmp_path) in done.stdout
