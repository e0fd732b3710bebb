"""The picture of the lineage, from dbt's manifest: every table, from left to right by layer."""

from collections.abc import Mapping
from functools import cache
from typing import Any

LAYERS = {
    "raw": "#f1f3f5",
    "staging": "#e7f0fb",
    "intermediate": "#e3f4ee",
    "features": "#fdf3d8",
    "labels": "#fbe6e0",
    "datasets": "#efe8fb",
    "models": "#fde8f1",
    "predictions": "#e8eefc",
    "signals": "#e6f6e2",
    "trading": "#fbeedd",
    "quality": "#f4f4e4",
}
#: Layers that stand below another one.
BELOW = {"labels": "features", "quality": "models"}
#: Layers with a column for each step within them; the tables of the others stand in one column.
STEPPED = {"intermediate"}
ROW, BOX, GAP, TOP, LETTER = 24, 17, 40, 34, 6.05


def picture(manifest: Mapping[str, Any]) -> str:
    """Return an SVG with a box for each table and a line from each to those that read it.

    Labels lie below features, quality below models. In a column tables are sorted by the mean
    height of those that they read.

    Parameters
    ----------
    manifest : mapping
        What ``dbt parse`` writes as ``manifest.json``.
    """
    layers, parents = _tables(manifest)

    @cache
    def depth(name: str) -> int:
        return max((1 + depth(p) for p in parents[name] if layers[p] == layers[name]), default=0)

    order = list(LAYERS)
    columns: dict[tuple[int, int], list[str]] = {}
    for name in sorted(layers):
        place = order.index(BELOW.get(layers[name], layers[name]))
        step = depth(name) if layers[name] in STEPPED else 0
        columns.setdefault((place, step), []).append(name)
    height = TOP + ROW * max(len(names) for names in columns.values())
    left: dict[str, float] = {}
    right: dict[str, float] = {}
    middle: dict[str, float] = {}
    boxes, titles, x = [], [], 12.0
    for (place, step), names in sorted(columns.items()):
        width = LETTER * max(map(len, names)) + 10
        if step == 0:
            below = [layer for layer, upper in BELOW.items() if upper == order[place]]
            title = ", ".join([order[place], *below])
            titles.append(f'<text x="{x:.0f}" y="18" class="layer">{title}</text>')
        names.sort(
            key=lambda name: (
                *(layers[name] in BELOW, 0 if layers[name] in STEPPED else depth(name)),
                *(_mean(name, parents, middle), name),
            )
        )
        y = TOP + (height - TOP - ROW * len(names)) / 2
        for name in names:
            left[name], right[name], middle[name] = x, x + width, y + BOX / 2
            boxes.append(
                f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{BOX}" rx="3" '
                f'fill="{LAYERS[layers[name]]}"/>'
                f'<text x="{x + 5:.0f}" y="{y + 12:.0f}">{name}</text>'
            )
            y += ROW
        x += width + GAP
    lines = [
        _line(right[parent], middle[parent], left[name], middle[name], right[name])
        for name in sorted(parents)
        for parent in sorted(parents[name])
    ]
    width = x
    style = (
        "text{font:10px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#24292f}"
        ".layer{font-size:13px;font-weight:bold}rect{stroke:#8c959f;stroke-width:.6}"
        "path{fill:none;stroke:#8c959f;stroke-width:.6;opacity:.7}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height + 8:.0f}">'
        f"<style>{style}</style>"
        f'<rect width="100%" height="100%" fill="#fff" style="stroke:none"/>\n'
        + "\n".join([*lines, *boxes, *titles])
        + "\n</svg>\n"
    )


def _tables(manifest: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """The layer of each table and the tables that it reads."""
    names = {key: f"raw.{node['name']}" for key, node in manifest["sources"].items()}
    layers = dict.fromkeys(names.values(), "raw")
    parents: dict[str, set[str]] = {name: set() for name in layers}
    models = {
        key: node for key, node in manifest["nodes"].items() if node["resource_type"] == "model"
    }
    names |= {key: node["name"] for key, node in models.items()}
    for node in models.values():
        layers[node["name"]] = node["fqn"][1]
        reads = node["depends_on"]["nodes"]
        parents[node["name"]] = {names[key] for key in reads if key in names}
    return layers, parents


def _mean(name: str, parents: Mapping[str, set[str]], middle: Mapping[str, float]) -> float:
    known = [middle[parent] for parent in parents[name] if parent in middle]
    return sum(known) / len(known) if known else 0


def _line(start: float, start_y: float, end: float, end_y: float, end_right: float) -> str:
    """A curve to the left side of a box, or to the right side of one in the same column."""
    bend: float = GAP
    if end < start:
        end, bend = end_right, -GAP / 2
    return (
        f'<path d="M{start:.0f} {start_y:.0f}C{start + GAP / 2:.0f} {start_y:.0f} '
        f'{end - bend:.0f} {end_y:.0f} {end:.0f} {end_y:.0f}"/>'
    )
