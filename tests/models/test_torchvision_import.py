"""Both branches of importing torchvision: operators that load, and operators that do not."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    head = f"import sys; sys.path[:0] = {[str(path) for path in (*paths, ROOT)]}\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


def write_fake_torchvision(folder: Path, body: str) -> None:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("from torchvision import inner\n")
    (package / "inner.py").write_text(textwrap.dedent(body))


NEEDS_BOTH_SCHEMAS = """
    import torch

    @torch.library.register_fake("torchvision::nms")
    def nms(dets, scores, iou_threshold):
        return dets

    @torch.library.register_fake("torchvision::qnms")
    def qnms(dets, scores, iou_threshold):
        return dets
"""


def test_operators_that_do_not_load_are_declared(tmp_path: Path) -> None:
    write_fake_torchvision(tmp_path, NEEDS_BOTH_SCHEMAS)
    plain = run_python("import torchvision", tmp_path)
    assert "operator torchvision::nms does not exist" in plain.stderr  # or the cure is tested on a healthy package
    cured = run_python(
        """
        import gc
        from models.torchvision_import import import_torchvision, operators_are_declared
        package = import_torchvision()
        gc.collect()
        import torch
        print(operators_are_declared(), package.inner is not None, torch.ops.torchvision.nms.default._schema)
        """,
        tmp_path,
    )
    assert cured.stdout.startswith("True True torchvision::nms(Tensor dets"), cured.stderr


def test_operators_that_load_are_left_alone(tmp_path: Path) -> None:
    write_fake_torchvision(
        tmp_path,
        """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        """
        + NEEDS_BOTH_SCHEMAS,
    )
    done = run_python(
        """
        from models.torchvision_import import import_torchvision, operators_are_declared
        import_torchvision(); import_torchvision()
        print(operators_are_declared())
        """,
        tmp_path,
    )
    assert done.stdout == "False\n", done.stderr


def test_another_fault_of_torchvision_is_not_hidden(tmp_path: Path) -> None:
    write_fake_torchvision(tmp_path, 'raise RuntimeError("the disk is on fire")')
    done = run_python("from models.torchvision_import import import_torchvision; import_torchvision()", tmp_path)
    assert "the disk is on fire" in done.stderr.splitlines()[-1]


def test_installed_torchvision_builds_its_resnets() -> None:
    done = run_python(
        """
        from models.torchvision_import import import_torchvision
        print(import_torchvision() is import_torchvision(), hasattr(import_torchvision().models, "wide_resnet50_2"))
        """
    )
    assert done.stdout == "True True\n", done.stderr


def test_importing_models_imports_nothing_heavy() -> None:
    done = run_python("import models, models.errors; print('torch' in sys.modules or 'PIL' in sys.modules)")
    assert done.stdout == "False\n", done.stderr
