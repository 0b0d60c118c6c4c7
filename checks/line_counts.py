"""Keeps files within 300 lines and functions within 40, and prints how many lines each package has: growth is a cost.

python -m checks.line_counts; exits 1 and names each place that is over. Knows nothing of what the code does.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = ("jobs", "pipeline", "serving", "actors", "rows", "engine", "drafting")
OTHERS = ("demo", "benchmarks", "checks", "tests")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40


def too_long(path: Path) -> Iterator[str]:
    """One line for the file and for each of its functions that is over its limit."""
    source = path.read_text(encoding="utf-8")
    lines = len(source.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{path}: {lines} lines; the limit for a file is {MAX_FILE_LINES}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines; the limit for a function is {MAX_FUNCTION_LINES}"


def main() -> int:
    """Prints the counts and every place over a limit; 1 when there is one."""
    total, over = 0, []
    for package in PRODUCT + OTHERS:
        files = sorted((ROOT / package).rglob("*.py"))
        lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        total += lines if package in PRODUCT else 0
        print(f"{package:12}{len(files):4} files {lines:6} lines")
        over += [place for file in files for place in too_long(file.relative_to(ROOT))]
    print(f"product: {total} lines")
    print(*over, sep="\n", end="\n" if over else "")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
