"""Scanner of scheduler logs as text: `trace` of tracefs, `trace-cmd report`, `perf script`. Compiled, or plain Python.

A line is `COMM-TID (TGID) [CPU] FLAGS TIME: EVENT: ARGUMENTS` (tracefs; trace-cmd leaves out TGID or FLAGS), or
`COMM PID/TID [CPU] TIME: PERIOD GROUP:EVENT: ARGUMENTS` (perf, where the slash, the CPU and the period may be
missing). COMM may hold anything, so the CPU's brackets are found first and the rest is read to both sides of them.

`scan` fills a row of `FIELDS` a line; what is not said is -1. It looks at bytes only: every function here is marked
`@jit`, takes integers and arrays, and gives the same compiled and interpreted.
"""

from __future__ import annotations

from typing import Any, Final

from hvbench.jit import jit

FIELDS: Final = (
    "status", "time", "cpu", "tid", "tgid", "context", "kind", "a", "b", "c", "d", "comm", "comm_end", "name",
    "name_end", "line",
)  # fmt: skip
(F_STATUS, F_TIME, F_CPU, F_TID, F_TGID, F_CONTEXT, F_KIND, F_A, F_B, F_C, F_D, F_COMM, F_COMM_END, F_NAME, F_NAME_END,
 F_LINE) = range(len(FIELDS))  # fmt: skip

#: Status: an event, a line without one, a count of lost events (a), a line that is wrong (or its time or arguments).
OK, SKIP, LOST, BAD, BAD_TIME, BAD_ARGUMENTS = range(6)
#: Kinds of events; 0 is one that nobody asks for.
(OTHER, SWITCH, WAKE, SYS_ENTER, SYS_EXIT, FAULT, BLOCK_ISSUE, BLOCK_DONE, FORK, EXIT) = range(10)
#: Where an event happened: in the task itself, in a hardware or a software interrupt, or unknown (no flags).
IN_TASK, IN_HARD, IN_SOFT, NOWHERE = range(4)
#: States of a task that left its CPU.
RUNNABLE, SLEEPS, DISK, DEAD, STOPPED = range(5)

EVENTS: Final[dict[str, int]] = {
    "sched_switch": SWITCH, "sched_waking": WAKE, "sched_wakeup": WAKE, "sched_wakeup_new": WAKE, "sys_enter":
    SYS_ENTER, "sys_exit": SYS_EXIT, "page_fault_user": FAULT, "page-faults": FAULT, "minor-faults": FAULT,
    "major-faults": FAULT, "block_rq_issue": BLOCK_ISSUE, "block_rq_complete": BLOCK_DONE, "sched_process_fork": FORK,
    "sched_process_exit": EXIT,
}  # fmt: skip


def hash_text(text: bytes) -> int:
    """The hash that `scan` compares names of events by (31 to the powers, 61 bits)."""
    value = 7
    for byte in text:
        value = (value * 31 + byte) % HASH_MOD
    return value


HASH_MOD: Final = (1 << 55) - 55  # a product with 31 stays within 63 bits
_HASHES = {kind_name: hash_text(kind_name.encode()) for kind_name in EVENTS}
H_SWITCH = _HASHES["sched_switch"]
H_WAKING = _HASHES["sched_waking"]
H_WAKEUP = _HASHES["sched_wakeup"]
H_WAKEUP_NEW = _HASHES["sched_wakeup_new"]
H_ENTER = _HASHES["sys_enter"]
H_EXIT = _HASHES["sys_exit"]
H_FAULT = _HASHES["page_fault_user"]
H_FAULTS = _HASHES["page-faults"]
H_MINOR = _HASHES["minor-faults"]
H_MAJOR = _HASHES["major-faults"]
H_ISSUE = _HASHES["block_rq_issue"]
H_DONE = _HASHES["block_rq_complete"]
H_FORK = _HASHES["sched_process_fork"]
H_PROCESS_EXIT = _HASHES["sched_process_exit"]
P_PREV_PID = b"prev_pid="
P_PREV_STATE = b"prev_state="
P_NEXT_PID = b"next_pid="
P_NEXT_COMM = b"next_comm="
P_PREV_COMM = b"prev_comm="
P_COMM = b"comm="
P_PID = b" pid="
P_CHILD = b"child_pid="
P_CHILD_COMM = b"child_comm="
P_ARROW = b"==> "
P_TARGET = b"target_cpu="
P_ADDRESS = b"address=0x"
P_CODE = b"error_code=0x"
P_LOST = b"[LOST "
SPACE, DIGIT0, DIGIT9, NEWLINE, TAB = 32, 48, 57, 10, 9
OPEN, CLOSE, COLON, DOT, DASH, SLASH, HASH, PLUS, COMMA = 91, 93, 58, 46, 45, 47, 35, 43, 44


