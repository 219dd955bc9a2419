"""The simplest replay there is: no time, no CPUs, threads in turn until nobody can go on.

It knows only what can block for ever: waits, receives, locks and barriers. Everything else just happens.
"""

from __future__ import annotations

import random

from attrs import Factory, define

from hvbench.traces.format import OP_NAMES, OPS, Trace


@define
class Outcome:
    """`stuck` has a line for each thread that did not come to its end; `order` are the rows as they were replayed."""

    done: int
    stuck: list[str]
    order: list[int] = Factory(list)


def replay(trace: Trace, loops: int = 1, seed: int | None = None) -> Outcome:
    """Run a trace to its end, `loops` times; between loops wakes, bytes and locks are forgotten.

    Without a seed threads take turns in order, each as far as it gets; with one, in random order and for a
    random number of operations.
    """
    c = trace.columns
    op, peer, flow, amount = (c[name].tolist() for name in ("op", "peer", "flow", "bytes"))
    meet = c["pages"].tolist()
    threads = trace.meta["threads"]
    ends = [item["ends"] for item in trace.meta["flows"]]
    rows: list[list[int]] = [[] for _ in threads]
    for row, thread in enumerate(c["thread"].tolist()):
        rows[thread].append(row)
    random_order = random.Random(seed) if seed is not None else None
    done = 0
    replayed: list[int] = []
    for _ in range(loops):
        at = [0] * len(threads)
        wakes = [0] * len(threads)
        there: dict[tuple[int, int], int] = {}
        holder: dict[int, int] = {}
        arrived: dict[int, set[int]] = {}
        passes: set[int] = set()
        moved = True
        while moved:
            moved = False
            order = list(range(len(threads)))
            if random_order:
                random_order.shuffle(order)
            for thread in order:
                budget = random_order.randint(1, 50) if random_order else len(op)
                mine = rows[thread]
                while at[thread] < len(mine) and budget:
                    row = mine[at[thread]]
                    code = op[row]
                    if code == OPS["wait"]:
                        if not wakes[thread]:
                            break
                        wakes[thread] -= 1
                    elif code == OPS["wake"]:
                        wakes[peer[row]] += 1
                    elif code in (OPS["send"], OPS["recv"]):
                        end = ends[flow[row]].index(threads[thread]["tier"])
                        if code == OPS["send"]:
                            key = (flow[row], 1 - end)
                            there[key] = there.get(key, 0) + amount[row]
                        else:
                            key = (flow[row], end)
                            if there.get(key, 0) < amount[row]:
                                break
                            there[key] -= amount[row]
                    elif code == OPS["lock"]:
                        if holder.get(peer[row], thread) != thread:
                            break
                        holder[peer[row]] = thread
                    elif code == OPS["unlock"]:
                        if holder.get(peer[row]) == thread:
                            del holder[peer[row]]
                    elif code == OPS["barrier"]:
                        here = arrived.setdefault(peer[row], set())
                        if thread not in passes:
                            here.add(thread)
                        if len(here) == meet[row]:
                            passes |= here
                            here.clear()
                        if thread not in passes:
                            break
                        passes.discard(thread)
                    at[thread] += 1
                    budget -= 1
                    done += 1
                    replayed.append(row)
                    moved = True
        stuck = [
            f"thread {thread} ({threads[thread].get('name', '?')}) at row {rows[thread][at[thread]]}: "
            f"{OP_NAMES[op[rows[thread][at[thread]]]]}"
            for thread in range(len(threads))
            if at[thread] < len(rows[thread])
        ]
        if stuck:
            return Outcome(done, stuck, replayed)
    return Outcome(done, [], replayed)
