"""What `moefps efficiency` prints and writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._render import emit_frame, emit_record, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from moefps.cli._outputs import Sink
    from moefps.metrics.cost import ModelCost
    from moefps.metrics.cost_routing import RoutingCost

__all__ = ["amount", "cost_record", "cost_rows", "report_cost"]

_SUMS = (
    "total_parameters",
    "active_parameters",
    "active_matmul_parameters",
    "expert_parameters",
    "shared_parameters",
    "router_parameters",
    "attention_parameters",
    "dense_parameters",
    "embedding_parameters",
    "head_parameters",
    "tower_parameters",
    "unused_parameters",
    "flops_per_token",
    "dense_flops_per_token",
    "expert_flop_share",
    "parameter_ratio",
    "flop_ratio",
)
_OF_DUMP = ("expert_flops", "expert_flops_per_token", "slot_share")


def report_cost(sink: Sink, cost: ModelCost, spent: RoutingCost | None) -> None:
    """Write all numbers, and print them, or a table for people.

    Parameters
    ----------
    sink : Sink
        Where to.
    cost : ModelCost
        What the model costs.
    spent : RoutingCost, optional
        What a dump of it cost.
    """
    if sink.output is not None:
        _write(sink, cost, spent)
    if sink.output_format == "table":
        _print_cost(cost)
        if spent is not None:
            _print_spent(spent)
    elif sink.output is not None:
        emit_record({"output": sink.output}, sink.output_format)
    elif sink.output_format == "json":
        emit_record(cost_record(cost, spent), "json")
    else:
        emit_frame(cost_rows(cost, spent), sink.output_format)


def cost_record(cost: ModelCost, spent: RoutingCost | None) -> dict[str, Any]:
    """Give all numbers as one record of records."""
    record: dict[str, Any] = {
        "source": cost.source,
        "model_type": cost.model_type,
        "context": cost.context,
        **{name: getattr(cost, name) for name in _SUMS},
        "flops": dict(cost.flops),
        "stacks": [
            {
                "name": stack.name,
                "path": stack.path,
                "active_parameters": stack.active_parameters,
                "flops_per_token": stack.flops_per_token,
                "flops": dict(stack.flops),
            }
            for stack in cost.stacks
        ],
        "layers": cost.layer_table().to_dicts(),
        "notes": list(cost.notes),
    }
    if spent is not None:
        record["dump"] = {
            "source": spent.source,
            "n_tokens": spent.n_tokens,
            **{name: getattr(spent, name) for name in _OF_DUMP},
            "layers": spent.layers.to_dicts(),
            "ranks": spent.parallelism.summary.to_dicts(),
            "ranks_by_layer": spent.parallelism.layers.to_dicts(),
            "loads": spent.parallelism.loads.to_dicts(),
        }
    return record


def cost_rows(cost: ModelCost, spent: RoutingCost | None) -> pl.DataFrame:
    """Give all numbers as rows: what they are of, a name and a value.

    Returns
    -------
    polars.DataFrame
        ``of`` (model, stack, layer, dump, dump layer, ranks, rank), ``path`` (of a stack or layer), ``ranks``,
        ``rank``, ``name``, ``value``.
    """
    import polars as pl

    schema = {"of": pl.String, "path": pl.String, "ranks": pl.Int64, "rank": pl.Int64}
    schema |= {"name": pl.String, "value": pl.Float64}
    rows = [
        (of, path, ranks, rank, name, None if value is None else float(value))
        for of, path, ranks, rank, values in _sections(cost, spent)
        for name, value in values.items()
        if not isinstance(value, str)
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _sections(cost: ModelCost, spent: RoutingCost | None) -> Iterator[tuple[str, str | None, Any, Any, dict[str, Any]]]:
    """Go through what there are numbers of."""
    flops = {f"flops_{name}": value for name, value in cost.flops.items()}
    yield "model", None, None, None, {"context": cost.context, **{name: getattr(cost, name) for name in _SUMS}, **flops}
    for stack in cost.stacks:
        flops = {f"flops_{name}": value for name, value in stack.flops.items()}
        yield "stack", stack.path, None, None, {"active_parameters": stack.active_parameters, **flops}
    for layer in cost.layer_table().iter_rows(named=True):
        yield "layer", layer.pop("path"), None, None, _without(layer, "index", "stack")
    if spent is None:
        return
    yield "dump", None, None, None, {"n_tokens": spent.n_tokens, **{name: getattr(spent, name) for name in _OF_DUMP}}
    paths = spent.layers["path"].to_list()
    for layer in spent.layers.iter_rows(named=True):
        yield "dump layer", layer["path"], None, None, _without(layer, "index", "path", "stack")
    for row in spent.parallelism.summary.iter_rows(named=True):
        yield "ranks", None, row["ranks"], None, _without(row, "ranks", "reason")
    for row in spent.parallelism.layers.iter_rows(named=True):
        yield "ranks", paths[row["index"]], row["ranks"], None, _without(row, "ranks", "index", "reason")
    for row in spent.parallelism.loads.iter_rows(named=True):
        yield "rank", paths[row["index"]], row["ranks"], row["rank"], _without(row, "ranks", "index", "rank")


def _without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _write(sink: Sink, cost: ModelCost, spent: RoutingCost | None) -> None:
    """Write the file, which appears when it is whole."""
    from moefps.io import atomic_file, write_table

    output = str(sink.output)
    if sink.file_format == "json":
        text = json.dumps(cost_record(cost, spent), indent=2, allow_nan=False, ensure_ascii=False)
        with atomic_file(output, overwrite=sink.overwrite) as file:
            file.write(f"{text}\n".encode())
        return
    write_table(cost_rows(cost, spent), output, file_format=sink.file_format, overwrite=sink.overwrite)


def amount(number: float) -> str:
    """Give a number in the unit that reads best: thousands, millions, billions or trillions.

    Examples
    --------
    >>> amount(46_702_792_704), amount(1_570_816), amount(532), amount(0)
    ('46.7 B', '1.57 M', '532', '0')
    """
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= 0.9995 * size:
            scaled = number / size
            return f"{scaled:,.{max(0, 3 - len(str(int(scaled))))}f} {unit}"
    return f"{number:.0f}"


def _print_cost(cost: ModelCost) -> None:
    """Print what the model costs, part by part."""
    click.echo(f"{cost.source}: {cost.model_type}, {_layers_in_words(cost)}")
    _print_parts(cost)
    click.echo(f"a token is multiplied by {amount(cost.active_matmul_parameters)} of the active parameters")
    click.echo(
        f"{cost.parameter_ratio:.1f} parameters for each that a token uses; with all experts computing, "
        f"{cost.flop_ratio:.1f} times the FLOPs"
    )
    if len(cost.stacks) > 1:
        for stack in cost.stacks:
            flops = f"{amount(stack.flops_per_token)} FLOPs a token"
            click.echo(f"  {stack.name}: {amount(stack.active_parameters)} parameters active, {flops}")
    for note in cost.notes:
        click.echo(f"  {note}")


def _layers_in_words(cost: ModelCost) -> str:
    """Say how many layers of how many experts there are."""
    experts = sorted({layer.n_experts for layer in cost.layers})
    slots = sorted({layer.top_k for layer in cost.layers})
    passive = max(layer.passive_experts for layer in cost.layers)
    wide = counted(experts[0], "expert") if len(experts) == 1 else f"{experts[0]} to {experts[-1]} experts"
    chosen = f"top-{slots[0]}" if len(slots) == 1 else f"top-{slots[0]} to top-{slots[-1]}"
    idle = f" and {passive} that do nothing" if passive else ""
    return f"{counted(len(cost.layers), 'MoE layer')} of {wide}{idle}, {chosen}"


def _print_parts(cost: ModelCost) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    for column in ("parameters", "active", "FLOPs a token", "share"):
        table.add_column(column, justify="right", no_wrap=True)
    active = sum(layer.active_parameters for layer in cost.layers if layer.is_text and layer.parameters)
    flops = cost.flops
    is_tied = not cost.head_parameters and flops["head"] > 0
    head: Any = "tied" if is_tied else cost.head_parameters
    lines: list[tuple[str, Any, Any, float | None]] = [
        ("experts", cost.expert_parameters, active, flops["experts"]),
        ("shared experts", cost.shared_parameters, cost.shared_parameters, flops["shared"]),
        ("routers", cost.router_parameters, cost.router_parameters, flops["router"]),
        ("attention", cost.attention_parameters, cost.attention_parameters, flops["attention"]),
        (f"attention over {cost.context:,} positions", None, None, flops["context"]),
        ("dense layers, norms", cost.dense_parameters, cost.dense_parameters, flops["dense"]),
        ("embeddings", cost.embedding_parameters, cost.embedding_parameters, None),
        ("head", head, head, flops["head"]),
        ("images, sound", cost.tower_parameters, 0, None),
        ("nothing reads them", cost.unused_parameters, 0, None),
    ]
    for name, parameters, used, spent in lines:
        if parameters or spent:
            share = "" if spent is None else f"{100 * spent / cost.flops_per_token:.1f} %"
            table.add_row(name, _cell(parameters), _cell(used), _cell(spent), share)
    table.add_section()
    table.add_row("all", *map(amount, (cost.total_parameters, cost.active_parameters, cost.flops_per_token)), "100.0 %")
    print_table(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else amount(value)


def _print_spent(spent: RoutingCost) -> None:
    """Print what a dump cost, and how its load falls on ranks."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    empty, passive = spent.layers["empty_slots"].sum(), spent.layers["passive_slots"].sum()
    n_layers = len(spent.model.layers) if spent.model is not None else spent.layers.height
    layers_in_words = f"{spent.layers.height} of {counted(n_layers, 'MoE layer')}"
    click.echo(f"{spent.source}: {counted(spent.n_tokens, 'token')}, {layers_in_words}")
    if spent.expert_flops is not None and spent.expert_flops_per_token is not None:
        click.echo(
            f"  experts spent {amount(spent.expert_flops_per_token)} FLOPs a token, {amount(spent.expert_flops)} in all"
        )
    share = "no slot" if spent.slot_share is None else f"{100 * spent.slot_share:.1f} % of the slots"
    click.echo(f"  {share} on an expert that computes; {empty:,} empty, {passive:,} on experts that do nothing")
    click.echo("  spread over ranks, by the load of the whole dump: a lower limit, batch by batch it is no more even")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in ("ranks", "experts a rank", "largest / mean load", "time waiting", "most uneven layer"):
        table.add_column(column, justify="right", no_wrap=True)
    layers = spent.layers["path"].to_list()
    widths = spent.parallelism.layers.group_by("ranks").agg(most=_max("most_experts"))
    most = dict(widths.rows())
    for row in spent.parallelism.summary.iter_rows(named=True):
        if row["imbalance"] is None:
            table.add_row(str(row["ranks"]), str(most[row["ranks"]]), row["reason"], "", "")
            continue
        worst = f"{layers[row['worst_index']]}, {row['worst_imbalance']:.2f}"
        table.add_row(
            str(row["ranks"]),
            str(most[row["ranks"]]),
            f"{row['imbalance']:.3f}",
            f"{100 * row['waiting']:.1f} %",
            worst,
        )
    print_table(table)


def _max(name: str) -> pl.Expr:
    import polars as pl

    return pl.col(name).max()
