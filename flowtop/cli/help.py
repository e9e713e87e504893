"""`flowtop help`: the manual in the terminal."""

from __future__ import annotations

import shutil
import sys

import click

from flowtop.errors import EXIT_OK
from flowtop.text import manual


@click.command("help", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("topic", required=False)
def help_command(topic: str | None) -> int:
    """Show a page of the manual; without TOPIC, the list of pages.

    On a terminal the page is laid out and, when it is longer than the screen, shown with $PAGER; otherwise it is
    written as Markdown.
    """
    text = topic_list() if topic is None else manual.page(topic)
    if topic is None or sys.stdout is None or not sys.stdout.isatty():
        click.echo(text, nl=not text.endswith("\n"))
        return EXIT_OK
    from flowtop.text.markdown import rendered

    columns, lines = shutil.get_terminal_size()
    laid_out = rendered(text, columns)
    if laid_out.count("\n") < lines:
        click.echo(laid_out, nl=False)
    else:
        click.echo_via_pager(laid_out)  # with -R for less; other pagers get no colours
    return EXIT_OK


def topic_list() -> str:
    """Every topic with its page's title."""
    topics = manual.topics()
    width = max(map(len, topics))
    return "\n".join(["usage: flowtop help TOPIC", "",
                      *(f"  {topic.ljust(width)}  {manual.title(topic)}" for topic in topics)])


def option_rows(command: click.Command) -> list[tuple[str, str]]:
    """Options of a command, as `--help` writes them: names with their value, and what the option does."""
    context = click.Context(command, info_name=command.name, **command.context_settings)
    records = (parameter.get_help_record(context) for parameter in command.get_params(context)
               if isinstance(parameter, click.Option))
    return [(names, " ".join(doc.split())) for names, doc in filter(None, records)]
