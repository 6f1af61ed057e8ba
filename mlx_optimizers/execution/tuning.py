"""The constants that decide how fast a step is, each with the measurement behind it; none changes a bit of a result."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BLOCK", "CHUNK", "LEAST", "SHARE", "SHARE_COMPILED", "THREADED"]


def _cache(level: int) -> tuple[int, int]:
    """Bytes of a cache, and the number of cores that share it.

    Where the system does not tell: half a megabyte, of which few second-level caches have less, for each core.
    """
    folder = Path(f"/sys/devices/system/cpu/cpu0/cache/index{level}")
    try:
        size = int((folder / "size").read_text(encoding="ascii").strip().removesuffix("K")) * 1024
        ranges = [part.split("-") for part in (folder / "shared_cpu_list").read_text(encoding="ascii").split(",")]
        return size, sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)
    except (OSError, ValueError):
        return 512 * 1024, 1


def _block(second: tuple[int, int], third: tuple[int, int]) -> int:
    """Elements of a block: eight float32 arrays of it fit into a core's second-level cache, or half its third's share.

    An optimizer uses six of them. The fewer blocks, the less of the time goes to the calls, and the less often do
    threads wait for the interpreter's lock.
    """
    room = max(second[0] // second[1], third[0] // third[1] // 2)
    return min(262144, max(16384, room // 32))


BLOCK = _block(_cache(2), _cache(3))
"""Elements of a block that NumPy computes at a time."""

SHARE = 262144
"""Elements of a step of NumPy for each thread: with less to do, to wake a thread takes longer than it saves."""

THREADED = 65536
"""Elements that blocks must have on average for threads to pay.

A thread gives up the interpreter's lock for the length of one operation, which must be longer than the wait for it.
"""

LEAST = 4096
"""Elements that a tree must have before numba is asked: a smaller one is over before it could be imported."""

CHUNK = 262144
"""Elements of a part that a thread of the compiled path takes at a time."""

SHARE_COMPILED = 524288
"""Elements of a compiled step for each thread: with less to do, to wake a thread takes longer than it saves."""
