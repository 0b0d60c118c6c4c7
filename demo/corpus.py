"""The demo model's text: the Python standard library's own source, split into training and held-out modules.

Owns what is read, what is held out, and how a held-out function becomes a demo prompt. Knows nothing of
tokenizers or models. `python -m demo.corpus` rewrites demo/prompts.jsonl.
"""

import ast
import json
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path

DEMO = Path(__file__).parent
# Tests and generated tables would drown the library's own prose; the rest are vendored or not Python 3.
SKIPPED_FOLDERS = {
    "test", "tests", "idle_test", "site-packages", "__pycache__", "lib2to3", "pydoc_data", "encodings",
    "turtledemo", "ensurepip",
}  # fmt: skip
HELD_OUT = [
    "argparse", "bdb", "calendar", "cmd", "configparser", "csv", "difflib", "fractions", "gettext", "heapq",
    "imaplib",
    "mailbox", "netrc", "optparse", "pprint", "queue", "sched", "shelve", "shlex", "shutil", "smtplib",
    "statistics",
    "textwrap", "timeit", "zipfile",
]  # fmt: skip
NUM_PROMPTS = 200


def module_sources() -> Iterator[tuple[str, str]]:
    """(module path such as "json/decoder", source) of every standard-library module, sorted by path."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if not SKIPPED_FOLDERS.intersection(relative.parts):
            yield relative.with_suffix("").as_posix(), path.read_text(encoding="utf-8", errors="replace")


def training_documents() -> list[str]:
    """Each training module whole, and once more as its functions one by one (so that the model learns where a
    function ends).
    """
    documents = []
    for name, source in module_sources():
        if name not in HELD_OUT:
            documents.append(source)
            documents.extend(text for _, text in functions(source))
    return documents


def held_out_documents() -> list[str]:
    """The held-out modules, whole."""
    return [source for name, source in module_sources() if name in HELD_OUT]


def functions(source: str) -> Iterator[tuple[str, str]]:
    """(qualified name, dedented source) of each top-level function and method of at least 4 lines."""
    tree = ast.parse(source)
    owners: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
    owners += [(f"{node.name}.", node.body) for node in tree.body if isinstance(node, ast.ClassDef)]
    lines = source.splitlines(keepends=True)
    for prefix, body in owners:
        for node in body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.end_lineno
                and node.end_lineno - node.lineno >= 3
            ):
                yield prefix + node.name, textwrap.dedent("".join(lines[node.lineno - 1 : node.end_lineno]))


def demo_prompts(count: int = NUM_PROMPTS) -> list[dict[str, str]]:
    """The first lines (a third, 2 to 12) of functions of the held-out modules, taken from the modules in
    turn.
    """
    queues = []
    for name, source in module_sources():
        if name in HELD_OUT:
            queues.append(
                [
                    {"id": f"{name}.{function}", "prompt": _beginning(text)}
                    for function, text in functions(source)
                ]
            )
    turns = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    unique = {prompt["id"]: prompt for prompt in turns}
    return list(unique.values())[:count]


def _beginning(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[: min(12, max(2, len(lines) // 3))])


if __name__ == "__main__":
    with open(DEMO / "prompts.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(prompt) + "\n" for prompt in demo_prompts())
