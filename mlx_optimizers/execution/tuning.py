"""The constants that decide how fast a step is, each with its reason; none changes a bit of a result."""

BLOCK = 131072  # elements that NumPy computes at a time: the six float32 arrays of a step, 3 MB, stay in the caches
SHARE = 262144  # elements of a step of NumPy for each thread: with fewer, waking a thread costs more than it saves
THREADED = 65536  # mean elements of a block for threads to pay: each call must outlast the wait for the lock
SHARE_COMPILED = 524288  # as SHARE, for the compiled path, which is faster
ROW = 32768  # elements of the least part of the compiled path: the smaller, the less does one thread wait at the end
LEAST = 4096  # elements of a tree for which numba is imported: a smaller step is over before
LINE = 64  # bytes of a line of the cache: 512 bits of it at a time take 0.7 of the time where they do not straddle two
