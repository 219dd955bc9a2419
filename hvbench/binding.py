"""From what pluggy resolved to what the event loop calls.

A cell's plugin manager holds exactly the chosen policies (and observers, if any). For each policy and
hook the binder fills one row of the hook table:

- *compiled*: an adapter of the one hook signature views the host with the policy's rights and own fields and
  calls the hook function. It is cached on disk by the policy's source: a new stack or other parameters compile nothing.
- *plain Python*: where a wrapper stands around the hook, where the policy cannot be compiled, or where the caller asks
  for it. A compiled shim passes the scalars to a ctypes callback. The callback keeps an exception on the cell and
  answers `RAISED_ANSWER`, upon which the kernel stops: ctypes would print it and go on.
- *interpreted*: kernel and policies are plain Python; exceptions rise as they are, pdb works.
"""

from __future__ import annotations

import ast
import ctypes
import inspect
import operator
import os
import re
import sys
import textwrap
import threading
import types
from collections.abc import Callable
from typing import Any

import attrs

from hvbench import hookspecs, jit
from hvbench.errors import UserError
from hvbench.kernel import loop
from hvbench.kernel.containers import arena_layout
from hvbench.kernel.guards import RAISED_ANSWER
from hvbench.related import related
from hvbench.state import schema
from hvbench.state.layout import Field, Layout, layout
from hvbench.state.memory import HostMemory
from hvbench.state.proxies import HostProxy

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 7)
INT64 = range(-(1 << 63), 1 << 63)


WRONG_ANYWHERE = (r"read-only", r" has no ", r"is not defined", r"without `return`")
"""Complaints about a hook that plain Python would fail on as well."""

Call = Callable[..., int]
Around = Callable[["Chosen", hookspecs.Hook, Call], Call]


class BindError(UserError):
    """A policy that cannot be bound or compiled: it costs its own cells."""


@attrs.frozen
class Chosen:
    """A policy as the binder takes it: where its slot is, its module, its parameters, its digest."""

    slot: int
    name: str
    module: types.ModuleType
    params: Any
    digest: str


class Compiled:
    """Everything compiled in this process: the loop, the shim, the adapters."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.keep: dict[Any, Any] = {}

    def run(self) -> Callable[[int, int], int]:
        """The event loop: `run(header_address, limit)`; a negative limit boots the host."""
        with self.lock:
            if "run" not in self.keep:
                from numba import types as nb

                from hvbench.state.native import KERNEL, host_at

                view = host_at(KERNEL)
                boot, serve = loop.boot, loop.run

                def entry(header: int, limit: int) -> int:
                    host = view(header, 0)
                    if limit < 0:
                        boot(host)
                        return 0
                    return serve(host, limit)

                self.keep["run"] = jit.compiled(entry, nb.int64(nb.int64, nb.int64), "run")
            run: Callable[[int, int], int] = self.keep["run"]
            return run

    def shim(self) -> int:
        """Address of the compiled function that hands a call over to the row's C callback."""
        with self.lock:
            if "shim" not in self.keep:
                from hvbench.state.native import HOOK_SIGNATURE, KERNEL, call_c_address, host_at

                view = host_at(KERNEL)

                def shim(header, slot, a, b, c, d, e):  # type: ignore[no-untyped-def]
                    host = view(header, 0)
                    return call_c_address(host.hook[host.hook_row].c_address, header, slot, a, b, c, d, e)

                made = jit.compiled(shim, HOOK_SIGNATURE, "shim")
                self.keep["shim"] = (made, jit.native_address(made, HOOK_SIGNATURE))
            return int(self.keep["shim"][1])

    def adapter(self, policy: Chosen, hook: str, layouts: dict[str, Layout]) -> int:
        """Address of the adapter of one hook of one policy."""
        # the module's name is part of it: a cached function is rebuilt in the module of that name
        key = f"{policy.digest} {policy.module.__name__} {hook}"
        with self.lock:
            if key not in self.keep:
                from hvbench.state.native import HOOK_SIGNATURE, KERNEL, HostType, host_at, kernel_view, whole

                _mark_functions(policy.module)
                own = tuple((name, made.key, made.stride) for name, made in sorted(layouts.items()))
                function = getattr(policy.module, hook)
                scope: dict[str, Any] = {
                    # a cached function is rebuilt in the module of this name
                    "__name__": __name__,
                    "view": host_at(HostType(own)),
                    "kernel_view": kernel_view,
                    "function": function,
                    "KERNEL": KERNEL,
                    "whole": whole,
                }
                exec(_adapter_source(hook, function), scope)
                made = jit.compiled(
                    scope["adapter"], HOOK_SIGNATURE, f"{hook}-{policy.name}", key, boundscheck=True
                )
                self.keep[key] = (made, jit.native_address(made, HOOK_SIGNATURE))
            return int(self.keep[key][1])


