"""`moefps pairs build` and `moefps pairs align`: two conditions of one problem."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from moefps._words import counted
from moefps.cli._messages import in_words_of_the_command
from moefps.cli._options import format_option
from moefps.cli._outputs import output_option, overwrite_option
from moefps.cli._render import emit_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moefps.io.pair_tokens import PairTokens
    from moefps.pairing import Pairs

_MANY = "--trajectories"


class _ManyFiles(click.Command):
    """A command whose --trajectories takes all names that follow it, as a shell's pattern gives them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before every name after the first."""
        spread: list[str] = []
        is_open = False
        for argument in args:
            if argument.startswith("-") and argument != "-":
                is_open = argument == _MANY or argument.startswith(f"{_MANY}=")
                spread.append(argument)
                continue
            # The option itself stands before the first name already.
            if is_open and spread[-1] != _MANY:
                spread.append(_MANY)
            spread.append(argument)
        try:
            return super().parse_args(ctx, list(spread))
        except click.MissingParameter:
            # PROBLEMS may be the last of the names, where the option stands before it.
            if spread.count(_MANY) < 2:
                raise
            last = max(i for i, argument in enumerate(spread) if argument == _MANY)
            return super().parse_args(ctx, [*spread[:last], *spread[last + 1 :]])


@click.group()
def pairs() -> None:
    """Build two conditions of one problem, and align their tokens.

    Does a model route the same tokens differently after an agent's trajectory than straight after a user's prompt?
    `build` writes both as texts, `align` lays their tokens on the same coordinates, `capture --pairs` runs each.
    """


@pairs.command(cls=_ManyFiles)
@click.argument("problems", metavar="PROBLEMS")
@click.option(
    _MANY,
    multiple=True,
    metavar="FILE...",
    help="What agents did: lines of task_id and messages in OpenAI's style, SWE-agent's .traj, or tau-bench's results.",
)
@click.option("--template", is_flag=True, help="Make a trajectory for every problem: a tool returns the stub.")
@output_option("PAIRS", "The .jsonl to write.", required=True)
@overwrite_option()
@format_option
def build(
    problems: str, trajectories: tuple[str, ...], template: bool, output: str, overwrite: bool, output_format: str
) -> None:
    """Write both conditions of every problem, as segments of text.

    PROBLEMS is a .jsonl, also .gz, with task_id, prompt and canonical_solution: HumanEval's own file as it is. In the
    agentic condition the prompt (the stub) is what a tool returned, in the assisted one it is what the user wrote; both
    end with the solution. Stub and solution are what is compared later. A task without a trajectory or a solution is
    left out and named.

    \b
    Examples:
      moefps pairs build HumanEval.jsonl.gz --template -o pairs.jsonl
      moefps pairs build problems.jsonl --trajectories runs.jsonl -o pairs.jsonl
      moefps pairs build problems.jsonl --trajectories a.traj b.traj -o pairs.jsonl
    """  # noqa: D301 (click wants the character itself)
    from moefps.pairing import build_pairs

    if template == bool(trajectories):
        raise click.UsageError("give --trajectories or --template, one of them")
    with in_words_of_the_command(None, problems=problems):
        built = build_pairs(
            problems,
            trajectories=list(trajectories) or None,
            template=template,
            output=output,
            overwrite=overwrite,
        )
    _report_build(built, output, output_format)


