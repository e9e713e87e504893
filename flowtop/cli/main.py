"""The `flowtop` command: options, settings, messages, exit statuses. The only place that writes to standard error or
ends the process.

Everything heavy is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flowtop import __version__
from flowtop.cli.options import CONTEXT_SETTINGS, PARAMETERS, Command
from flowtop.cli.streams import complain, in_words, prepare, say, without_controls
from flowtop.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, FlowtopError
from flowtop.process import SIGNALS

if TYPE_CHECKING:
    from flowtop.capture.ebpf.check import Finding
    from flowtop.cli.run_options import RunOptions


@click.command(cls=Command, params=list(PARAMETERS), context_settings=CONTEXT_SETTINGS)
@click.version_option(__version__, "--version", prog_name="flowtop", message="%(prog)s %(version)s",
                      allow_from_autoenv=False)
@click.pass_context
def command(context: click.Context, /, **_: Any) -> int:
    """Show this host's network flows, exactly, as they happen.

    Every packet is in a flow or in a visible counter. Needs root, as tcpdump does. Press ? on the screen for its keys.

    FILTER selects the flows to list, in the words of tcpdump and more: flowtop tcp and not private, flowtop
    'rate > 1M'. The part of it that asks about packets runs in the kernel; packets that do not match are counted as
    filtered.

    The manual: flowtop help.
    """
    from flowtop.cli.run_options import run_options

    options = run_options(context)
    if options.check:
        return _check(options)
    if os.geteuid() == 0:
        from flowtop.cli.own_code import writable_code

        path = writable_code()
        if path is not None:
            _narrate(f"root runs code that others may change: {path} (flowtop --check)")
    from flowtop.cli import run

    return (run.batch if options.batch else run.screen)(options, _narrate)


def main() -> None:
    """Entry point: run the command, print an error in two lines, exit with the documented status."""
    prepare()
    try:
        if sys.argv[1:2] == ["help"]:  # no filter begins with this word; after -- it would be one
            from flowtop.cli.help import help_command

            status = help_command.main(sys.argv[2:], "flowtop help", standalone_mode=False) or EXIT_OK
        else:
            status = command.main(standalone_mode=False) or EXIT_OK
    except FlowtopError as error:
        complain("flowtop", error.message, error.hint)
        status = error.exit_code
    except click.UsageError as error:
        complain("flowtop", _one_line(error.format_message()), _origin(error) or "see flowtop --help")
        status = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        status = EXIT_OK
    except (OSError, MemoryError, ImportError, RuntimeError, SystemError) as error:
        fault = in_words(error)
        complain("flowtop", fault.message, fault.hint)
        status = fault.exit_code
    for number in SIGNALS:  # a signal while the interpreter exits must not change the status
        signal.signal(number, signal.SIG_IGN)
    sys.exit(_flush(status))


def _narrate(line: str) -> None:
    say(f"flowtop: {line}")


def _origin(error: click.UsageError) -> str:
    """Where a bad value is set; "" when it is on the command line."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None or not error.param.name:
        return ""
    source = error.ctx.get_parameter_source(error.param.name)
    if source is ParameterSource.ENVIRONMENT:
        return f"set in the environment, as FLOWTOP_{error.param.name.upper()}"
    if source is not ParameterSource.DEFAULT_MAP:
        return ""
    from flowtop.cli.settings import settings_path

    return f"set in {error.ctx.params.get('config') or settings_path(os.environ, os.geteuid())}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _flush(status: int) -> int:
    """Flush standard output here, where a closed pipe can be ignored."""
    if sys.stdout is None:  # closed by the parent process
        return status
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit: give it an open descriptor.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        complain("flowtop", f"cannot write to standard output: {error.strerror}", "")
        return status or EXIT_FAILURE
    return status


def _check(options: RunOptions) -> int:
    from flowtop.capture.ebpf.check import Finding, check_host, report
    from flowtop.cli.networks import open_databases
    from flowtop.cli.run import first_query
    from flowtop.cli.sources import LiveSource

    split = LiveSource(options).kernel_filter(first_query(options))
    networks = open_databases(options)
    lines = ("none, which is fine: see flowtop help networks",) if networks is None else networks.files
    faults = () if networks is None else networks.faults
    findings = (
        *check_host(), _own_code(), _compiled(), _confinement(options),
        *(Finding("AS and country", True, line) for line in lines),
        *(Finding("AS and country", False, line, "replace the file, or leave it out: --mmdb FILE, --mmdb off")
          for line in faults))
    for line in report(findings):
        click.echo(without_controls(line))
    if options.filter:
        click.echo(f"      filter in the kernel: {split.kernel or 'nothing'}")
        click.echo(f"      filter in the flow table: {split.rest or 'nothing'}")
    return EXIT_OK if all(finding.ok for finding in findings) else EXIT_FAILURE


def _own_code() -> Finding:
    """Whether root runs what only root may change."""
    from flowtop.capture.ebpf.check import Finding
    from flowtop.cli.own_code import REMEDY, writable_code

    path = writable_code()
    if path is None:
        return Finding("own code", True, "only root may change it")
    return Finding("own code", False, f"others than root may change {path}", REMEDY)


def _compiled() -> Finding:
    """Whether flowtop's own library is used. Without it everything is the same, but slower."""
    from flowtop.capture.ebpf.check import Finding
    from flowtop.native.library import choice

    used = choice()
    return Finding("flow table", True, f"in C ({used.reason})" if used.library else f"in numpy ({used.reason})")


def _confinement(options: RunOptions) -> Finding:
    """What of its rights a run would give up here."""
    from flowtop.capture.ebpf.check import Finding
    from flowtop.confine.account import choose_account
    from flowtop.confine.confinement import INSTALL_HINT, possible

    if options.confine == "off":
        return Finding("confinement", True, "turned off (--no-confine)")
    user = os.geteuid()
    holds, missing = possible(choose_account(options.user, os.environ, user), user)
    lacks = f"; MISSING: {'; '.join(missing)}" if missing else ""
    return Finding("confinement", options.confine != "strict" or not missing, f"{', '.join(holds)}{lacks}",
                   INSTALL_HINT if missing else "")
