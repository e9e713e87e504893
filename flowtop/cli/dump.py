"""flowtop-dump: shows the contents of a flow export."""

from __future__ import annotations

import os
import sys

import click

from flowtop import __version__
from flowtop.cli.streams import complain, in_words, prepare
from flowtop.errors import EXIT_DAMAGED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, FlowtopError

_OWN_PROCESS = object()
"""This process is the command's alone."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="json: one object per message (JSON Lines).")
@click.version_option(__version__, "--version", prog_name="flowtop-dump", message="%(prog)s %(version)s")
def command(file: str, output: str) -> int:
    """Show the structure of a flow export: headers, templates, options, every record, with names.

    FILE is a capture (pcap, pcapng) of NetFlow, IPFIX or sFlow 5 datagrams or of IPFIX over TCP; an IPFIX
    file (RFC 5655); or raw datagrams; plain or gzipped; - is standard input. The exit status is 65 when part of it
    could not be read.
    """
    if sys.stdout is None:
        raise FlowtopError("standard output is closed", hint="flowtop-dump writes there", exit_code=EXIT_USAGE)
    from flowtop.capture.files.messages import read_payloads
    from flowtop.capture.files.octets import OctetStream
    from flowtop.output.dump import entries, entry_text

    if sys.stdout is None:
        raise FlowtopError("standard output is closed", hint="the contents are written there", exit_code=EXIT_USAGE)
    damaged = shown = 0
    stream = OctetStream(file)
    if click.get_current_context().obj is _OWN_PROCESS:
        _confine()
    try:
        for entry in entries(read_payloads(stream)):
            sys.stdout.write(entry_text(entry, "json" if output == "json" else "text"))
            damaged += entry.damaged
            shown += 1
        sys.stdout.flush()
    except BrokenPipeError:  # the reader needs no more; the interpreter flushes once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    finally:
        stream.close()
    if not shown:
        raise FlowtopError(f"{stream.name} contains no flow export", exit_code=EXIT_DAMAGED,
                           hint="expected NetFlow, IPFIX or sFlow 5 datagrams, or IPFIX over TCP")
    return EXIT_DAMAGED if damaged else EXIT_OK


def _confine() -> None:
    """Give up the rights of this process: the file is open, and what is in it is a stranger's."""
    from flowtop.confine.account import choose_account
    from flowtop.confine.confinement import Plan, confine, usable
    from flowtop.confine.seccomp import Calls

    account, _ = usable(choose_account(None, os.environ, os.geteuid()))
    confine(Plan(account=account, calls=Calls(sockets=False)))


def main() -> None:
    """Entry point: run the command; print an error in two lines."""
    prepare()
    try:
        status = command.main(standalone_mode=False, obj=_OWN_PROCESS) or EXIT_OK
    except FlowtopError as error:
        complain("flowtop-dump", error.message, error.hint)
        status = error.exit_code
    except click.UsageError as error:
        complain("flowtop-dump", " ".join(error.format_message().split()).rstrip("."), "see flowtop-dump --help")
        status = EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        status = EXIT_INTERRUPTED
    except (OSError, MemoryError, ImportError, RuntimeError, SystemError) as error:
        fault = in_words(error)
        complain("flowtop-dump", fault.message, fault.hint)
        status = fault.exit_code
    sys.exit(status)


if __name__ == "__main__":
    main()