@jit
def is_digit(byte: int) -> bool:
    return byte >= DIGIT0 and byte <= DIGIT9


@jit
def find(data: Any, at: int, end: int, text: Any) -> int:
    """Where `text` begins in data[at:end], -1 if nowhere."""
    size = len(text)
    first = text[0]
    for i in range(at, end - size + 1):
        if data[i] == first:
            same = True
            for k in range(1, size):
                if data[i + k] != text[k]:
                    same = False
                    break
            if same:
                return i
    return -1


@jit
def find_last(data: Any, at: int, end: int, text: Any) -> int:
    """Where `text` begins last in data[at:end], -1 if nowhere."""
    size = len(text)
    first = text[0]
    i = end - size
    while i >= at:
        if data[i] == first:
            same = True
            for k in range(1, size):
                if data[i + k] != text[k]:
                    same = False
                    break
            if same:
                return i
        i -= 1
    return -1


@jit
def number(data: Any, at: int, end: int) -> int:
    """The decimal number that begins at `at`, -1 if none does (or 19 digits and more)."""
    if at < 0 or at >= end or not is_digit(data[at]):
        return -1
    value = 0
    digits = 0
    while at < end and is_digit(data[at]):
        value = value * 10 + (data[at] - DIGIT0)
        digits += 1
        at += 1
    return value if digits < 19 else -1


@jit
def hexadecimal(data: Any, at: int, end: int) -> int:
    """The hexadecimal number that begins at `at`, its lower 62 bits; -1 if none does."""
    value = 0
    digits = 0
    while at < end:
        byte = data[at]
        if byte >= DIGIT0 and byte <= DIGIT9:
            nibble = byte - DIGIT0
        elif byte >= 97 and byte <= 102:
            nibble = byte - 87
        elif byte >= 65 and byte <= 70:
            nibble = byte - 55
        else:
            break
        value = (value % (1 << 58)) * 16 + nibble
        digits += 1
        at += 1
    return value if digits > 0 else -1


@jit
def after(data: Any, at: int, end: int, text: Any) -> int:
    """The number behind the first `text`, -1 if there is none."""
    found = find(data, at, end, text)
    return number(data, found + len(text), end) if found >= 0 else -1


@jit
def state_of(data: Any, at: int, end: int) -> int:
    """The state that a task left its CPU in: letters (R, S, D, I, X, Z, T), or the kernel's number (raw output)."""
    byte = data[at] if at < end else 0
    if is_digit(byte):
        value = number(data, at, end)
        low = value % 256
        if low == 0:
            return RUNNABLE
        if low % 2 == 1:
            return SLEEPS
        if low // 2 % 2 == 1:
            return DISK
        if low // 4 % 4 > 0:
            return STOPPED
        return DEAD
    if byte == 82 or byte == 119 or byte == 87:  # R, w, W: waking
        return RUNNABLE
    if byte == 68:
        return DISK
    if byte == 88 or byte == 90 or byte == 120:
        return DEAD
    if byte == 84 or byte == 116:
        return STOPPED
    return SLEEPS


@jit
def line_end(data: Any, at: int, end: int) -> int:
    """The end of the line that begins at `at`: its newline."""
    while at < end and data[at] != NEWLINE:
        at += 1
    return at


