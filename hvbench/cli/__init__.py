"""The command line: a command a file, imported when it is asked for.

`hvbench --help` imports no command, and nothing imports Numba before a cell is computed. Errors that a user
can put right are one line on standard error and exit code 2.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import keyword
import os
import sys

import click

import hvbench
from hvbench.errors import UserError
from hvbench.nearest import did_you_mean

COMMANDS: dict[str, str] = {
    "matrix": "Run workloads against every combination of policies, in one table.",
    "run": "Run one combination of policies and show every metric, per VM.",
    "study": "Answer a question by a matrix at every pressure.",
    "density": "Find how many tenants a host carries.",
    "evaluate": "Score a policy for a program that searches: errors as data.",
    "results": "Show stored results again: sorted, filtered, compared.",
    "check": "Check that a policy does what every policy must, and what it claims.",
    "fidelity": "Judge the model by published measurements.",
    "new": "Make a package for a new policy: code, tests, benchmarks, workflow.",
    "compare": "Say what changed between two sets of results; fail where a rule is broken.",
    "plugins": "List the policies, or describe one with its parameters.",
    "hooks": "List the hooks that a policy can implement, or show one's contract.",
    "workloads": "List the workloads, or describe one with its settings.",
    "workload": "Write a workload from a few words.",
    "record": "Record a real program as a trace.",
    "import": "Make a trace of what people already have.",
    "trace": "Check, describe, cut, scale, merge and export traces.",
    "cache": "Manage compiled code.",
    "version": "Show the version.",
}
"""Commands in the order of use, each in the module of its name, with what it is for."""

INTERRUPTED = 130


def _module(command: str) -> str:
    """Name of a command's module, and of the command in it: `import` is no name in Python, `import_` is."""
    return f"{command}_" if keyword.iskeyword(command) else command


class _LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if importlib.util.find_spec(f"hvbench.cli.{_module(name)}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        name = _module(cmd_name)
        command = getattr(importlib.import_module(f"hvbench.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.list_commands(ctx)) if not args[0].startswith("-") else ""
            if not hint:
                raise
            raise click.UsageError(f"no command {args[0]!r}{hint}", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hvbench.__version__, "-V", "--version", prog_name="hvbench")
def cli() -> None:
    """A benchmark of hypervisor policies: recorded workloads through every combination of plugins."""


def main(args: list[str] | None = None) -> None:
    """The `hvbench` program."""
    sys.exit(execute(args))


def execute(args: list[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    try:
        if sys.stdout is None:  # closed by the caller (>&-)
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for as long as the process lives)
        # Not cli.main: it would end a broken pipe with the exit code of a policy at fault.
        with cli.make_context("hvbench", sys.argv[1:] if args is None else list(args)) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except UserError as error:
        return fail(str(error))
    except click.ClickException as error:
        where = getattr(error, "ctx", None)
        hint = f" (see {where.command_path} --help)" if where is not None else ""
        return fail(" ".join(error.format_message().split()) + hint)
    except (click.Abort, KeyboardInterrupt):
        click.echo("hvbench: interrupted", err=True)
        return INTERRUPTED
    except OSError as error:
        # Say nothing more when the interpreter flushes at exit.
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            return 0  # the reader (head, less) has seen enough
        return fail(f"cannot write: {error.strerror}")


def fail(message: str) -> int:
    """One line on standard error; exit code 2."""
    click.echo(f"hvbench: {message}", err=True)
    return 2
