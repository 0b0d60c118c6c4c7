"""How much memory this machine has left for one more worker: free memory, less what others will still take.

Workers start at the same moment and look before any of them has loaded. So each puts on record, in the
machine's temp folder, how large it will become. Standard library only; Linux, elsewhere all of the memory
counts as free.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def available_memory(root: Path = ROOT) -> int:
    """Bytes that can be had without swapping: MemAvailable, or what the limit of a container
    leaves, if less.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return max(0, min([kilobytes["MemAvailable"] * 1024, *_left_by_cgroups(root)]))


def _left_by_cgroups(root: Path) -> Iterator[int]:
    """Limit less use of this process's memory group, and of the groups around it; cached files
    count as free.
    """
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in groups:
        if controllers == "":
            base = root / "sys/fs/cgroup"
            limit_name = "memory.max"
            use_name = "memory.current"
            cached = ("inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            limit_name = "memory.limit_in_bytes"
            use_name = "memory.usage_in_bytes"
            cached = ("total_inactive_file", "total_active_file")
        else:
            continue
        group = base / path.strip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(base))):
            try:
                limit = (folder / limit_name).read_text().strip()
                used = int((folder / use_name).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # the root has no limit; a container may not see its own group
                continue
            if limit != "max":
                yield int(limit) - used + sum(int(stat.get(name, 0)) for name in cached)


def claim(num_bytes: int, free: int, folder: Path | None = None) -> int:
    """Bytes of `free` that the claims of other processes leave; puts this process's own claim on record.

    A claim that is larger than what is left is not put on record.
    """
    from filelock import FileLock

    folder = folder or Path(tempfile.gettempdir()) / f"ngram-memory-{os.getuid()}"
    try:
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "lock"):
            left = free - sum(_still_to_take(file) for file in folder.glob("[0-9]*-[0-9]*"))
            started, taken = _process(os.getpid()) or (0, 0)
            if num_bytes <= left:
                (folder / f"{os.getpid()}-{started}").write_text(str(taken + num_bytes))
            return left
    except OSError:  # no place to write: every worker for itself
        return free


def _still_to_take(claim: Path) -> int:
    """What a process has claimed and not yet taken; 0 when it is gone, and then its claim is removed."""
    pid, started = (int(part) for part in claim.name.split("-"))
    found = _process(pid)
    if pid == os.getpid():
        return 0
    if found is None or found[0] != started:
        claim.unlink(missing_ok=True)
        return 0
    return max(0, int(claim.read_text() or 0) - found[1])


def _process(pid: int) -> tuple[int, int] | None:
    """When a process started, and its bytes of anonymous memory; None when there is no such process."""
    try:
        started = int((ROOT / f"proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        status = dict(line.split(":", 1) for line in (ROOT / f"proc/{pid}/status").read_text().splitlines())
    except OSError:
        return None
    return started, int(status.get("RssAnon", "0").split()[0]) * 1024
