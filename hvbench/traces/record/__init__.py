"""Recording a program as a trace, on Linux.

`tracefs` collects what the kernel says about a process tree, `ftrace` reads that text, `procfs` takes the
snapshots that events cannot give (memory, contents, who was there at the start), `builder` turns all of it
into operations, and `session` puts the parts together. `unprivileged` does what can be done without root.

What a thread did becomes operations as the model replays them: on a CPU is compute, runnable is dropped,
blocked is whatever ended it.
"""
