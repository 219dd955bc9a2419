"""The fixed model of a host. Mechanism lives here, policy in plugins."""
