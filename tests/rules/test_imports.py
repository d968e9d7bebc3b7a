"""Which way imports may point, and who owns which library. Read from the source; nothing is imported."""

import ast
import subprocess
import sys
from collections.abc import Iterator

from tests.rules.source_tree import EVERYWHERE, PACKAGES, ROOT, SKIP, Finding, Source, sources, unskipped

LAYERS = {"index": set(), "models": {"index"}, "app": {"models", "index"}, "migrations": {"app"}}
OURS = {*LAYERS, "benchmarks", "tests"}
OWNERS = {
    "torch": ("models/",),
    "torchvision": ("models/",),
    "openvino": ("models/openvino_import.py",),  # without its telemetry
    "faiss": ("index/faiss_",),
    "fastapi": ("app/",),
    "starlette": ("app/",),
    "sqlalchemy": ("app/", "migrations/"),
    "alembic": ("app/", "migrations/"),
}
LOADERS = {
    "models/catalog.py",  # methods, when they are asked for
    "index/factory.py",  # FAISS, when a kind needs it
    "index/__init__.py",
    "app/cli/main.py",  # one command, not all: `oddity --help` needs neither torch nor a database
    "app/cli/client.py",
    "models/backbones/ranges.py",  # NNCF: seconds, needed once in the life of a backbone
    "models/torchvision_import.py",  # torchvision, after its operators are known to be there
}
RULES = {
    "layers",
    "owners",
    "import-in-function",
    "import-by-name",
    "features",
    "strange-bytes",
    "no-pickle",
    "no-mock",
    "module-name",
    "environment",
    "clock",
    "seed",
    "broad-except",
    "mention",
}


def wrong_way(source: Source) -> Iterator[Finding]:
    """Imports that point against app -> models -> index."""
    allowed = LAYERS.get(source.package, OURS)
    if source.path.startswith("app/cli/"):
        allowed = allowed | {"benchmarks"}  # the command line is the front of the harness, the service is not
    package = source.package
    if source.path.startswith("app/client/"):
        package, allowed = "app/client", set()  # a distribution of its own, which knows the service by its REST alone
    for one in source.imports():
        if one.root in OURS and one.root != package and one.root not in allowed:
            yield Finding(source, one.line, f"{package} must not import {one.target}")


def wrong_owner(source: Source) -> Iterator[Finding]:
    """Imports of a library outside the folder that owns it."""
    for one in source.imports():
        owners = OWNERS.get(one.root)
        if owners and not source.path.startswith(owners):
            yield Finding(source, one.line, f"{one.root} belongs to {' and '.join(owners)}")


def imports_in_functions(source: Source) -> Iterator[Finding]:
    """Imports that are hidden in a function."""
    for one in source.imports():
        if one.inside_function and source.path not in LOADERS:
            yield Finding(source, one.line, f"{one.target} is imported inside a function")


def imports_by_name(source: Source) -> Iterator[Finding]:
    """Imports that are hidden in a string."""
    for name, call in source.calls():
        if name in ("importlib.import_module", "__import__") and source.path not in LOADERS:
            yield Finding(source, call.lineno, f"{name} imports what no reader of the imports can see")


def features(source: Source) -> Iterator[Finding]:
    """Within a package: endpoints without SQL, services without HTTP, methods without one another."""
    parts = source.path.split("/")
    for one in source.imports():
        if (
            source.package == "app"
            and parts[-1] == "endpoints.py"
            and one.root == "sqlalchemy"
            and not one.target.startswith("sqlalchemy.exc.")  # to name an error is not to run SQL
        ):
            yield Finding(source, one.line, "endpoints import no sqlalchemy")
        if source.package == "app" and parts[-1] == "service.py" and one.root in ("fastapi", "starlette"):
            yield Finding(source, one.line, f"services import no {one.root}")
        target = one.target.split(".")
        if parts[:2] == ["models", "methods"] and len(parts) > 3:
            if target[:2] == ["models", "methods"] and target[2:3] not in ([], [parts[2]]):
                yield Finding(source, one.line, f"a method imports no other method, here {one.target}")
            if target[:2] == ["models", "catalog"]:
                yield Finding(source, one.line, "a method does not know the catalogue")


def strange_bytes(source: Source) -> Iterator[Finding]:
    """Decoding in the service past `core.embedders`, which has it done where a crash costs one image."""
    if source.package != "app" or source.path.startswith("app/cli/"):
        return
    decoding = {f"models.images.{one}" for one in ("decode_image", "decode_raster", "thumbnail")}
    for one in source.imports():
        if one.root == "PIL" or one.target in decoding or one.target.startswith("models.decoding.tasks"):
            yield Finding(source, one.line, f"{one.target} decodes in the server's own process")
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "prepare"
            and any(isinstance(one, ast.Attribute) and one.attr == "limits" for one in node.args)
        ):
            yield Finding(source, node.lineno, "an embedder's own `prepare` decodes in the server's own process")


def pickles(source: Source) -> Iterator[Finding]:
    """Anything that could run code from a file."""
    for one in source.imports():
        if one.root in ("pickle", "cloudpickle", "dill", "shelve", "marshal"):
            yield Finding(source, one.line, f"{one.root} runs what it reads")
    for name, call in source.calls():
        if name in ("torch.load", "numpy.load"):
            safe = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}[name]
            given = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
            if given.get(safe[0]) is not safe[1]:
                yield Finding(source, call.lineno, f"{name} must be told {safe[0]}={safe[1]}")