COMPILED = Compiled()


def _mark_functions(module: types.ModuleType) -> None:
    """Make a policy's functions, helpers and hooks of other policies included, callable from compiled code."""
    for part in related(module):
        for value in list(vars(part).values()):
            if inspect.isfunction(value) and value.__module__ == part.__name__ and not jit.is_marked(value):
                jit.jit(value)


def _adapter_source(hook: str, function: Callable[..., Any]) -> str:
    spec = hookspecs.HOOKS[hook]
    position = dict(zip(spec.arguments, "abcde", strict=False))
    wanted = [position[name] for name in list(inspect.signature(function).parameters)[1:]]
    call = f"function({', '.join(['view(header, slot)', *wanted])})"
    head = "def adapter(header, slot, a, b, c, d, e):\n"
    if hook in hookspecs.PAIR_HOOKS:
        return (
            head + f"    answer, extra = {call}\n"
            "    kernel_view(view(header, slot)).answer_slice_ns = whole(extra)\n"
            "    return whole(answer)\n"
        )
    if spec.decides:
        return head + f"    return whole({call})\n"
    return head + f"    {call}\n    return 0\n"


def own_layouts(policy: Chosen, boxes: dict[str, int]) -> dict[str, Layout]:
    """Layouts of a policy's params, of its own fields by table, and of its containers' handles."""
    made: dict[str, Layout] = {}
    if policy.params is not None:
        made["params"] = layout(type(policy.params), "params")
    for value in vars(policy.module).values():
        table = getattr(value, "__hvbench_state__", None)
        if table is None or not isinstance(value, type):
            continue
        name = "own" if table == "host" else table
        if name != "own" and name not in schema.TABLES:
            legal = ", ".join(["host", *schema.TABLES])
            raise BindError(f"{policy.name}: @state({table!r}): there is no such table; legal: {legal}")
        own = layout(value, table)
        if name in schema.TABLES:
            taken = {f.name for f in schema.TABLES[name].layout.fields} & {f.name for f in own.fields}
            if taken:
                raise BindError(
                    f"{policy.name}: @state({table!r}): {', '.join(sorted(taken))} would hide a kernel field of that "
                    "name; rename it"
                )
        made[name] = own
    if boxes:
        made["box"] = Layout("box", tuple(Field(n, 8 * i, "i8", "") for i, n in enumerate(boxes)), 8 * len(boxes))
    return made


def hook_functions(policy: Chosen) -> list[str]:
    """Names of the hooks that a policy implements."""
    return [n for n in hookspecs.HOOKS if hasattr(getattr(policy.module, n, None), "hvbench_impl")]


