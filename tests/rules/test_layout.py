"""What may stand where: names of modules, the environment, the clock, seeds, broad exceptions."""

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.rules.source_tree import EVERYWHERE, PACKAGES, ROOT, Finding, Source, dotted, sources
from tests.rules.test_imports import caught, check

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base"}
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today"}
GLOBAL_SEEDS = ("random.", "numpy.random.", "torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "secrets.")
# Whatever a piece of work raises is the answer to whoever asked for it, never the end of the worker.
WORKER_LOOPS = {"app/jobs/runner.py", "models/batching.py"}
OWN_GENERATORS = {
    "random.Random",
    "numpy.random.default_rng",
    "numpy.random.Generator",
    "numpy.random.PCG64",
    "numpy.random.SeedSequence",
}


def module_names(source: Source) -> Iterator[Finding]:
    """Modules named for nothing in particular."""
    for part in PurePosixPath(source.path).with_suffix("").parts:
        if part in FORBIDDEN_NAMES:
            yield Finding(source, 1, f"a module called {part} says nothing about what is in it")


def environment(source: Source) -> Iterator[Finding]:
    """Reading or writing the environment outside the settings."""
    if source.path == "app/settings.py":
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and dotted(node) in ("os.environ", "os.getenv", "os.putenv"):
            yield Finding(source, node.lineno, f"{dotted(node)} belongs to app/settings.py")
    for one in source.imports():
        if one.target in ("os.environ", "os.getenv"):
            yield Finding(source, one.line, f"{one.target} belongs to app/settings.py")


def clocks(source: Source) -> Iterator[Finding]:
    """Reading the time of day where it must be an argument."""
    for name, call in source.calls():
        if name in WALL_CLOCKS:
            yield Finding(source, call.lineno, f"{name}() must come in as an argument")


def seeds(source: Source) -> Iterator[Finding]:
    """Chance that is not an argument: global state, or a generator nobody seeded."""
    forked = {
        node
        for block in ast.walk(source.tree)
        if isinstance(block, ast.With) and any("fork_rng" in ast.unparse(item.context_expr) for item in block.items)
        for node in ast.walk(block)
    }
    for name, call in source.calls():
        if call in forked and name == "torch.manual_seed":
            continue  # torch's layers draw from the global state only; forking gives it back unchanged
        if name in OWN_GENERATORS:
            if not call.args and not call.keywords:
                yield Finding(source, call.lineno, f"{name}() must be given a seed")
        elif name.startswith(GLOBAL_SEEDS):
            yield Finding(source, call.lineno, f"{name}() uses or sets global chance")


def broad_excepts(source: Source) -> Iterator[Finding]:
    """Handlers that catch whatever comes."""
    if source.path.endswith("/errors.py") or source.path in WORKER_LOOPS:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or dotted(kind) in ("Exception", "BaseException") for kind in kinds):
                yield Finding(source, node.lineno, "an except must name what it expects")


def test_modules_are_named_for_what_they_hold():
    check("module-name", module_names, *EVERYWHERE)
    assert caught(module_names, "app/utils.py", "")
    assert caught(module_names, "models/common/x.py", "")
    assert not caught(module_names, "models/commonly.py", "")


def test_the_environment_is_read_in_one_place():
    check("environment", environment, *PACKAGES)
    assert caught(environment, "models/x.py", "import os\nos.environ['A']")
    assert caught(environment, "models/x.py", "from os import getenv")


def test_time_of_day_comes_from_outside():
    check("clock", clocks, "models", "index")
    assert caught(clocks, "models/x.py", "import time\ntime.time()")
    assert caught(clocks, "models/x.py", "from datetime import datetime as d\nd.now()")
    assert not caught(clocks, "models/x.py", "import time\ntime.monotonic()")


def test_chance_comes_from_outside():
    check("seed", seeds, "models", "index")
    assert caught(seeds, "models/x.py", "import numpy as np\nnp.random.normal()")
    assert caught(seeds, "models/x.py", "import numpy as np\nnp.random.default_rng()")
    assert caught(seeds, "models/x.py", "from random import shuffle\nshuffle(x)")
    assert caught(seeds, "models/x.py", "import torch\ntorch.manual_seed(1)")
    assert not caught(seeds, "models/x.py", "import numpy as np\nnp.random.default_rng(seed)")
    assert not caught(seeds, "models/x.py", "def f(random):\n    random.choice(3)")
    forked = "import torch\nwith torch.random.fork_rng(devices=[]):\n    torch.manual_seed(1)"
    assert not caught(seeds, "models/x.py", forked)


def test_an_except_names_what_it_expects():
    check("broad-except", broad_excepts, *PACKAGES)
    assert caught(broad_excepts, "app/x.py", "try:\n    f()\nexcept Exception:\n    pass")
    assert caught(broad_excepts, "app/x.py", "try:\n    f()\nexcept:\n    pass")
    assert caught(broad_excepts, "app/x.py", "try:\n    f()\nexcept (KeyError, BaseException):\n    pass")
    assert not caught(broad_excepts, "app/x.py", "try:\n    f()\nexcept KeyError:\n    pass")


def test_the_top_level_is_what_the_packages_are():
    # A folder with Python in it that no rule reads would be outside every rule.
    tracked = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {".venv"}
    assert tracked <= set(EVERYWHERE)
    assert sources(*PACKAGES)
