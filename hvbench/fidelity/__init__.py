"""Published measurements, and what the model says to them: `hvbench fidelity`.

Every number that is used stands in `numbers.toml` and has one role. An *input* describes a scenario or a cost, a
*calibration* fixed one free parameter of the model, a *target* is what a scenario is judged by. The kernel, the
policies and the workloads neither import this package nor open that file (tests/fidelity/test_contract.py), and a
scenario is built without seeing targets.

- `numbers`: reads the file.
- `bars`: what a bar is; `registry`: all of them; one module for each.
- `stage`: where scenarios write their traces and workloads and make cells.
- `run`: cells through the executor, values to the judge; `report`: what people read.
"""