def mocks(source: Source) -> Iterator[Finding]:
    """Mocks, where the real thing or a real fake runs."""
    for one in source.imports():
        if one.target.startswith("unittest.mock") or one.root == "mock":
            yield Finding(source, one.line, "no mocks: use the real thing or a fake that is a real class")


def check(rule, finder, *folders):
    assert unskipped(rule, (found for source in sources(*folders) for found in finder(source))) == []


def caught(finder, path, text):
    return [finding.what for finding in finder(Source(path, text))]


def test_arrows_point_one_way():
    check("layers", wrong_way, *PACKAGES)
    assert caught(wrong_way, "models/x.py", "from app.main import y")
    assert caught(wrong_way, "index/x.py", "import models.errors")
    assert caught(wrong_way, "app/x.py", "from benchmarks import y")
    assert not caught(wrong_way, "app/x.py", "from models import y\nimport index")
    assert caught(wrong_way, "app/client/oddity_client/x.py", "from app.settings import Settings")
    assert not caught(wrong_way, "app/cli/x.py", "from benchmarks import y")


def test_libraries_have_owners():
    check("owners", wrong_owner, *PACKAGES)
    assert caught(wrong_owner, "app/x.py", "import torch.nn")
    assert caught(wrong_owner, "index/exact.py", "import faiss")
    assert caught(wrong_owner, "models/x.py", "from sqlalchemy import select")
    assert not caught(wrong_owner, "index/faiss_flat.py", "import faiss")


def test_no_import_hides_in_a_function():
    check("import-in-function", imports_in_functions, *EVERYWHERE)
    check("import-by-name", imports_by_name, *PACKAGES)
    assert caught(imports_in_functions, "app/x.py", "def f():\n    import json")
    assert caught(imports_in_functions, "app/x.py", "class A:\n    async def f(self):\n        from a import b")
    assert not caught(imports_in_functions, "app/x.py", "try:\n    import json\nexcept ImportError:\n    raise")
    assert caught(imports_by_name, "app/x.py", "from importlib import import_module as im\nim('torch')")


def test_files_of_one_name_keep_to_their_part():
    check("features", features, *PACKAGES)
    assert caught(features, "app/a/endpoints.py", "from sqlalchemy import select")
    assert caught(features, "app/a/service.py", "import fastapi")
    assert caught(features, "models/methods/one/method.py", "from models.methods.other import maths")
    assert caught(features, "models/methods/one/method.py", "from models.methods import other")
    assert caught(features, "models/methods/one/method.py", "from models import catalog")
    assert not caught(features, "models/methods/one/method.py", "from models.methods.one import maths")
    assert caught(features, "models/methods/one/method.py", "from ..other import maths")


def test_strange_bytes_are_decoded_in_one_place():
    check("strange-bytes", strange_bytes, "app")
    assert caught(strange_bytes, "app/x.py", "from models.images import thumbnail")
    assert caught(strange_bytes, "app/x.py", "from PIL import Image")
    assert caught(strange_bytes, "app/x.py", "embedder.prepare(data, core.embedders.limits)")
    assert not caught(strange_bytes, "app/x.py", "core.embedders.prepare(embedder, images)")


def test_a_process_that_decodes_loads_no_more_than_it_takes():
    script = "import sys, models.decoding.worker\nprint({name.partition('.')[0] for name in sys.modules})\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "PIL" in done.stdout
    assert not any(
        f"'{one}'" in done.stdout for one in ("asyncio", "torch", "scipy", "faiss", "app", "index", "sqlalchemy")
    )


def test_nothing_is_unpickled():
    check("no-pickle", pickles, *PACKAGES, "benchmarks")
    assert caught(pickles, "app/x.py", "import pickle")
    assert caught(pickles, "models/x.py", "import torch\ntorch.load('a')")
    assert caught(pickles, "models/x.py", "import numpy as np\nnp.load('a')")
    assert not caught(pickles, "models/x.py", "import numpy as np\nnp.load('a', allow_pickle=False)")


def test_no_mocks():
    check("no-mock", mocks, "tests")
    assert caught(mocks, "tests/x.py", "from unittest import mock")


def test_every_skip_names_a_rule_and_a_reason(capsys):
    in_use = []
    for source in sources(*EVERYWHERE):
        for number, line in enumerate(source.text.splitlines(), start=1):
            if "rule-skip:" in line and not source.path.startswith("tests/rules/"):
                found = SKIP.search(line)
                assert found, f"{source.path}:{number}: a skip must read `# rule-skip: <rule> <reason>`"
                assert found["rule"] in RULES, f"{source.path}:{number}: there is no rule {found['rule']!r}"
                in_use.append(f"{source.path}:{number}: {found['rule']}")
    with capsys.disabled():
        print(f"\nrule-skips in use: {len(in_use)}")
    assert SKIP.search("x  # rule-skip: clock") is None  # a skip without a reason is none
    assert not Source("app/x.py", "import a  # rule-skip: owners of need").skips("layers", 1)
    assert Source("app/x.py", "import a  # rule-skip: layers of need").skips("layers", 1)


def test_starting_the_service_imports_no_fitted_method_and_no_faiss_adapter():
    # In a process of its own: this one has imported everything.
    script = (
        "import sys, app.main\n"
        "from models.catalog import installed\n"
        "loaded = {name.split('.')[2] for name in sys.modules if name.startswith('models.methods.')}\n"
        "print([name for name in loaded if not installed()[name].live])\n"
        "print([name for name in sys.modules if name.startswith('index.faiss_')])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
