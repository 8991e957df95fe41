"""The rules of the source tree: who imports whom, how long things are, and what stays lazy."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flowlm

SOURCE = Path(flowlm.__file__).parent
FILES = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

NOUNS = ("core.types", "core.rng", "core.oracle", "core.distribution", "errors", "files", "checks")
# Folder: what it may import of flowlm besides itself.
MAY_IMPORT = {
    "core/": ("errors",),
    "chunked/": ("core", "errors"),
    "nn/": (
        *("core." + n for n in ("types", "distribution", "rng", "flow")),
        "chunked",
        "errors",
        "checks",
    ),
    "sampling/": ("core", "chunked", "errors", "checks"),
    "methods/": ("core", "chunked", "nn", "sampling", "errors", "checks"),
    "train/": NOUNS,
    "data/": (*NOUNS, "hub"),
    "tasks/": (*NOUNS, "data"),
    "evaluate/": (*NOUNS, "tasks"),
    "hub/": ("errors",),
    "machine/": ("errors", "checks", "train.plan", "train.launch"),
    "experiment/": (
        *("errors", "checks", "hub.names", "methods", "nn.size", "sampling", "tasks"),
        "train.plan",
    ),
    "recipes/": ("experiment", "methods", "nn.size", "sampling", "tasks", "train.plan"),
    "model/": (
        *("errors", "files", "checks", "experiment", "core", "chunked", "nn", "methods"),
        *("data", "evaluate", "hub", "machine", "page", "sampling", "tasks"),
    ),
    "judges/": ("errors", "files", "checks", "core", "chunked", "evaluate", "hub", "model"),
    "run/": (
        *("errors", "files", "checks", "experiment", "core", "chunked", "nn", "methods"),
        *(
            "sampling",
            "data",
            "train",
            "evaluate",
            "hub",
            "machine",
            "model",
            "recipes",
            "tasks",
            "judges",
        ),
        "__version__",
    ),
    "serve/": (
        *("errors", "core", "nn", "sampling", "experiment.kinds", "model", "tasks", "page"),
    ),
    "page/": (),
    "__init__.py": ("model", "run", "errors", "experiment"),
    "__main__.py": ("cli",),
    "checks.py": ("errors",),
    "files.py": ("errors",),
    "errors.py": (),
}
# Package: the places that may import it.
ONLY_IN = {
    "tokenizers": ("data/",),
    "datasets": ("data/corpora/tables.py",),
    "transformers": ("judges/causal.py",),
    "huggingface_hub": ("hub/transfer.py",),
    "tyro": ("cli",),
    "rich": ("cli", "train/log.py", "run/demo.py"),
    "starlette": ("serve/",),
    "uvicorn": ("serve/running.py",),
    "torch.onnx": ("model/onnx.py",),
    "torch.distributed": ("train/",),
    "trackio": ("train/track.py",),
    "wandb": ("train/track.py",),
    "torch.utils.tensorboard": ("train/track.py",),
}


def typing_only(tree: ast.AST) -> set[ast.AST]:
    """What stands under `if TYPE_CHECKING:`, and is no import when the program runs."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If)]
    guarded = [n for n in blocks if isinstance(n.test, ast.Name) and n.test.id == "TYPE_CHECKING"]
    return {inner for block in guarded for part in block.body for inner in ast.walk(part)}


def imports(name: str, typed: bool = True) -> Iterator[str]:
    """Modules that a file imports or names, inside functions too; `from a import b` gives a.b."""
    skip = set() if typed else typing_only(TREES[name])
    for node in ast.walk(TREES[name]):
        if node in skip:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "torch":
            yield f"torch.{node.attr}"


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folders_import_only_what_lies_below_them(folder: str) -> None:
    inside = [name for name in FILES if name.startswith(folder)]
    assert inside
    allowed = [
        f"flowlm.{folder.removesuffix('.py').rstrip('/')}",
        *(f"flowlm.{m}" for m in MAY_IMPORT[folder]),
    ]
    wrong = [
        f"{name} imports {module}"
        for name in inside
        for module in imports(name)
        if within(module, "flowlm") and not any(within(module, a) for a in allowed)
    ]
    assert wrong == []


