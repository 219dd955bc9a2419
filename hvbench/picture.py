"""Pictures of studies, drawn with Matplotlib: the extra `hvbench[picture]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hvbench.axes import POLICY_AXES
from hvbench.errors import UserError
from hvbench.study import Finding, subject, together

SUFFIXES = (".png", ".svg", ".pdf")


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
    """A field a workload and policy axis, a square a point: the axis's worst choice over its best."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.colors import LogNorm

    groups = together(findings)
    cpus = sorted({finding.point.cpu for finding in findings})
    memories = sorted({finding.point.memory for finding in findings})
    ratios = [e.ratio for f in findings for axis, e in f.effects.items() if axis in POLICY_AXES]
    scale = LogNorm(vmin=1.0, vmax=max(1.1, *ratios) if ratios else 1.1)
    figure, fields = pyplot.subplots(
        len(groups),
        len(POLICY_AXES),
        figsize=(1.6 + 1.0 * len(cpus) * len(POLICY_AXES), 0.9 + 0.95 * len(memories) * len(groups)),
        squeeze=False,
        layout="constrained",
    )
    image = None
    for i, same in enumerate(groups):
        for j, axis in enumerate(POLICY_AXES):
            field = fields[i][j]
            values = [[float("nan")] * len(cpus) for _ in memories]
            for finding in same:
                if axis in finding.effects:
                    row, column = memories.index(finding.point.memory), cpus.index(finding.point.cpu)
                    ratio = finding.effects[axis].ratio
                    values[row][column] = ratio
                    light = scale(ratio) < 0.6
                    mark = " *" if finding.strongest == axis else ""
                    field.text(
                        column,
                        row,
                        f"×{ratio:.2f}{mark}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="black" if light else "white",
                    )
            image = field.imshow(values, norm=scale, cmap="YlOrBr", origin="lower", aspect="auto")
            field.set_title(f"{subject(same)}: {axis}", fontsize=9)
            field.set_xticks(range(len(cpus)), [f"{cpu:g}" for cpu in cpus])
            field.set_yticks(range(len(memories)), [f"{memory:g}" for memory in memories])
            field.tick_params(labelsize=8)
            if i == len(groups) - 1:
                field.set_xlabel("vCPUs a pCPU", fontsize=8)
            if j == 0:
                need = "touched" if same[0].point.touched else "configured"
                field.set_ylabel(f"memory {need} / there", fontsize=8)
    if image is not None:
        bar = figure.colorbar(image, ax=fields, label="worst choice over best (* the larger of the two)")
        bar.ax.tick_params(labelsize=8)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure.savefig(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
        pyplot.close(figure)
