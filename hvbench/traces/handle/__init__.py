"""What is done with traces that are there: cut, scale, merge, export.

Each makes a new trace that passes `hvbench.traces.check` and replays. Its metadata's `derived` lists, oldest first,
every step that led to it: the command, what it was made from (names and digests) and the rule's parameters.
"""