@pairs.command()
@click.argument("pairs_file", metavar="PAIRS")
@click.option("--tokenizer", required=True, metavar="DIR|NAME", help="A folder, or a name on the hub.")
@click.option("--chat", is_flag=True, help="Put both conditions through the tokenizer's chat template.")
@click.option("--pad-token", metavar="TOKEN", help="The token that fills gaps, for a tokenizer without a pad token.")
@output_option("FILE", "The .json to write.", required=True)
@overwrite_option()
@format_option
def align(
    pairs_file: str,
    tokenizer: str,
    chat: bool,
    pad_token: str | None,
    output: str,
    overwrite: bool,
    output_format: str,
) -> None:
    """Lay the tokens of both conditions on the same coordinates.

    PAIRS is what `pairs build` wrote. What both conditions have stands at the same positions in both; what only the
    assisted one has stands right before it, in the stretch that the agentic one fills.

    \b
    Examples:
      moefps pairs align pairs.jsonl --tokenizer ./model -o pair_tokens.json
      moefps pairs align pairs.jsonl --tokenizer Qwen/Qwen3-Coder-30B-A3B-Instruct --chat -o pair_tokens.json
    """  # noqa: D301 (click wants the character itself)
    from moefps.io.atomic import check_destination
    from moefps.pairing import align_pairs, load_tokenizer

    # Only then the tokenizer: transformers takes seconds to import.
    check_destination(output, overwrite=overwrite)
    _keep_quiet()
    loaded = load_tokenizer(tokenizer)
    with in_words_of_the_command(None, tokenizer=tokenizer, chat="--chat", pairs=pairs_file):
        if pad_token is not None:
            _set_pad_token(loaded, pad_token)
        aligned = align_pairs(pairs_file, tokenizer=loaded, chat=chat, output=output, overwrite=overwrite)
    _report_align(aligned, output, output_format)


def _keep_quiet() -> None:
    """Keep transformers from talking beside us, and the hub from announcing every try to reach it."""
    import logging

    # Where it is missing, loading says so.
    with suppress(ModuleNotFoundError):
        from transformers.utils import logging as of_transformers

        of_transformers.set_verbosity_error()
    # After the import, which sets a level of its own.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _set_pad_token(tokenizer: Any, token: str) -> None:
    """Take a token that the tokenizer has; a new one would have no row in a model's embedding."""
    if token not in tokenizer.get_vocab():
        raise click.UsageError(f"--pad-token: the tokenizer has no {token!r}; accepted: one of its tokens")
    tokenizer.pad_token = token


def _report_build(built: Pairs, output: str, output_format: str) -> None:
    """Say what was built, and name what was not."""
    if output_format != "table":
        named: dict[str, Any] = {"left_out": built.left_out, "canonical_only": built.canonical_only}
        named["unused"] = built.unused
        emit_record({"output": output, "n_tasks": len(built), **_plain(named, output_format)}, output_format)
        return
    click.echo(f"{output}: {counted(len(built), 'task')} in two conditions")
    if built.canonical_only:
        names = ", ".join(built.canonical_only)
        click.echo(f"  no response shows the stub verbatim, so only the solution is compared: {names}")
    for task_id, reason in built.left_out.items():
        click.echo(f"  left out: task {task_id} {reason}")
    for source, reason in built.unused.items():
        click.echo(f"  not used: {source}: {reason}")


def _plain(named: Mapping[str, Any], output_format: str) -> dict[str, Any]:
    """Give names as lists and objects, or as text where a table has no place for them."""
    if output_format == "json":
        return {key: list(value) if isinstance(value, tuple) else value for key, value in named.items()}
    return {
        key: "; ".join(value if isinstance(value, tuple) else (f"{name}: {why}" for name, why in value.items()))
        for key, value in named.items()
    }


def _report_align(aligned: PairTokens, output: str, output_format: str) -> None:
    """Say how long the rows are, and how much of them is compared."""
    record: dict[str, Any] = {
        "output": output,
        "n_tasks": len(aligned),
        "n_positions": sum(task.n_positions for task in aligned),
        "longest": max(task.n_positions for task in aligned),
        "n_assisted": sum(int(task.assisted_aligned_attention_mask.sum()) for task in aligned),
        "n_shared": sum(int(task.is_shared.sum()) for task in aligned),
        "n_canonical": sum(len(task.canonical_positions) for task in aligned),
        "sha256": aligned.sha256,
    }
    if output_format != "table":
        emit_record(record, output_format)
        return
    click.echo(f"{output}: {counted(record['n_tasks'], 'task')}, the longest of {record['longest']:,} positions")
    click.echo(
        f"  {counted(record['n_positions'], 'token')} agentic, {record['n_assisted']:,} assisted, "
        f"{record['n_shared']:,} at the same positions in both"
    )
    click.echo(f"  {record['n_canonical']:,} of those are of solutions")