@jit
def scan_switch(data: Any, at: int, end: int, row: Any) -> int:
    """prev_comm=A prev_pid=1 prev_prio=120 prev_state=S ==> next_comm=B next_pid=2 ..., or A:1 [120] S ==> B:2."""
    pid = find(data, at, end, P_PREV_PID)
    if pid >= 0:
        row[F_A] = number(data, pid + 9, end)
        state = find(data, pid, end, P_PREV_STATE)
        next_pid = find_last(data, pid, end, P_NEXT_PID)
        if state < 0 or next_pid < 0:
            return BAD_ARGUMENTS
        row[F_B] = state_of(data, state + 11, end)
        row[F_C] = number(data, next_pid + 9, end)
        name = find(data, state, end, P_NEXT_COMM)
        if name >= 0:
            row[F_NAME] = name + 10
            row[F_NAME_END] = next_pid - 1
    else:
        arrow = find_last(data, at, end, P_ARROW)
        if arrow < 0:
            return BAD_ARGUMENTS
        # ...:1 [120] S ==>
        i = arrow - 2
        while i > at and data[i] != SPACE:
            i -= 1
        row[F_B] = state_of(data, i + 1, end)
        bracket = find_last(data, at, arrow, b" [")
        row[F_A] = tid_before(data, at, bracket)
        bracket = find_last(data, arrow, end, b" [")
        row[F_C] = tid_before(data, arrow, bracket)
        colon = find_last(data, arrow, bracket, b":") if bracket > 0 else -1
        if colon > 0:
            row[F_NAME] = arrow + 4
            row[F_NAME_END] = colon
    if row[F_A] < 0 or row[F_C] < 0:
        return BAD_ARGUMENTS
    return OK


@jit
def tid_before(data: Any, at: int, end: int) -> int:
    """The number behind the last colon of data[at:end]."""
    if end < 0:
        return -1
    colon = find_last(data, at, end, b":")
    return number(data, colon + 1, end) if colon >= 0 else -1


@jit
def scan_wake(data: Any, at: int, end: int, row: Any) -> int:
    """comm=A pid=1 prio=120 target_cpu=000, or A:1 [120] ..."""
    pid = find_last(data, at, end, P_PID)
    if pid >= 0:
        row[F_A] = number(data, pid + 5, end)
        name = find(data, at, pid, P_COMM)
        if name >= 0:
            row[F_NAME] = name + 5
            row[F_NAME_END] = pid
    else:
        bracket = find_last(data, at, end, b" [")
        row[F_A] = tid_before(data, at, bracket)
        colon = find_last(data, at, bracket, b":") if bracket > 0 else -1
        if colon > 0:
            row[F_NAME] = at
            row[F_NAME_END] = colon
    row[F_B] = after(data, at, end, P_TARGET)
    return OK if row[F_A] >= 0 else BAD_ARGUMENTS


@jit
def scan_block(data: Any, at: int, end: int, row: Any) -> int:
    """MAJOR,MINOR RWBS [BYTES] (COMMAND) SECTOR + SECTORS [...]: a device, b 1 for a write, c sector, d sectors."""
    row[F_A] = number(data, at, end)
    i = at
    while i < end and data[i] != COMMA:
        i += 1
    minor = number(data, i + 1, end)
    if row[F_A] < 0 or minor < 0:
        return BAD_ARGUMENTS
    row[F_A] = row[F_A] * (1 << 20) + minor
    while i < end and data[i] != SPACE:
        i += 1
    row[F_B] = -1
    i += 1
    while i < end and data[i] != SPACE:
        if row[F_B] < 0:
            if data[i] == 87:
                row[F_B] = 1
            elif data[i] == 82:
                row[F_B] = 0
            elif data[i] == 68:
                break
        i += 1
    plus = find(data, i, end, b" + ")
    if plus < 0:
        return BAD_ARGUMENTS
    row[F_D] = number(data, plus + 3, end)
    i = plus - 1
    while i > at and is_digit(data[i]):
        i -= 1
    row[F_C] = number(data, i + 1, plus)
    if row[F_D] == 0:
        row[F_KIND] = OTHER  # a flush: no data, and a sector of all ones
        return OK
    return OK if row[F_C] >= 0 and row[F_D] > 0 else BAD_ARGUMENTS


