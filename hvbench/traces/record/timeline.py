"""One pass over the events: what each thread did, as rows.

A thread is on a CPU (its time is compute, in the kernel between the entry and the exit of a system call, else
in user mode), or runnable (dropped: that is what the model predicts), or blocked. A wait is classed when it
ends, by what the waker was and in which call the sleeper sat:

- woken by a recorded thread in its own context: an edge, `wake` here and `wait` there;
- woken by a timer in a call that waits for time: `sleep`;
- woken by a packet: nothing yet, the receive that follows *is* the wait;
- blocked in a file operation or a page fault: nothing, the operation is the wait;
- woken by somebody who is not recorded: `outside`; else `unknown`. Both keep their duration.

The kernel does not say when a page fault is over; `FAULT_NS` of each are booked as kernel time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from attrs import define, field

from hvbench.traces.format import FLAG_WRITE, PAGE_SIZE
from hvbench.traces.record import syscalls
from hvbench.traces.record.ftrace import Event
from hvbench.traces.record.memory import FileObject, Memory, Space
from hvbench.traces.record.procfs import ProcessState, runs
from hvbench.traces.record.rows import Block, EarlyWake, Process, Row, Thread

#: Kernel time booked for each page fault in user mode (about what a minor fault takes).
FAULT_NS: Final = 700
#: Compute shorter than this is carried over to the next one instead of making a row of its own.
SMALLEST_BURST_NS: Final = 1_000
#: A wake-up up to so long before the sleeper left its CPU can have been the one that ended its sleep.
EARLY_NS: Final = 100_000
#: Comm prefixes of kernel threads that complete disk I/O.
DISK_WORKERS: Final = ("kworker", "jbd2", "loop", "kswapd", "ksoftirqd", "mmcqd", "dm", "nvme", "swapper")


@define
class Timeline:
    """Feeds on events (in time order), ends with `threads` and `memory` filled."""

    start_ns: int
    touch_resolution_ns: int
    memory: Memory = field(factory=Memory)
    processes: list[Process] = field(factory=list)
    threads: list[Thread] = field(factory=list)
    by_tid: dict[int, Thread] = field(factory=dict)
    by_pid: dict[int, Process] = field(factory=dict)
    sockets: list[tuple[str, int, int, int]] = field(factory=list)  # socket, time, own port, other port
    addresses: dict[tuple[int, int], str] = field(factory=dict)  # own port, other port -> the other's address
    opened: list[tuple[int, int, int]] = field(factory=list)  # time, port, port: a connection begins
    end_ns: int = 0
    made: int = 0  # processes ever made: their indices stay unique
    ignored_messages: int = 0
    switched: dict[int, int] = field(factory=dict)  # CPU -> when its last switch was
    unseen: int = 0  # switches to a thread that are missing
    causes: Counter[str] = field(factory=Counter)  # ns of waits kept as durations, by what is known of them

    # ------------------------------------------------------------ who there is

    def begin_with(self, states: Iterable[ProcessState]) -> None:
        """The processes that were there before the first event."""
        for state in states:
            process = self._process(state.pid, state.comm)
            process.names.update(state.titles)
            self.memory.known_mappings(process, state.vmas)
            for item in state.threads:
                thread = self._thread(item.tid, process, item.comm)
                if item.syscall >= 0:
                    thread.syscall, thread.arguments = item.syscall, item.arguments
                    thread.block = Block(0, item.syscall, item.arguments, "S")

    def _process(self, pid: int, name: str) -> Process:
        process = self.by_pid.get(pid)
        if process is None:
            process = self._new_process(pid, name)
        return process

    def _new_process(self, pid: int, name: str) -> Process:
        process = Process(pid, self.made, {name})
        self.made += 1
        self.processes.append(process)
        self.by_pid[pid] = process
        return process

    def _thread(self, tid: int, process: Process, name: str) -> Thread:
        thread = Thread(tid, process, name)
        process.threads.append(thread)
        self.threads.append(thread)
        self.by_tid[tid] = thread
        return thread

    def known(self, event: Event) -> Thread | None:
        """The thread in whose context an event happened, if it is recorded; made when first seen."""
        thread = self.by_tid.get(event.tid)
        if thread is None and event.tid and event.tgid and event.name in ("sys_enter", "sys_exit"):
            # it was there at the start, but the snapshot missed it
            process = self._process(event.tgid, event.comm)
            thread = self._thread(event.tid, process, event.comm)
            thread.running, thread.accounted_to = True, event.time - self.start_ns
        return thread

    # ------------------------------------------------------------ the pass

    def run(self, events: Iterable[Event]) -> None:
        handlers = {
            "sched_switch": self._switch,
            "sched_waking": self._waking,
            "sched_wakeup_new": self._wakeup_new,
            "sched_process_fork": self._fork,
            "sched_process_exec": self._exec,
            "sched_process_exit": self._exit,
            "sys_enter": self._sys_enter,
            "sys_exit": self._sys_exit,
            "page_fault_user": self._fault,
            "page_fault_kernel": self._fault,
            "mm_filemap_get_pages": self._file_read,
            "mm_filemap_map_pages": self._file_fault,
            "mm_filemap_fault": self._file_fault,
            "mm_filemap_add_to_page_cache": self._added,
            "ext4_da_write_end": self._file_write,
            "ext4_write_end": self._file_write,
            "ext4_sync_file_enter": self._sync,
            "sock_send_length": self._send,
            "sock_recv_length": self._recv,
            "tcp_rcv_space_adjust": self._ports,
            "inet_sock_set_state": self._state,
        }
        for event in events:
            now = event.time - self.start_ns
            if now < 0:
                continue
            self.end_ns = now
            handler = handlers.get(event.name)
            if handler is not None:
                handler(event, now)
        for thread in self.threads:
            if thread.running:
                self._account(thread, self.end_ns)
            self._settle_fault(thread)
            self._flush(thread, self.end_ns, everything=True)

    # ------------------------------------------------------------ CPU time

    def _account(self, thread: Thread, now: int) -> None:
        """Book the time since the last event of a running thread."""
        if not thread.running:
            return
        spent = now - thread.accounted_to
        if spent <= 0:
            return
        if not (thread.user_ns or thread.kernel_ns):
            thread.burst_since = thread.accounted_to
        thread.accounted_to = now
        thread.since_touch_ns += spent
        if thread.syscall >= 0:
            thread.kernel_ns += spent
        else:
            fault = min(spent, thread.fault_debt_ns)
            thread.fault_debt_ns = 0
            thread.kernel_ns += fault
            thread.user_ns += spent - fault

    def _flush(self, thread: Thread, now: int, everything: bool = False) -> None:
        """Make rows of the compute (and, when it is time, of the touches) collected so far."""
        spent = thread.user_ns + thread.kernel_ns
        if spent >= SMALLEST_BURST_NS or (everything and (spent or any(thread.counts.values()))):
            columns: dict[str, Any] = {"user_ns": thread.user_ns, "kernel_ns": thread.kernel_ns}
            columns.update((name, count) for name, count in thread.counts.items() if count)
            thread.add("compute", thread.burst_since, **columns)
            thread.user_ns = thread.kernel_ns = 0
            for name in thread.counts:
                thread.counts[name] = 0
        if thread.touches and (everything or thread.since_touch_ns >= self.touch_resolution_ns):
            self._flush_touches(thread, now)

    def _flush_touches(self, thread: Thread, now: int) -> None:
        """Touches since the last flush as ranges; a page counts as written if any of them wrote."""
        pages: dict[tuple[Space | FileObject, int], bool] = {}
        for target, first, count, write in thread.touches:
            for page in range(first, first + count):
                key = (target, page)
                pages[key] = pages.get(key, False) or write
        thread.touches.clear()
        thread.since_touch_ns = 0
        groups: dict[tuple[Space | FileObject, bool], list[int]] = {}
        for (target, page), write in pages.items():
            groups.setdefault((target, write), []).append(page)
        for (target, write), numbers in groups.items():
            for first, count in runs(numbers):
                flags = FLAG_WRITE if write else 0
                if isinstance(target, Space):
                    thread.add("touch", now, space=target, page=first, pages=count, flags=flags)
                else:
                    op = "touch" if target.shared_memory else "mtouch"
                    thread.add(op, now, file=target, page=first, pages=count, flags=flags)

    def _operation(self, thread: Thread, now: int, op: str, **at: Any) -> Row:
        """A row in the thread's own time: what it computed before comes first."""
        self._account(thread, now)
        self._flush(thread, now)
        return thread.add(op, now, **at)

    # ------------------------------------------------------------ scheduling

    def _switch(self, event: Event, now: int) -> None:
        _, prev, state, next_comm, following = event.args
        thread = self.by_tid.get(prev)
        if thread is not None:
            if not thread.running and thread.accounted_to == 0 and thread.block is None:
                thread.running = True  # it ran since before the first event
            elif not thread.running:
                self._came_unseen(thread, event.cpu)
            self._account(thread, now)
            thread.running = False
            thread.left_at = now
            thread.counts["context_switches"] += 1
            faulting = thread.fault is not None and thread.syscall < 0
            if state[0] in "XZ":
                thread.exited = True
                self._flush(thread, now, everything=True)
            elif not state.startswith("R"):
                self._settle_fault(thread)
                thread.block = Block(now, thread.syscall, thread.arguments, state, faulting)
                if thread.syscall in syscalls.POLLS:
                    thread.slot = None
        thread = self.by_tid.get(following)
        if thread is not None:
            if thread.block is not None and not thread.block.woken and thread.block.since >= 0:
                self._end_by_early_wake(thread, now)
            thread.early_wake = None
            thread.block = None
            thread.running = True
            thread.accounted_to = now
            if next_comm and not next_comm.startswith("<"):
                thread.name = next_comm
        self.switched[event.cpu] = now

    def _came_unseen(self, thread: Thread, cpu: int) -> None:
        """It leaves a CPU that nobody saw it come to: it has run there since it was woken, or since the switch before.

        A tracing instance that is limited to some threads misses some switches from the idle task.
        """
        since = max(self.switched.get(cpu, 0), thread.left_at)
        block = thread.block
        if block is not None:
            since = max(since, block.woken_at, block.since)
            if not block.woken and block.since >= 0:
                self._end_by_early_wake(thread, since)
        thread.early_wake = thread.block = None
        thread.running = True
        thread.accounted_to = since
        self.unseen += 1

    def _waking(self, event: Event, now: int) -> None:
        _, target, cpu = event.args
        waker = self.by_tid.get(event.tid) if event.context == "" else None
        if waker is not None and waker.running and cpu != event.cpu:
            waker.counts["ipis"] += 1
        thread = self.by_tid.get(target)
        if thread is None or thread is waker:
            return
        if thread.block is None:
            position = len(waker.rows) if waker is not None else 0
            thread.early_wake = EarlyWake(now, waker, position, event.context, event.comm)
            return
        if thread.block.woken:
            return
        thread.block.woken, thread.block.woken_at = True, now
        self._end_block(thread, now, waker, event.context, event.comm)

    def _end_by_early_wake(self, thread: Thread, now: int) -> None:
        """It runs again and no wake-up was seen since it slept: one just before that must have been it."""
        early, block = thread.early_wake, thread.block
        assert block is not None
        if early is None or early.time < block.since - EARLY_NS:
            self._end_block(thread, now, None, "", "")
        else:
            self._end_block(thread, max(early.time, block.since), early.waker, early.context, early.comm, early)

    def _end_block(
        self,
        thread: Thread,
        now: int,
        waker: Thread | None,
        context: str,
        comm: str,
        early: EarlyWake | None = None,
    ) -> None:
        """Class a wait and leave its row, if it has one of its own."""
        block = thread.block
        assert block is not None
        took = now - block.since
        number = block.syscall
        kind = self._class_of(thread, block, waker, context, comm)
        if kind == "dropped":
            return
        thread.waited[kind] += took
        if kind == "disk":
            return  # the operation that it blocked in, or the touch, is the wait
        self._flush(thread, block.since)
        if kind == "thread_edge":
            assert waker is not None
            if early is not None and early.position < len(waker.rows):
                # What the waker did since may depend on the sleeper: the wake-up goes before it.
                wake = Row("wake", waker.rows[early.position].time, {"target": thread})
                waker.rows.insert(early.position, wake)
            else:
                self._account(waker, now)
                self._flush(waker, now)
                wake = waker.add("wake", now, target=thread)
            thread.add("wait", block.since, edge=(waker, wake), took=took, done=now)
        elif kind == "timer":
            thread.add("sleep", block.since, duration_ns=took)
            thread.counts["timer_programs"] += 0 if number in syscalls.SLEEPS else 1
        elif kind == "network":
            thread.slot = thread.add("slot", block.since, woke=now, took=took)
        elif kind in ("outside", "unknown"):
            name = syscalls.NAMES.get(number, str(number) if number >= 0 else "no call")
            self.causes[f"{kind}: {name}, state {block.state}, ended by {comm or 'nobody seen'} {context}".strip()] += (
                took
            )
            thread.add(kind, block.since, duration_ns=took)

    @staticmethod
    def _class_of(thread: Thread, block: Block, waker: Thread | None, context: str, comm: str) -> str:
        number = block.syscall
        disk_state = block.state.startswith("D")
        if block.state[0] in "Tt":
            return "dropped"  # stopped by a signal or a debugger: no wait of its own
        if waker is not None:
            return "thread_edge"
        if number in syscalls.SLEEPS:
            return "timer"
        if context == "s" and number in syscalls.NETWORK and not disk_state:
            return "network"
        if context == "h" and not disk_state and not block.faulting:
            return "timer"  # a time-out, or a signal of an interval timer
        if disk_state or block.faulting:
            return "disk" if context or comm.startswith(DISK_WORKERS) else "unknown"
        if comm.startswith("ksoftirqd") and number in syscalls.NETWORK:
            return "network"
        if not comm and number in syscalls.RECEIVES:
            return "network"  # nobody was seen to wake it, but nothing else ends such a call
        if comm and context == "":
            return "outside"
        return "unknown"

    def _fork(self, event: Event, now: int) -> None:
        parent_tid, comm, child_tid = event.args
        parent = self.by_tid.get(parent_tid)
        if parent is None:
            return
        old = self.by_tid.get(child_tid)
        if old is not None and not old.exited:
            return
        self._account(parent, now)
        # The kernel shows the group of a thread only once it runs; until then every child is a process.
        process = self._new_process(child_tid, comm)
        process.started = True
        child = self._thread(child_tid, process, comm)
        child.block = Block(now, -1, (), "S")
        self.memory.forked(parent.process, process)
        parent.counts["pt_updates"] += 1

    def _awake(self, thread: Thread, cpu: int, now: int) -> None:
        """It does something, so it runs: it woke up between the snapshot and the first event."""
        if not thread.running and thread.block is not None:
            if thread.block.woken:
                self._came_unseen(thread, cpu)
                return
            thread.block = None
            thread.running = True
            thread.accounted_to = now

    def join_group(self, thread: Thread, tgid: int) -> None:
        """A child turned out to be a thread of an older process."""
        process = self.by_pid.get(tgid)
        if process is None or process is thread.process:
            return
        thread.process.threads.remove(thread)
        if not thread.process.threads:
            self.processes.remove(thread.process)
            self.by_pid.pop(thread.process.pid, None)
        thread.process = process
        process.threads.append(thread)

    def _wakeup_new(self, event: Event, now: int) -> None:
        self._waking(event._replace(context=""), now)

    def _exec(self, event: Event, now: int) -> None:
        filename, tid, _ = event.args
        thread = self.by_tid.get(tid)
        if thread is None:
            return
        thread.process.names.update((filename, filename.rpartition("/")[2]))
        self._settle_fault(thread)
        self._account(thread, now)
        self._flush(thread, now, everything=True)
        for space, first, count in self.memory.new_image(thread.process):
            thread.add("free", now, space=space, page=first, pages=count)

    def _exit(self, event: Event, now: int) -> None:
        thread = self.by_tid.get(event.args[1])
        if thread is None:
            return
        self._account(thread, now)
        thread.exited = True
        thread.process.names.add(event.args[0])
        if all(other.exited for other in thread.process.threads):
            thread.process.exited_ns = now

    # ------------------------------------------------------------ system calls

    def _sys_enter(self, event: Event, now: int) -> None:
        thread = self.known(event)
        if thread is None:
            return
        if event.tgid and thread.process.pid != event.tgid:
            self.join_group(thread, event.tgid)
        self._awake(thread, event.cpu, now)
        self._settle_fault(thread)
        self._account(thread, now)
        number, arguments = event.args
        thread.syscall, thread.arguments, thread.syscall_since = number, arguments, now
        thread.counts["syscalls"] += 1
        thread.process.calls[number] += 1
        if syscalls.is_timed(number, arguments):
            thread.counts["timer_programs"] += 1
        if number == syscalls.NUMBERS["prctl"] and arguments and arguments[0] == syscalls.MARK_OPTION:
            op = {1: "mark_begin", 2: "mark_end"}.get(arguments[1])
            if op is not None:
                self._flush(thread, now, everything=True)
                thread.add(op, now)

    def _sys_exit(self, event: Event, now: int) -> None:
        thread = self.known(event)
        if thread is None:
            return
        if event.tgid and thread.process.pid != event.tgid:
            self.join_group(thread, event.tgid)
        self._awake(thread, event.cpu, now)
        self._settle_fault(thread)
        if thread.syscall < 0 and thread.running:
            thread.syscall = event.args[0]  # entered before the recording began: all of it was kernel time
        self._account(thread, now)
        number, result = event.args
        arguments = thread.arguments if number == thread.syscall else ()
        thread.syscall, thread.arguments = -1, ()
        if len(arguments) == 6:
            self._memory_call(thread, now, number, arguments, result)

    def _memory_call(self, thread: Thread, now: int, number: int, args: tuple[int, ...], result: int) -> None:
        name = syscalls.NAMES.get(number)
        space = self.memory.space
        gone: list[tuple[int, int]] = []
        if name == "mmap" and result > 0:
            first, end = result // PAGE_SIZE, -(-(result + args[1]) // PAGE_SIZE)
            gone = space(thread.process).drop(first, end)
            both = syscalls.MAP_SHARED | syscalls.MAP_ANONYMOUS
            if args[3] & (both | 2) == both:
                self.memory.map_shared(thread.process, first, end, None)
        elif name == "munmap" and result == 0:
            gone = space(thread.process).drop(args[0] // PAGE_SIZE, -(-(args[0] + args[1]) // PAGE_SIZE))
        elif name == "madvise" and result == 0 and args[2] in (syscalls.MADV_DONTNEED, syscalls.MADV_FREE):
            gone = space(thread.process).drop(args[0] // PAGE_SIZE, (args[0] + args[1]) // PAGE_SIZE)
        elif name == "brk" and result > 0:
            mine = space(thread.process)
            if mine.brk and result < mine.brk:
                gone = mine.drop(-(-result // PAGE_SIZE), -(-mine.brk // PAGE_SIZE))
            mine.brk = result
        elif name == "mremap" and result > 0:
            self._moved(thread, now, args[0], args[1], args[2], result)
        for first, count in gone:
            self._release(thread, now, first, count)

    def _release(self, thread: Thread, now: int, first: int, count: int) -> None:
        self._flush(thread, now)
        if thread.touches:
            self._flush_touches(thread, now)
        thread.add("free", now, space=self.memory.space(thread.process), page=first, pages=count)
        thread.counts["pt_updates"] += count

    def _moved(self, thread: Thread, now: int, old: int, old_size: int, size: int, new: int) -> None:
        """mremap: what went beyond the new size is freed; what moved is freed there and written here."""
        mine = self.memory.space(thread.process)
        if new == old:
            for first, count in mine.drop((old + size) // PAGE_SIZE, -(-(old + old_size) // PAGE_SIZE)):
                self._release(thread, now, first, count)
            return
        moved = mine.drop(old // PAGE_SIZE, -(-(old + old_size) // PAGE_SIZE))
        shift = new // PAGE_SIZE - old // PAGE_SIZE
        for first, count in moved:
            self._release(thread, now, first, count)
            mine.touch(first + shift, count)
            thread.touches.append((mine, first + shift, count, True))

    # ------------------------------------------------------------ memory and files

    def _fault(self, event: Event, now: int) -> None:
        thread = self.known(event)
        if thread is None or event.context:
            return
        self._settle_fault(thread)
        self._account(thread, now)
        thread.counts["page_faults"] += 1
        if thread.syscall < 0:
            thread.fault_debt_ns = FAULT_NS
        address, code = event.args
        if address < 1 << 47:
            thread.fault = (address // PAGE_SIZE, bool(code & 2))

    def _settle_fault(self, thread: Thread) -> None:
        """The next event has come and it was not of the page cache: the fault was in anonymous memory."""
        if thread.fault is None:
            return
        page, write = thread.fault
        thread.fault = None
        thread.counts["pt_updates"] += 1
        found = self.memory.find_shared(thread.process, page)
        if found is not None:
            file, index = found
            file.reach(index + 1)
            file.written = file.written or write
            thread.touches.append((file, index, 1, write))
            return
        space = self.memory.space(thread.process)
        space.touch(page)
        thread.touches.append((space, page, 1, write))

    def _file_fault(self, event: Event, now: int) -> None:
        thread = self.by_tid.get(event.tid)
        if thread is None or event.context:
            return
        device, inode, first, count = event.args
        file = self.memory.file(device, inode)
        file.reach(first + count)
        write = False
        if thread.fault is not None:
            thread.fault = None
            thread.counts["pt_updates"] += count
        thread.touches.append((file, first, count, write))

    def _file_read(self, event: Event, now: int) -> None:
        thread = self.by_tid.get(event.tid)
        if thread is None or event.context:
            return
        device, inode, first, count = event.args
        file = self.memory.file(device, inode)
        last = thread.rows[-1] if thread.rows else None
        if last is not None and last.op == "fread" and last.at["file"] is file:
            end = last.at["page"] + last.at["pages"]
            if last.at["page"] <= first and first + count <= end and last.at["since"] == thread.syscall_since:
                return  # asked again within one call, after the read-ahead
            if first == end:
                self._account(thread, now)
                if thread.user_ns + thread.kernel_ns < SMALLEST_BURST_NS:
                    last.at["pages"] += count
                    file.reach(first + count)
                    return
        file.reach(first + count)
        row = self._operation(thread, now, "fread", file=file, page=first, pages=count)
        row.at["since"] = thread.syscall_since

    def _file_write(self, event: Event, now: int) -> None:
        thread = self.by_tid.get(event.tid)
        if thread is None or event.context:
            return
        device, inode, first, count = event.args
        file = self.memory.file(device, inode)
        file.written = True
        file.reach(first + count)
        last = thread.rows[-1] if thread.rows else None
        if last is not None and last.op == "fwrite" and last.at["file"] is file:
            # a large write comes page by page
            end = last.at["page"] + last.at["pages"]
            if end - 1 <= first <= end and last.at["since"] == thread.syscall_since:
                last.at["pages"] = max(last.at["pages"], first + count - last.at["page"])
                return
        row = self._operation(thread, now, "fwrite", file=file, page=first, pages=count)
        row.at["since"] = thread.syscall_since

    def _added(self, event: Event, now: int) -> None:
        """New pages in the page cache during a write, on file systems without a tracepoint of their own."""
        thread = self.by_tid.get(event.tid)
        if thread is None or thread.syscall not in _WRITES or event.args[0] in self._with_write_events:
            return
        self._file_write(event, now)

    _with_write_events: frozenset[str] = frozenset()

    def devices_with_write_events(self, devices: Iterable[str]) -> None:
        """Devices whose writes are seen exactly, so that new pages in the cache are no news."""
        self._with_write_events = frozenset(devices)

    def _sync(self, event: Event, now: int) -> None:
        thread = self.by_tid.get(event.tid)
        if thread is None:
            return
        device, inode = event.args
        self._operation(thread, now, "fsync", file=self.memory.file(device, inode))

    # ------------------------------------------------------------ messages

    def _ports(self, event: Event, now: int) -> None:
        thread = self.by_tid.get(event.tid)
        if thread is not None:
            thread.ports = event.args[:2]
            self.addresses[thread.ports] = event.args[2]

    def _state(self, event: Event, now: int) -> None:
        own, other, _, new = event.args
        if new == "TCP_SYN_SENT":
            self.opened.append((now, own, other))

    def _send(self, event: Event, now: int) -> None:
        thread = self.by_tid.get(event.tid)
        socket, _, protocol, length, _ = event.args
        if thread is None or length <= 0:
            return
        if protocol != "IPPROTO_TCP":
            self.ignored_messages += 1
            return
        self._operation(thread, now, "send", socket=socket, bytes=length, sent=thread.syscall_since, when=now)

    def _recv(self, event: Event, now: int) -> None:
        thread = self.by_tid.get(event.tid)
        socket, _, protocol, length, _ = event.args
        if thread is None or length <= 0:
            return
        if protocol != "IPPROTO_TCP":
            self.ignored_messages += 1
            return
        if thread.ports is not None:
            self.sockets.append((socket, now, *thread.ports))
            thread.ports = None
        slot, thread.slot = thread.slot, None
        blocked = slot.at["took"] if slot is not None else 0
        self._operation(
            thread, now, "recv", socket=socket, bytes=length, done=now, blocked=blocked, slot=slot, when=now
        )


_WRITES: Final = syscalls.numbers("write", "pwrite64", "writev", "pwritev", "sendfile")
