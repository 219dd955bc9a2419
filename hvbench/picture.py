"""Pictures of studies, drawn with Matplotlib: the extra `hvbench[picture]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvbench.axes import POLICY_AXES
from hvbench.errors import UserError
from hvbench.study import Finding, together
from hvbench.whole import written_whole

SUFFIXES = (".png", ".svg", ".pdf")
NAMES = {"slowdown_geomean": "slowdown", "request_latency_p99_ns": "p99 response"}


def check_picture(path: Path) -> None:
    """Refuse, before anything is computed, what cannot be drawn."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: a picture ends in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("pictures need Matplotlib: pip install 'hvbench[picture]'") from error


def draw_study(findings: Sequence[Finding], path: Path) -> None:
    """A row a workload; a field a response and policy axis; a square a point: the axis's worst choice over its best."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    cpus = sorted({finding.point.cpu for finding in findings})
    memories = sorted({finding.point.memory for finding in findings})
    bases = list(dict.fromkeys(finding.point.base for finding in findings))
    responses = list(dict.fromkeys(finding.response for finding in findings))
    columns = [(response, axis) for response in responses for axis in POLICY_AXES]
    ratios = [e.ratio for f in findings for axis, e in f.effects.items() if axis in POLICY_AXES]
    scale = LogNorm(vmin=1.0, vmax=max(1.1, *ratios) if ratios else 1.1)
    figure, fields = pyplot.subplots(
        len(bases),
        len(columns),
        figsize=(1.4 + 0.65 * len(cpus) * len(columns), 0.7 + 0.42 * max(3, len(memories)) * len(bases)),
        squeeze=False,
        layout="constrained",
    )
    image = None
    for same in together(findings):
        for axis in POLICY_AXES:
            row = bases.index(same[0].point.base)
            column = columns.index((same[0].response, axis))
            image = _draw_field(fields[row][column], same, axis, scale, cpus, memories)
    for row, base in enumerate(bases):
        need = "touched" if any(f.point.touched for f in findings if f.point.base == base) else "configured"
        fields[row][0].set_ylabel(f"{base}\nmemory {need} / there", fontsize=8)
    for column, (response, axis) in enumerate(columns):
        fields[0][column].set_title(f"{axis}: {NAMES[response]}", fontsize=9)
        fields[-1][column].set_xlabel("vCPUs a pCPU", fontsize=8)
    for field in fields.flat:
        field.label_outer()
    if image is not None:
        bar = figure.colorbar(image, ax=fields, fraction=0.03, label="worst choice over best (* the larger of the two)")
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"×{value:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
        bar.ax.tick_params(labelsize=8)
    try:
        with written_whole(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:])
    finally:
        pyplot.close(figure)


def _draw_field(
    field: Any, same: Sequence[Finding], axis: str, scale: Any, cpus: Sequence[float], memories: Sequence[float]
) -> Any:
    """One axis of one workload and response; points that were not measured stay white."""
    values = [[float("nan")] * len(cpus) for _ in memories]
    for finding in same:
        if axis not in finding.effects:
            continue
        row, column = memories.index(finding.point.memory), cpus.index(finding.point.cpu)
        ratio = finding.effects[axis].ratio
        values[row][column] = ratio
        text = f"×{ratio:.2f}{'*' if finding.strongest == axis else ''}"
        color = "black" if scale(ratio) < 0.6 else "white"
        field.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    field.set_xticks(range(len(cpus)), [f"{cpu:g}" for cpu in cpus])
    field.set_yticks(range(len(memories)), [f"{memory:g}" for memory in memories])
    field.tick_params(labelsize=8)
    return field.imshow(values, norm=scale, cmap="YlOrBr", origin="lower", aspect="auto")