def bind(
    memory: HostMemory,
    policies: list[Chosen],
    *,
    interpreted: bool = False,
    plain_python: bool = False,
    observers: tuple[Any, ...] = (),
    around: Around | None = None,
) -> None:
    """Give every policy its slot and fill the hook table.

    `around` wraps every call of a hook that runs as Python: it is given the policy, the hook, and the call as a
    function of the hook's arguments behind `host`, and returns what is called instead.

    `observers` are plugins with hook wrappers (tracing, instrumentation); a hook that has one goes through pluggy,
    on the plain-Python path. Raises UserError for a policy that cannot be bound.
    """
    manager = hookspecs.plugin_manager()
    memory.python_hooks = {}
    memory.exceptions = []
    memory.callbacks = []
    memory.policies = {p.slot: p for p in policies}
    for observer in observers:
        manager.register(observer)
    for policy in policies:
        if not manager.is_registered(policy.module):
            manager.register(policy.module, name=policy.name)
    manager.check_pending()
    for policy in policies:
        _bind_one(memory, manager, policy, policies, interpreted, plain_python, around)


def _bind_one(
    memory: HostMemory,
    manager: Any,
    policy: Chosen,
    policies: list[Chosen],
    interpreted: bool,
    plain_python: bool,
    around: Around | None,
) -> None:
    declared = getattr(policy.module, "CONTAINERS", ())
    words, boxes = arena_layout(declared, {name: len(table) for name, table in memory.tables.items()})
    layouts = own_layouts(policy, boxes)
    slot = memory.add_slot(policy.slot, layouts, len(words))
    slot.arena[: len(words)] = words
    if policy.params is not None:
        for a in attrs.fields(type(policy.params)):
            slot.own["params"][a.name] = getattr(policy.params, a.name)
    for name, handle in boxes.items():
        slot.own["box"][name] = handle
    layer = max(0, policy.slot - schema.FIRST_MEMORY_SLOT)
    proxy: HostProxy | None = None
    for hook in hook_functions(policy):
        spec = hookspecs.HOOKS[hook]
        if (spec.axis == "memory") != (policy.slot >= schema.FIRST_MEMORY_SLOT):
            raise BindError(f"{policy.name} implements {hook}, a hook of the {spec.axis} axis; one policy, one axis")
        row = hookspecs.row(hook, layer)
        entry = memory.tables["hook"][row]
        entry["slot"] = slot.address
        entry["slot_index"] = policy.slot
        implementations = getattr(manager.hook, hook).get_hookimpls()
        wrapped = any(i.wrapper or i.hookwrapper for i in implementations)
        if not (interpreted or plain_python or wrapped):
            entry["address"] = _compile_or_note(memory, policy, hook, layouts)
        if entry["address"] == 0:
            proxy = proxy or HostProxy(memory, policy.slot, HostProxy(memory, -1))
            function = getattr(policy.module, hook)
            if wrapped:
                others = [p.module for p in policies if p.module is not policy.module]
                function = _through_pluggy(manager.subset_hook_caller(hook, others), spec)
            call = _python_call(memory, proxy, policy, spec, function)
            if around is not None:
                call = around(policy, spec, call)
            if interpreted:
                memory.python_hooks[row] = call
                entry["address"] = 1
            else:
                callback = CALLBACK(_guarded(memory, row, call))
                memory.callbacks.append(callback)
                entry["c_address"] = ctypes.cast(callback, ctypes.c_void_p).value
                entry["address"] = COMPILED.shim()


def _compile_or_note(memory: HostMemory, policy: Chosen, hook: str, layouts: dict[str, Layout]) -> int:
    """Address of a hook's adapter; 0 for one that is legal Python beyond what Numba compiles: it runs as it is.

    What is wrong in Python too (a write to a kernel field, a name that nobody defines, a missing return) is refused.
    """
    try:
        if hook in hookspecs.PAIR_HOOKS and _may_return_nothing(policy, hook):
            # Numba lets it pass, and says "failed to unpack none" when it happens
            raise TypeError("a path without a return")
        return COMPILED.adapter(policy, hook, layouts)
    except Exception as error:  # not all of Numba's errors are NumbaErrors
        reason = explain(policy, hook, error)
        if any(re.search(pattern, reason) for pattern in WRONG_ANYWHERE):
            raise BindError(reason) from error
        memory.notes.append(f"{reason}. Meanwhile it runs as plain Python, which is slower.")
        return 0


