"""Who may import what: one chain of packages, torch in the engine only, and a driver that never loads it."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.time_limits import PROCESS_S

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "drafting": set(),
    "engine": {"drafting"},
    "rows": {"engine", "drafting"},
    "actors": {"rows", "engine", "drafting"},
    "pipeline": {"actors", "rows", "engine", "drafting"},
    "serving": {"actors", "rows", "engine", "drafting"},
    "jobs": {"pipeline", "serving", "actors", "rows", "engine", "drafting"},
}
OUTSIDE_THE_CHAIN = {"demo", "benchmarks", "checks", "tests"}
# Each heavy library, and the packages that may name it.
USERS = {
    "torch": {"engine"},
    "triton": {"engine"},
    "transformers": {"engine", "rows", "jobs"},
    "ray": {"actors", "pipeline", "serving", "jobs"},
    "pyarrow": {"rows", "actors", "pipeline", "jobs"},
    "numba": {"engine", "drafting"},
}

NOT_EVERYWHERE = {"engine.draw_triton": "triton"}  # modules that need what is not installed on every machine


def imports(package: str) -> Iterator[tuple[Path, str]]:
    """(file, top-level name) of every import statement in a package, those inside functions too."""
    for file in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name.split(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0 and node.module, f"{file}: a relative import"
                yield file, node.module.split(".")[0]


def loaded_by(*packages: str) -> set[str]:
    """The top-level modules that a clean interpreter has after importing every module of these packages."""
    names = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in packages
        for file in sorted((ROOT / package).rglob("*.py"))
        if file.name != "__init__.py"
    ]
    assert names, f"no modules in {packages}"
    names = [
        name for name in names if name not in NOT_EVERYWHERE or importlib.util.find_spec(NOT_EVERYWHERE[name])
    ]
    code = f"import sys\nimport {', '.join(names)}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PROCESS_S
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_packages_to_its_right(package: str) -> None:
    ours = set(MAY_IMPORT) | OUTSIDE_THE_CHAIN
    wrong = [
        f"{file}: {name}" for file, name in imports(package) if name in ours - MAY_IMPORT[package] - {package}
    ]
    assert not wrong


@pytest.mark.parametrize("library", USERS)
def test_a_heavy_library_is_named_only_where_it_belongs(library: str) -> None:
    wrong = [
        f"{file}: {name}"
        for package in MAY_IMPORT
        if package not in USERS[library]
        for file, name in imports(package)
        if name == library
    ]
    assert not wrong


def test_drafting_imports_the_standard_library_numpy_and_numba() -> None:
    allowed = sys.stdlib_module_names | {"drafting", "numpy", "numba"}
    assert [f"{file}: {name}" for file, name in imports("drafting") if name not in allowed] == []


def test_the_driver_and_the_workers_modules_load_no_model_library() -> None:
    loaded = loaded_by("jobs", "pipeline", "serving", "actors", "rows")
    assert loaded & {"torch", "transformers", "numba"} == set()
    assert "ray" in loaded


def test_drafting_loads_neither_torch_nor_ray() -> None:
    loaded = loaded_by("drafting")
    assert loaded & {"torch", "transformers", "ray", "pyarrow"} == set()
    assert "numba" in loaded


def test_rows_load_neither_torch_nor_ray() -> None:
    loaded = loaded_by("rows")
    assert loaded & {"torch", "transformers", "numba", "ray"} == set()
    assert "pyarrow" in loaded


def test_the_engine_loads_no_ray() -> None:
    loaded = loaded_by("engine")
    assert loaded & {"ray", "pyarrow"} == set()
    assert "torch" in loaded
