"""`supervise completion`: the script that makes a shell complete verbs, options and jobs.

Owns the verb; the script is click's.
"""

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_SUPERVISE_COMPLETE"
WHERE = """\b
Where it goes:
bash: supervise completion bash > ~/.local/share/bash-completion/completions/supervise
zsh:  supervise completion zsh > ~/.zfunc/_supervise   (a folder of $fpath)
fish: supervise completion fish > ~/.config/fish/completions/supervise.fish
"""  # \b keeps click from joining the lines


@click.command("completion", epilog=WHERE)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell: for verbs, options, and names and ids of jobs."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - for this verb alone

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - SHELLS are those that click has
    root = ctx.find_root()
    click.echo(found(root.command, {}, "supervise", VARIABLE).source())