@jit
def scan_fault(data: Any, at: int, end: int, row: Any) -> int:
    """address=0x.. ip=0x.. error_code=0x6, or perf's bare address: a page, b 1 for a write, -1 unknown."""
    found = find(data, at, end, P_ADDRESS)
    if found >= 0:
        address = hexadecimal(data, found + 10, end)
        code = find(data, at, end, P_CODE)
        row[F_B] = hexadecimal(data, code + 13, end) // 2 % 2 if code >= 0 else -1
    else:
        address = hexadecimal(data, at, end)
        row[F_B] = -1
    row[F_A] = address // 4096 if address >= 0 else -1
    return OK


@jit
def scan_arguments(data: Any, at: int, end: int, name: int, row: Any) -> int:
    """An event's arguments by the hash of its name; status."""
    row[F_KIND] = OTHER
    if name == H_SWITCH:
        row[F_KIND] = SWITCH
        return scan_switch(data, at, end, row)
    if name == H_WAKING or name == H_WAKEUP or name == H_WAKEUP_NEW:
        row[F_KIND] = WAKE
        row[F_C] = 1 if name == H_WAKEUP_NEW else 0
        return scan_wake(data, at, end, row)
    if name == H_ENTER or name == H_EXIT:
        row[F_KIND] = SYS_ENTER if name == H_ENTER else SYS_EXIT
        row[F_A] = number(data, at + 3, end)
        return OK
    if name == H_FAULT or name == H_FAULTS or name == H_MINOR or name == H_MAJOR:
        row[F_KIND] = FAULT
        return scan_fault(data, at, end, row)
    if name == H_ISSUE or name == H_DONE:
        row[F_KIND] = BLOCK_ISSUE if name == H_ISSUE else BLOCK_DONE
        return scan_block(data, at, end, row)
    if name == H_FORK:
        row[F_KIND] = FORK
        row[F_A] = after(data, at, end, P_PID)
        row[F_B] = after(data, at, end, P_CHILD)
        child = find(data, at, end, P_CHILD_COMM)
        if child >= 0:
            row[F_NAME] = child + 11
            row[F_NAME_END] = find(data, child, end, b" child_pid")
        return OK
    if name == H_PROCESS_EXIT:
        row[F_KIND] = EXIT
        row[F_A] = after(data, at, end, P_PID)
        return OK
    return OK


@jit
def is_time(data: Any, at: int, end: int) -> int:
    """Where SECONDS.FRACTION: ends (at its colon) if it begins at `at`; -1 if it does not; -2 without a fraction."""
    i = at
    while i < end and is_digit(data[i]):
        i += 1
    if i == at or i >= end:
        return -1
    if data[i] == COLON:
        return -2 if i + 1 < end and data[i + 1] == SPACE else -1
    if data[i] != DOT:
        return -1
    i += 1
    while i < end and is_digit(data[i]):
        i += 1
    return i if i < end and data[i] == COLON else -1


@jit
def time_ns(data: Any, at: int, colon: int) -> int:
    value = 0
    i = at
    while data[i] != DOT:
        value = value * 10 + (data[i] - DIGIT0)
        i += 1
    i += 1
    digits = 0
    while i < colon and digits < 9:
        value = value * 10 + (data[i] - DIGIT0)
        digits += 1
        i += 1
    while digits < 9:
        value *= 10
        digits += 1
    return value


@jit
def scan_who(data: Any, start: int, end: int, row: Any) -> bool:
    """COMM-TID (TGID), COMM TID or COMM PID/TID, read from its end."""
    i = end - 1
    while i >= start and data[i] == SPACE:
        i -= 1
    if i >= start and data[i] == 41:  # (TGID), which may be dashes
        last = i
        while i > start and data[i] != 40:
            i -= 1
        first = i + 1
        while first < last and data[first] == SPACE:
            first += 1
        row[F_TGID] = number(data, first, last)
        i -= 1
        while i >= start and data[i] == SPACE:
            i -= 1
    last = i + 1
    while i >= start and is_digit(data[i]):
        i -= 1
    row[F_TID] = number(data, i + 1, last)
    if row[F_TID] < 0 or i < start:
        return False
    if data[i] == SLASH:  # perf: process, thread
        last = i
        i -= 1
        while i >= start and is_digit(data[i]):
            i -= 1
        row[F_TGID] = number(data, i + 1, last)
    if data[i] == DASH:
        i -= 1
    elif data[i] != SPACE:
        return False
    while i >= start and data[i] == SPACE:
        i -= 1
    row[F_COMM_END] = i + 1
    row[F_COMM] = start
    return i >= start