def test_every_package_has_its_place() -> None:
    """Each top-level package and module but the command line, which imports anything."""
    places = {name.split("/")[0] + "/" * ("/" in name) for name in FILES}
    assert places - {"cli/"} == {
        folder.split("/")[0] + "/" * ("/" in folder) for folder in MAY_IMPORT
    }
    loose = [place for place in places if place.endswith(".py")]
    assert len(loose) <= 6, loose


def test_nothing_imports_in_a_circle() -> None:
    """Of packages, as the program runs: who imports whom is an order."""
    arrows = {}
    for name in FILES:
        place = name.split("/")[0].removesuffix(".py")
        for module in imports(name):
            if within(module, "flowlm") and (aim := module.split(".")[1:2]) and aim != [place]:
                arrows.setdefault(place, set()).update(aim)
    graphlib.TopologicalSorter(arrows).prepare()


@pytest.mark.parametrize("package", ONLY_IN)
def test_packages_are_confined(package: str) -> None:
    wrong = [
        name
        for name in FILES
        for module in imports(name, typed=False)
        if within(module, package) and not name.startswith(ONLY_IN[package])
    ]
    assert wrong == []


def test_files_and_functions_stay_short() -> None:
    long = [name for name, path in FILES.items() if len(path.read_text().splitlines()) > 300]
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, functions) and node.end_lineno - node.lineno + 1 > 60:
                long.append(f"{name}: {node.name}")
    assert long == []


def test_only_methods_know_each_other() -> None:
    """No test for a method's class outside methods/: a method states its own facts.

    The released format is of two methods, by name.
    """
    kinds = {"Flow", "FlowMap", "Masked", "UniformState", "Autoregressive", "Continuous"}
    kinds |= {"GumbelMap", "ResidualMap", "ResidualStudent"}
    kinds |= {"UniformDiffusion", "Curriculum", "Duo", "DCD", "ScoreEntropy", "SEDD", "SEDDUniform"}
    kinds |= {"BoundDiffusion", "MaskedDiffusion", "SDTT", "Di4C"}
    asked = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if not name.startswith(("methods/", "model/released/"))
        for node in ast.walk(tree)
        for part in (
            [node.args[1]]
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass")
            else [node.cls]
            if isinstance(node, ast.MatchClass)
            else []
        )
        if {n.id for n in ast.walk(part) if isinstance(n, ast.Name)} & kinds
    ]
    assert asked == []


def test_the_mathematics_is_read_in_twenty_minutes() -> None:
    """core/ without the oracle, which comes after the reading order."""
    read = {n: p for n, p in FILES.items() if n.startswith("core/") and "/oracle/" not in n}
    lines = {name: len(path.read_text().splitlines()) for name, path in read.items()}
    assert sum(lines.values()) <= 800, lines


def test_nothing_asks_an_object_what_it_has() -> None:
    """No hasattr, getattr or setattr, the command line aside."""
    asked = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        if not name.startswith("cli")
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in ("hasattr", "getattr", "setattr")
    ]
    assert asked == []


TORCH_FREE = [
    name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
    for name in sorted(FILES)
    if name.startswith(("recipes/", "methods/", "sampling/", "experiment/", "hub/", "run/room"))
    or name in ("model/finding.py", "cli/__init__.py", "cli/options.py", "cli/parse.py")
]


def test_the_command_line_starts_without_torch() -> None:
    modules = [f"flowlm.{name}" for name in TORCH_FREE]
    assert {"flowlm.cli", "flowlm.experiment", "flowlm.recipes"} <= set(modules)
    code = f"import sys, {', '.join(modules)}\nassert not {{'torch', 'numpy'}} & {{*sys.modules}}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
