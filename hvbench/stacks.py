"""Named stacks: a memory policy that is an order of other policies, with parameters of its own for all of them.

    @attrs.frozen
    class Params:
        tax_percent: int = param(75, unit="percent", help="tax rate on idle memory", source="ESX")

    @hookimpl
    def hvbench_memory_stack(params):
        return (Layer("ksm"), Layer("idle-tax", {"tax_percent": params.tax_percent}), Layer("overcommit"))

Where such a policy is chosen, its layers take its place, the first on top; it stacks with others like any policy, and
results depend on the layers and their parameters alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from hvbench.errors import UserError
from hvbench.nearest import did_you_mean

if TYPE_CHECKING:
    from hvbench.plugins import Policy, Registry

STACK_HOOK = "hvbench_memory_stack"



@attrs.frozen
class Layer:
    """A layer of a named stack: a memory policy by name, and those of its parameters that are not as by default.

    `params` has parameters by their full names (`period_ns`) with values in those units.
    """

    policy: str
    params: Mapping[str, int | float | bool] = attrs.field(factory=dict)


def is_stack(policy: Policy) -> bool:
    """Whether a policy only names others."""
    return STACK_HOOK in policy.hooks


def layers_of(policy: Policy, params: Any, registry: Registry) -> list[tuple[Policy, Any]]:
    """The policies of a named stack with their parameters, top first; UserError where it names none, or wrong ones."""
    stated = getattr(policy.module, STACK_HOOK)(params)
    where = f"{policy.axis} {policy.name}"
    if not isinstance(stated, (tuple, list)) or not stated or not all(isinstance(layer, Layer) for layer in stated):
        raise UserError(f"{where}: {STACK_HOOK} returned {stated!r}; a tuple of hvbench.policy.Layer is needed")
    found = []
    for layer in stated:
        try:
            inner = registry.get(policy.axis, layer.policy)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if is_stack(inner):
            raise UserError(f"{where}: its layer {inner.name} is a named stack itself; name the policies")
        found.append((inner, _params(inner, layer, where)))
    return found


def _params(policy: Policy, layer: Layer, where: str) -> Any:
    """A layer's parameters, checked like those that a user writes."""
    legal = {info.name: info for info in policy.params}
    values = {}
    for name, value in layer.params.items():
        if name not in legal:
            hint = did_you_mean(name, list(legal), always=True)
            raise UserError(f"{where}: its layer {policy.name} has no parameter {name!r}{hint}")
        try:
            values[name] = legal[name].parse(legal[name].format(value))
        except UserError as error:
            raise UserError(f"{where}: its layer {policy.name}: {name}: {error}") from error
    return None if policy.params_class is None else policy.params_class(**values)
