"""The constants that decide how fast a step is, each with its reason; none changes a bit of a result."""

from __future__ import annotations

from pathlib import Path


def _cache(level: int) -> tuple[int, int]:
    """Bytes of a cache and the cores that share it; half a megabyte for each where the system does not tell."""
    folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{level}")
    try:
        size = int((folder / "size").read_text(encoding="ascii").strip().removesuffix("K")) * 1024
        ranges = [part.split("-") for part in (folder / "shared_cpu_list").read_text(encoding="ascii").split(",")]
        return size, sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)
    except (OSError, ValueError):
        return 512 * 1024, 1


def _block(second: tuple[int, int], third: tuple[int, int]) -> int:
    """Elements of a block: eight float32 arrays of it fit into a core's second-level cache, or half its third's share.

    A step uses six. Fewer blocks mean fewer calls, and fewer waits for the interpreter's lock.
    """
    room = max(second[0] // second[1], third[0] // third[1] // 2)
    return min(262144, max(16384, room // 32))


BLOCK = _block(_cache(2), _cache(3))  # elements of a block that NumPy computes at a time
SHARE = 262144  # elements of a step of NumPy for each thread: with fewer, waking a thread costs more than it saves
THREADED = 65536  # mean elements of a block for threads to pay: each call must outlast the wait for the lock
LEAST = 4096  # elements of a tree for which numba is imported: a smaller step is over before
TAIL = 32768  # elements of the least part of the compiled path: the smaller, the less does one thread wait at the end
SHARE_COMPILED = 524288  # as SHARE, for the compiled path, which is faster