def explain(policy: Chosen, hook: str, error: Exception) -> str:
    """Numba's complaint in one line: policy, hook, file and line, what is the matter, what to write instead."""
    text = str(error)
    where, reason = _where(policy, hook, text), _reason(text)
    spec = hookspecs.HOOKS[hook]
    if spec.decides and _may_return_nothing(policy, hook):
        wanted = "a pair: (entity, slice_ns)" if hook in hookspecs.PAIR_HOOKS else "a whole number"
        return (
            f"{policy.name}: {hook} may end without `return` ({where}); it must return {wanted} on every path, "
            "see hvbench hooks"
        )
    instead = next((advice for pattern, advice in ADVICE if re.search(pattern, text)), ADVICE_ELSE)
    return f"{policy.name}: {hook} cannot be compiled ({where}): {reason}; {instead}"


ADVICE = (
    (r"read-only| has no |is not defined", "hooks read the host's tables and write fields declared with @state"),
    (r"IMPORT_NAME|IMPORT_FROM", "import at the top of the file, and only hvbench.policy is needed in hooks"),
    (r"LOAD_BUILD_CLASS|MAKE_FUNCTION|yield|generator|Generator", "write a loop, and helpers at the file's top level"),
    (r"SETUP_WITH|BEFORE_WITH|context manager|'open'|print", "look into a run with HVBENCH_INTERPRET=1 and pdb"),
    (r"reflected list|list\(|sorted|\bset\b", "keep entities in a Fifo, Heap or OrderedIndex of CONTAINERS"),
    (r"FORMAT_VALUE|unicode|str\b|Literal\[str\]", "compute with numbers; look into a run with HVBENCH_INTERPRET=1"),
    (r"dict|map\b", "keep numbers in @state fields, or in a HashMap of CONTAINERS"),
    (r"random", "draw numbers with hvbench.policy.random_below, which every run repeats"),
    (r"\btime\b", "the time is the argument `now`: there is no other clock"),
)  # fmt: skip
"""What to write instead, by what Numba names."""
ADVICE_ELSE = "hooks compute with integers, floats and the host's tables only"


def _may_return_nothing(policy: Chosen, hook: str) -> bool:
    """Whether some path of a hook ends without a value, as far as its text tells."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(policy.module, hook))))
    except (OSError, SyntaxError):
        return False
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    inner = [node for node in ast.walk(function) if isinstance(node, ast.Return)]
    bare = any(r.value is None or (isinstance(r.value, ast.Constant) and r.value.value is None) for r in inner)
    return bare or not _always_returns(function.body)


def _always_returns(body: list[ast.stmt]) -> bool:
    """Whether control cannot fall out of the end of a block."""
    last = body[-1]
    if isinstance(last, (ast.Return, ast.Raise)):
        return True
    if isinstance(last, ast.If):
        return bool(last.orelse) and _always_returns(last.body) and _always_returns(last.orelse)
    if isinstance(last, ast.While):
        endless = isinstance(last.test, ast.Constant) and bool(last.test.value)
        return endless and not any(isinstance(node, ast.Break) for node in ast.walk(last))
    if isinstance(last, ast.Try):
        return _always_returns(last.body) and all(_always_returns(handler.body) for handler in last.handlers)
    return isinstance(last, ast.Match) or (isinstance(last, ast.With) and _always_returns(last.body))


def _where(policy: Chosen, hook: str, text: str) -> str:
    """File and line that a complaint is about: as Numba says, else where an undefined name stands, else the hook."""
    file = str(policy.module.__file__)
    name = re.escape(os.path.basename(file))
    found = re.search(rf'{name}", line (\d+)', text) or re.search(rf"{name} \((\d+)\)", text)
    if found is not None:
        return f"{file}:{found[1]}"
    undefined = re.search(r"name '(\w+)' is not defined", text)
    if undefined is not None:
        with open(file, encoding="utf-8") as source:
            for number, line in enumerate(source, 1):
                if re.search(rf"\b{undefined[1]}\b", line.split("#")[0]):
                    return f"{file}:{number}"
    return f"{file}:{getattr(policy.module, hook).__code__.co_firstlineno}"


def _reason(text: str) -> str:
    """What Numba complains about at bottom: our own refusals, a named error, the last call that it cannot do."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if "read-only" in line or " has no " in line:
            return line.removeprefix("TypingError: ")
    # the innermost complaint follows the last of these
    heads = [number for number, line in enumerate(lines) if "Failed in nopython" in line]
    inner = lines[heads[-1] + 1 :] if heads else lines
    calls = [line.removeprefix(">>> ") for line in inner if line.startswith(">>> ")]
    if inner and inner[0].startswith("No implementation of function") and calls:
        return f"there is no {calls[-1]}"
    return re.split(r"\.? Raised from ", inner[0])[0] if inner else text


