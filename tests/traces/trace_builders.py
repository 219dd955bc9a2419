"""Small traces that tests bend."""

from __future__ import annotations

from typing import Any

from hvbench.traces.format import OPS, Trace, empty_columns, make_trace


def small_meta() -> dict[str, Any]:
    """Two guest threads of one tier and a client outside, a heap, a file and a flow."""
    return {
        "format": 1,
        "name": "small",
        "command": "true",
        "span_ns": 10_000,
        "page_size": 4096,
        "threads": [
            {"id": 0, "process": 0, "tier": "server", "name": "main", "role": "guest"},
            {"id": 1, "process": 0, "tier": "server", "name": "worker", "role": "guest"},
            {"id": 2, "process": 1, "tier": "outside", "name": "client", "role": "outside"},
        ],
        "tiers": ["server"],
        "objects": [
            {"kind": "anon", "pages": 16, "process": 0, "name": "heap"},
            {"kind": "own", "pages": 8, "process": -1, "name": "file"},
        ],
        "flows": [{"proto": "tcp", "ends": ["outside", "server"]}],
        "wait_shares": {"thread_edge": 1.0},
    }


#: (thread, operation, time, other columns), in file order
SMALL_ROWS: list[tuple[int, str, int, dict[str, int]]] = [
    (0, "alloc", 0, {"object": 0, "pages": 16}),
    (0, "recv", 10, {"flow": 0, "bytes": 100}),
    (0, "compute", 20, {"user_ns": 700, "kernel_ns": 300, "syscalls": 2}),
    (0, "touch", 1020, {"object": 0, "page": 2, "pages": 4, "flags": 1}),
    (0, "wake", 1030, {"peer": 1}),
    (0, "wait", 1040, {}),
    (0, "send", 2000, {"flow": 0, "bytes": 500}),
    (1, "wait", 0, {}),
    (1, "fread", 1050, {"object": 1, "page": 0, "pages": 8}),
    (1, "content", 1060, {"object": 0, "page": 2, "pages": 1, "content": 7, "flags": 4}),
    (1, "sleep", 1070, {"duration_ns": 500}),
    (1, "wake", 1600, {"peer": 0}),
    (1, "exit", 1700, {}),
    (2, "mark_begin", 0, {}),
    (2, "send", 0, {"flow": 0, "bytes": 100}),
    (2, "recv", 100, {"flow": 0, "bytes": 500}),
    (2, "mark_end", 2500, {}),
]


def columns_of(rows: list[tuple[int, str, int, dict[str, int]]]) -> dict[str, Any]:
    columns = empty_columns(len(rows))
    for i, (thread, op, time_ns, rest) in enumerate(rows):
        columns["thread"][i], columns["op"][i], columns["time_ns"][i] = thread, OPS[op], time_ns
        for name, value in rest.items():
            columns[name][i] = value
    return columns


def build(rows: list[tuple[int, str, int, dict[str, int]]], meta: dict[str, Any] | None = None) -> Trace:
    return make_trace(meta or small_meta(), columns_of(rows))
