"""Keeps the code readable: limits for files and functions, one assignment per line, no shared file names.

    python -m checks.code_limits            # exits 1 and names each place that is over a limit

Lines of code are lines that hold code: docstrings, comments and blank lines do not count, so that nobody
compresses prose. The counts of the packages are printed, because growth is a cost. Line length is ruff's.
"""

import ast
import io
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = ("jobs", "pipeline", "serving", "actors", "rows", "engine", "drafting")
OTHERS = ("demo", "benchmarks", "checks", "tests")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
SHARED_NAMES = {"__init__.py", "config.py"}  # config.py holds the settings of its package in every package
NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip
Scope = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def lines_of_code(source: str) -> set[int]:
    """The numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, Scope) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return lines


def too_long(path: Path) -> Iterator[str]:
    """One line for the file, and one for each of its functions, that is over its limit."""
    source = path.read_text(encoding="utf-8")
    code = lines_of_code(source)
    if len(code) > MAX_FILE_LINES:
        yield f"{path}: {len(code)} lines of code; the limit for a file is {MAX_FILE_LINES}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = len(code & {*range(node.lineno, (node.end_lineno or 0) + 1)})
            if length > MAX_FUNCTION_LINES:
                limit = f"the limit for a function is {MAX_FUNCTION_LINES}"
                yield f"{path}:{node.lineno}: {node.name} has {length} lines of code; {limit}"


def packed_assignments(path: Path) -> Iterator[str]:
    """One line for each assignment of several values to several names, unless it swaps them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple | ast.List):
            packed = [target for target in node.targets if isinstance(target, ast.Tuple | ast.List)]
            values = sorted(map(ast.unparse, node.value.elts))
            if any(sorted(map(ast.unparse, target.elts)) != values for target in packed):
                yield f"{path}:{node.lineno}: several assignments on one line; write one per line"


def shared_names(files: list[Path]) -> Iterator[str]:
    """One line for each name that files of different folders share."""
    folders: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if file.name not in SHARED_NAMES:
            folders[file.name].append(file)
    for name, found in folders.items():
        if len(found) > 1:
            yield f"{name}: {', '.join(map(str, found))} share a name; rename all but one"


def main() -> int:
    """Prints the counts and every place over a limit; returns 1 when there is one."""
    total = 0
    over: list[str] = []
    product: list[Path] = []
    for package in PRODUCT + OTHERS:
        files = [file.relative_to(ROOT) for file in sorted((ROOT / package).rglob("*.py"))]
        count = sum(len(lines_of_code((ROOT / file).read_text(encoding="utf-8"))) for file in files)
        print(f"{package:12}{len(files):4} files {count:6} lines of code")
        if package in PRODUCT:
            total += count
            product += files
        for file in files:
            over += [*too_long(file), *packed_assignments(file)]
    print(f"product: {total} lines of code")
    over += shared_names(product)
    print(*over, sep="\n", end="\n" if over else "")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