def _through_pluggy(caller: Any, spec: hookspecs.Hook) -> Callable[..., Any]:
    names = ("host", *spec.arguments)

    def call(*values: Any) -> Any:
        return caller(**dict(zip(names, values, strict=True)))

    call.takes_all = True  # type: ignore[attr-defined]
    return call


def _python_call(
    memory: HostMemory, proxy: HostProxy, policy: Chosen, spec: hookspecs.Hook, function: Callable[..., Any]
) -> Callable[..., int]:
    """A function of five integers that calls a hook in plain Python and checks what it returns."""
    if getattr(function, "takes_all", False):
        wanted = list(range(len(spec.arguments)))
    else:
        wanted = [spec.arguments.index(n) for n in list(inspect.signature(function).parameters)[1:]]
    pair = spec.name in hookspecs.PAIR_HOOKS
    header = memory.header

    def number(value: Any) -> int:
        try:
            answer = operator.index(value)
        except TypeError:
            answer = None
        if answer is None or answer not in INT64:
            raise TypeError(f"{spec.name} of {policy.name} returned {value!r}; an int64 is needed")
        return answer

    def call(*values: int) -> int:
        answer = function(proxy, *[values[i] for i in wanted])
        if answer is None and spec.decides:
            raise TypeError(f"{spec.name} of {policy.name} ended without `return`; it must answer on every path")
        if pair:
            if not isinstance(answer, tuple) or len(answer) != 2:
                raise TypeError(f"{spec.name} of {policy.name} returned {answer!r}; a pair of integers is needed")
            header["answer_slice_ns"][0] = number(answer[1])
            return number(answer[0])
        return number(answer) if spec.decides else 0

    return call


def _guarded(memory: HostMemory, row: int, call: Callable[..., int]) -> Callable[..., int]:
    def callback(header: int, slot: int, a: int, b: int, c: int, d: int, e: int) -> int:
        try:
            return call(a, b, c, d, e)
        except BaseException as error:  # ctypes would print it, KeyboardInterrupt included, and go on
            memory.exceptions.append((row, error))
            return RAISED_ANSWER

    return callback


class Loop:
    """The event loop over one host's memory, compiled or interpreted."""

    def __init__(self, memory: HostMemory, interpreted: bool):
        self.memory = memory
        self.interpreted = interpreted
        self.host = HostProxy(memory, -1) if interpreted else None
        self.native = None if interpreted else COMPILED.run()

    def boot(self) -> None:
        """Let every policy hear of the host, before time moves."""
        if self.host is not None:
            loop.boot(self.host)
        else:
            assert self.native is not None
            self.native(self.memory.address, -1)

    def run(self, limit: int) -> int:
        """Serve up to `limit` events; see hvbench.kernel.loop.run."""
        if self.host is not None:
            return int(loop.run(self.host, limit))
        assert self.native is not None
        return int(self.native(self.memory.address, limit))


if sys.byteorder != "little":  # pragma: no cover
    raise ImportError("hvbench's memory map assumes a little-endian machine")
