"""The virtual disk that block backends share: an adapter in the guest, and a host thread that emulates it."""

from __future__ import annotations

from attrs import frozen

from hvbench.paths import BLOCK_LAYER_NS, USER_EXIT_NS, Step, virtual_disk
from hvbench.policy import param


@frozen
class VirtualDiskParams:
    """Costs of a request at the virtual adapter and its emulator."""

    exit_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="vCPU time to hand a request to the virtual adapter, beyond what the technique charges",
        source="the exit itself is the technique's cost; zero, so that it is charged once",
    )
    emulate_ns: int = param(
        BLOCK_LAYER_NS,
        unit="ns",
        low=0,
        help="emulator's time to take a request and give it to the host's block layer",
        source="Yang et al., FAST 2012: 7.6 us for an interrupt-driven 4 KiB read",
    )
    complete_ns: int = param(
        USER_EXIT_NS,
        unit="ns",
        low=0,
        help="emulator's time to complete a request",
        source="Dall et al., USENIX ATC 2017, table 2: I/O in user space, 6,732 cycles at 2.1 GHz",
    )
    interrupt_ns: int = param(
        0,
        unit="ns",
        low=0,
        help="vCPU time for the completion's interrupt, beyond what the technique charges",
        source="the exit itself is the technique's cost; zero, so that it is charged once",
    )

    def path(self, *inner: Step) -> tuple[Step, ...]:
        """The way of a request: in through the emulated disk, along `inner` to the medium, and back."""
        return virtual_disk(
            *inner,
            exit_ns=self.exit_ns,
            emulate_ns=self.emulate_ns,
            complete_ns=self.complete_ns,
            interrupt_ns=self.interrupt_ns,
        )
