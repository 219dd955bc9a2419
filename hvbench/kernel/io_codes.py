"""Why a disk operation was asked for: what `hvbench.kernel.memory.io_done` does when it is done.

`who` is a row of table mem_io for the memory side's codes; 0 is a recorded block
operation, which belongs to storage.
"""

from __future__ import annotations

IO_GUEST_READ, IO_GUEST_WRITE, IO_GUEST_SWAP_OUT, IO_HOST_READ, IO_HOST_SWAP_OUT, IO_POOL_OUT = range(1, 7)
"""File pages or swapped pages come in; dirty file pages go out; anonymous pages go out to the guest's
swap; a page comes in from the hypervisor's swap; pages go out to it; compressed pages go out to it from the pool."""
