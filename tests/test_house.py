"""The house rules: folders, the direction of imports, sizes of files and functions, what may not appear."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("edge_fer", "training", "export", "calibrate")
FOLDERS = {*STAGES, "tests", "examples", "docs"}
# What people and tools leave in a checkout; all of it is ignored by git.
LEFTOVERS = {"build", "dist", "out", "runs", "venv", "__pycache__"}

# Which first-party modules a folder may import besides its own.
MAY_IMPORT = {
    "edge_fer": (),
    "training": ("edge_fer",),
    "calibrate": ("edge_fer",),
    "export": ("training.models", "calibrate", "edge_fer"),
}
WORKSTATION_ONLY = {
    "ai_edge_quantizer",
    "kornia",
    "lightning",
    "litert_torch",
    "nncf",
    "onnx",
    "onnxscript",
    "safetensors",
    "torch",
    "torchmetrics",
}
HEAVY = WORKSTATION_ONLY | {"ai_edge_litert", "onnxruntime", "openvino", "cv2"}
PICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
VAGUE_NAMES = {"utils.py", "helpers.py", "common.py", "main.py", "misc.py"}

FILE_LINES = 400
FUNCTION_LINES = 60


def sources(*folders: str) -> list[Path]:
    """Return the Python files of these folders, and cli.py."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [*found, ROOT / "cli.py"]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Return the dotted names that these nodes import; `from a import b` counts as a.b."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs when the module is imported; `if TYPE_CHECKING:` does not run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from outside_functions(node)


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_top_level_folders_are_those_of_the_design() -> None:
    folders = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and path.suffix not in {".fer", ".egg-info"}
        and path.name not in LEFTOVERS
    }
    assert folders == FOLDERS


@pytest.mark.parametrize("stage", STAGES)
def test_imports_point_in_one_direction(stage: str) -> None:
    allowed = (stage, *MAY_IMPORT[stage])
    wrong = [
        f"{relative(path)} imports {name}"
        for path in sources(stage)
        if path.name != "cli.py"
        for name in sorted(imported(ast.walk(parse(path))))
        if name.split(".")[0] in {*STAGES, "cli", "tests"}
        and not any(within(name, module) for module in allowed)
    ]
    assert not wrong


def test_the_runtime_names_no_workstation_package() -> None:
    wrong = [
        f"{relative(path)} imports {name}"
        for path in sources("edge_fer")
        for name in sorted(imported(ast.walk(parse(path))))
        if name.split(".")[0] in WORKSTATION_ONLY
    ]
    assert not wrong


def test_commands_modules_import_nothing_heavy_at_top_level() -> None:
    modules = [path for path in sources(*STAGES) if path.name.startswith("command") or path.name == "cli.py"]
    assert len(modules) == 12
    wrong = [
        f"{relative(path)} imports {name}"
        for path in modules
        for name in sorted(imported(outside_functions(parse(path))))
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong


@pytest.mark.parametrize("path", sources(*STAGES, "tests"), ids=relative)
def test_files_are_short(path: Path) -> None:
    limits = {"cli.py": 60, "edge_fer/__init__.py": 20}
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= limits.get(relative(path), FILE_LINES)


def test_functions_are_short() -> None:
    wrong = [
        f"{relative(path)}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in sources(*STAGES)
        for node in ast.walk(parse(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not wrong


def test_modules_are_named_after_what_they_know_and_say_so() -> None:
    assert not [relative(path) for path in sources(*STAGES) if path.name in VAGUE_NAMES]
    trees = {relative(path): parse(path) for path in sources(*STAGES)}
    assert not [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)]


def unsafe_loads(tree: ast.AST) -> Iterator[str]:
    """Find `torch.load` without weights_only=True and any allow_pickle=True."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True":
            yield f"{node.lineno} torch.load without weights_only=True"
        if given.get("allow_pickle", "False") != "False":
            yield f"{node.lineno} allow_pickle={given['allow_pickle']}"


def test_nothing_is_unpickled() -> None:
    # Not in tests: one writes a pickle, to see it refused.
    for path in sources(*STAGES):
        tree = parse(path)
        names = {name.split(".")[0] for name in imported(ast.walk(tree))}
        assert not names & PICKLERS, relative(path)
        assert not list(unsafe_loads(tree)), relative(path)


@pytest.mark.parametrize("text", ["import pickle", "from joblib import load"])
def test_the_search_for_picklers_finds_them(text: str) -> None:
    assert {name.split(".")[0] for name in imported(ast.walk(ast.parse(text)))} & PICKLERS


@pytest.mark.parametrize(
    "text", ["torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)"]
)
def test_the_search_for_unsafe_loads_finds_them(text: str) -> None:
    assert list(unsafe_loads(ast.parse(text)))


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_importing_the_package_imports_no_engine_and_no_picture_library() -> None:
    watched = sorted(HEAVY | {"numpy", "PIL", "rich", "typer"})
    done = run_python(f"import sys, edge_fer; print(*set({watched!r}).intersection(sys.modules))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


BASE_INSTALL_ONLY = f"import sys; sys.modules.update(dict.fromkeys({sorted(WORKSTATION_ONLY)!r})); "


def test_every_command_is_listed_with_the_base_install_only() -> None:
    done = run_python(BASE_INSTALL_ONLY + "sys.argv[0] = 'cli.py'; import cli; cli.main()", "--help")
    assert done.returncode == 0, done.stderr
    for command in ("infer", "parity", "bench", "self-test", "info", "train", "export", "calibrate"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["train", "--recipe", "r.toml", "--data", "faces", "--output", "run"], "train"),
        (["export", "--target", "onnx", "--output", "b.fer"], "export"),
    ],
)
def test_a_stage_without_its_packages_says_which_extra_installs_them(
    arguments: list[str], extra: str
) -> None:
    done = run_python(BASE_INSTALL_ONLY + "sys.argv[0] = 'cli.py'; import cli; cli.main()", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "internal error" not in done.stderr
    assert extra in done.stderr and "pip install" in done.stderr


def test_the_runtime_recognises_the_demo_face_without_torch() -> None:
    code = BASE_INSTALL_ONLY + (
        "sys.modules.update(dict.fromkeys(['training', 'export', 'calibrate']))\n"
        "from edge_fer.commands import main; sys.argv[0] = 'edge-fer'; main()"
    )
    done = run_python(code, "infer", "examples/astronaut.jpg", "--json")
    assert done.returncode == 0, done.stderr
    assert '"label": "happiness"' in done.stdout


@pytest.mark.parametrize("document", ["README.md", "docs/benchmarks.md", "docs/export.md", "docs/int8.md"])
def test_readme_has_no_placeholders(document: str) -> None:
    assert "FIGURE" not in (ROOT / document).read_text(encoding="utf-8")
