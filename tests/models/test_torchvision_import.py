"""Both branches of importing torchvision: operators that load, and operators that do not."""

import subprocess
import sys
import textwrap
from pathlib import Path

from models.torchvision_import import import_torchvision

ROOT = Path(__file__).parents[2]


def printed_by(code: str, *folders: Path) -> list[str]:
    """Lines that a fresh interpreter prints; only there can an import be tried for the first time."""
    head = f"import sys; sys.path[:0] = {[str(path) for path in (*folders, ROOT)]}\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", head + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def write_fake_torchvision(folder: Path, *parts: str) -> Path:
    """A package that fails, where it fails, only after its first module is imported, as the real one does."""
    package = folder / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from torchvision import inner\n")
    (package / "inner.py").write_text("import torch\n" + "".join(textwrap.dedent(part) for part in parts))
    return folder


DECLARES_BOTH = """
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
NEEDS_BOTH = """
    @torch.library.register_fake("torchvision::nms")
    def nms(dets, scores, iou_threshold):
        return dets

    @torch.library.register_fake("torchvision::qnms")
    def qnms(dets, scores, iou_threshold):
        return dets
"""


def test_operators_that_do_not_load_are_declared(tmp_path: Path) -> None:
    lines = printed_by(
        """
        import gc
        try:
            import torchvision
        except RuntimeError as error:  # without the cure it does fail, or the cure is tested on a healthy package
            print(error)
        from models.torchvision_import import import_torchvision, operators_are_declared
        package = import_torchvision()
        gc.collect()
        import torch
        print(operators_are_declared(), package.inner.__name__, import_torchvision() is package)
        print(torch.ops.torchvision.nms.default._schema)
        """,
        write_fake_torchvision(tmp_path, NEEDS_BOTH),
    )
    assert lines[:2] == ["operator torchvision::nms does not exist", "True torchvision.inner True"]
    assert lines[2].startswith("torchvision::nms(Tensor dets")


def test_operators_that_load_are_left_alone_and_other_faults_are_not_hidden(tmp_path: Path) -> None:
    burning = write_fake_torchvision(tmp_path / "burning", 'raise RuntimeError("the disk is on fire")\n')
    healthy = write_fake_torchvision(tmp_path / "healthy", DECLARES_BOTH, NEEDS_BOTH)
    lines = printed_by(
        """
        from models.torchvision_import import import_torchvision, operators_are_declared
        try:
            import_torchvision()
        except RuntimeError as error:
            print(error)
        del sys.path[0]
        print(import_torchvision().__file__, operators_are_declared())
        """,
        burning,
        healthy,
    )
    assert lines == ["the disk is on fire", f"{healthy}/torchvision/__init__.py False"]


def test_the_installed_torchvision_is_imported_once() -> None:
    assert import_torchvision() is import_torchvision() is sys.modules["torchvision"]


def test_importing_models_imports_nothing_heavy() -> None:
    code = "import models, models.errors; print({'torch', 'PIL', 'numpy'} & set(sys.modules))"
    assert printed_by(code) == ["set()"]
