"""The bundled workloads: TOML files, the traces that they replay, and the script that records them."""
