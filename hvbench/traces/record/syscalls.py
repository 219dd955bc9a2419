"""System calls by number, as far as the recorder has to know them (x86-64).

Numbers are from the kernel's `arch/x86/entry/syscalls/syscall_64.tbl`; they never change.
"""

from __future__ import annotations

from typing import Final

NAMES: Final[dict[int, str]] = {
    0: "read", 1: "write", 3: "close", 7: "poll", 9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk",
    17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev", 23: "select", 25: "mremap", 26: "msync",
    28: "madvise", 34: "pause", 35: "nanosleep", 38: "setitimer", 40: "sendfile", 42: "connect",
    43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 56: "clone", 57: "fork",
    58: "vfork", 59: "execve", 60: "exit", 61: "wait4", 65: "semop", 74: "fsync", 75: "fdatasync",
    128: "rt_sigtimedwait", 130: "rt_sigsuspend", 157: "prctl", 202: "futex", 208: "io_getevents",
    220: "semtimedop", 223: "timer_settime", 230: "clock_nanosleep", 231: "exit_group", 232: "epoll_wait",
    247: "waitid", 257: "openat", 270: "pselect6", 271: "ppoll", 277: "sync_file_range",
    281: "epoll_pwait", 286: "timerfd_settime", 288: "accept4", 295: "preadv", 296: "pwritev",
    299: "recvmmsg", 307: "sendmmsg", 322: "execveat", 426: "io_uring_enter", 435: "clone3",
    441: "epoll_pwait2", 449: "futex_waitv", 454: "futex_wake", 455: "futex_wait",
}  # fmt: skip
NUMBERS: Final[dict[str, int]] = {name: number for number, name in NAMES.items()}


def numbers(*names: str) -> frozenset[int]:
    return frozenset(NUMBERS[name] for name in names)


#: Sleeps of their own accord: always ended by a timer (or a signal).
SLEEPS: Final = numbers("nanosleep", "clock_nanosleep")
#: Waits for something that may also run into a time-out.
TIMED: Final = SLEEPS | numbers(
    "poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2", "futex",
    "futex_wait", "futex_waitv", "rt_sigtimedwait", "semtimedop", "io_getevents", "recvmmsg",
)  # fmt: skip
#: Waits that a packet can end.
NETWORK: Final = numbers(
    "read", "readv", "write", "writev", "poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait",
    "epoll_pwait2", "accept", "accept4", "connect", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg",
    "sendmmsg", "sendfile",
)  # fmt: skip
#: Waits that only a packet (or a signal) ends.
RECEIVES: Final = numbers("accept", "accept4", "recvfrom", "recvmsg")
#: Multiplexed waits: what ended them is seen only in what is read next.
POLLS: Final = numbers(
    "poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2", "accept", "accept4"
)
#: Calls that arm a timer whenever they are made.
TIMER_PROGRAMS: Final = SLEEPS | numbers("setitimer", "timer_settime", "timerfd_settime")

FUTEX_COMMAND_MASK: Final = 127
FUTEX_WAITS: Final = frozenset({0, 9, 6, 11, 13})  # WAIT, WAIT_BITSET, LOCK_PI, WAIT_REQUEUE_PI, LOCK_PI2
MADV_DONTNEED: Final = 4
MADV_FREE: Final = 8
MAP_SHARED: Final = 0x01
MAP_ANONYMOUS: Final = 0x20

#: A program marks its own units of work by `prctl(MARK_OPTION, 1)` (a unit begins) and `prctl(MARK_OPTION, 2)`
#: (it ends). The kernel does not know the option and answers EINVAL, with or without a recorder.
MARK_OPTION: Final = 0x68766D62


def is_timed(number: int, arguments: tuple[int, ...]) -> bool:
    """Does this call arm a timer? (The time-out itself, behind a pointer, is not seen.)"""
    if number in TIMER_PROGRAMS:
        return True
    if number not in TIMED or len(arguments) < 5:
        return False
    name = NAMES[number]
    if name == "futex":
        return arguments[1] & FUTEX_COMMAND_MASK in FUTEX_WAITS and arguments[3] != 0
    if name == "poll":
        return 0 < arguments[2] < 1 << 31
    if name in ("epoll_wait", "epoll_pwait"):
        return 0 < arguments[3] < 1 << 31
    position = {"ppoll": 2, "select": 4, "pselect6": 4, "epoll_pwait2": 3, "rt_sigtimedwait": 2}.get(name)
    return position is not None and arguments[position] != 0
