"""`supervise daemon`: the process that keeps this host's jobs alive.

Owns the group of verbs. Each is imported when it is used: `status` needs none of what `run` does.
"""

from importlib import import_module

import click

# Verb -> (module with the attribute `command`, one line of help).
VERBS = {
    "run": ("supervisor.cli.daemon.run", "Run the daemon in the foreground."),
    "install": ("supervisor.cli.daemon.install", "Make it a service of this host, or yours."),
    "uninstall": ("supervisor.cli.daemon.uninstall", "Remove the service; jobs and state stay."),
    "status": ("supervisor.cli.daemon.status", "Tell whether a daemon runs, and how it is."),
}


class LazyGroup(click.Group):
    """The verbs of VERBS, each imported on its first use."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Every verb, in the order of the help page."""
        return list(VERBS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, imported now; None if there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(VERBS[cmd_name][0]).command
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help page's list of verbs, which imports none of them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, about) for verb, (_, about) in VERBS.items()])


@click.group("daemon", cls=LazyGroup, subcommand_metavar="run|install|uninstall|status [ARGUMENTS]")
def command() -> None:
    """Queue jobs, start them when there is room, and keep them alive over logout and reboot."""