@jit
def scan_line(data: Any, start: int, end: int, row: Any) -> int:
    """One line into `row`; its status."""
    if end > start and data[end - 1] == 13:
        end -= 1
    at = start
    while at < end and data[at] == SPACE:
        at += 1
    if at >= end or data[at] == HASH or data[at] == TAB:
        return SKIP
    lost = find(data, at, end, P_LOST)
    if lost >= 0:
        row[F_A] = number(data, lost + 6, end)
        return LOST
    # the time: the first SECONDS.FRACTION: that stands behind a blank
    i = at
    time_at = -1
    colon = -1
    ticks = False
    while i < end:
        if data[i] == SPACE and i + 1 < end and is_digit(data[i + 1]):
            colon = is_time(data, i + 1, end)
            if colon >= 0:
                time_at = i + 1
                break
            if colon == -2:
                ticks = True
        i += 1
    if time_at < 0:
        if ticks:
            return BAD_TIME
        # what the tools print before the events: `cpus=8`, `version = 6`, `CPU 3 is empty`
        if find(data, at, end, b"is empty") >= 0 or find(data, at, end, b"cpus=") == at:
            return SKIP
        return SKIP if find(data, at, end, b"version = ") == at else BAD
    row[F_TIME] = time_ns(data, time_at, colon)
    # to the left: FLAGS and [CPU]
    i = time_at - 1
    while i > at and data[i] == SPACE:
        i -= 1
    last = i + 1
    row[F_CONTEXT] = NOWHERE
    if data[i] != CLOSE:
        while i > at and data[i] != SPACE:
            i -= 1
        size = last - i - 1
        before = i
        while before > at and data[before] == SPACE:
            before -= 1
        if data[before] == CLOSE:
            row[F_CONTEXT] = IN_TASK
            if size >= 3:
                flag = data[i + 3]
                if flag == 104 or flag == 72 or flag == 90 or flag == 122:  # h H Z z
                    row[F_CONTEXT] = IN_HARD
                elif flag == 115:
                    row[F_CONTEXT] = IN_SOFT
            i = before
            last = i + 1
    who_end = last
    if data[i] == CLOSE:
        while i > at and data[i] != OPEN:
            i -= 1
        row[F_CPU] = number(data, i + 1, last)
        who_end = i
    if not scan_who(data, at, who_end, row):
        return BAD
    # to the right: PERIOD GROUP:EVENT: ARGUMENTS
    i = colon + 1
    while i < end and data[i] == SPACE:
        i += 1
    if i < end and is_digit(data[i]):
        k = i
        while k < end and is_digit(data[k]):
            k += 1
        if k < end and data[k] == SPACE:
            i = k
            while i < end and data[i] == SPACE:
                i += 1
    name = 7
    while i < end:
        byte = data[i]
        if byte == COLON:
            if i + 1 < end and data[i + 1] != SPACE and data[i + 1] != TAB:
                name = 7  # that was the group
                i += 1
                continue
            break
        if byte == SPACE:
            return BAD
        name = (name * 31 + byte) % HASH_MOD
        i += 1
    if i >= end:
        return BAD
    i += 1
    while i < end and data[i] == SPACE:
        i += 1
    return scan_arguments(data, i, end, name, row)


@jit
def scan(data: Any, size: int, table: Any) -> int:
    """All lines of a block, a row of `table` each; their number."""
    at = 0
    line = 0
    while at < size:
        end = line_end(data, at, size)
        row = table[line]
        for k in range(len(row)):
            row[k] = -1
        row[F_LINE] = line
        row[F_STATUS] = scan_line(data, at, end, row)
        line += 1
        at = end + 1
    return line
