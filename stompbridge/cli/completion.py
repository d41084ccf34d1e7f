"""``stompbridge completion``."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and options.

    \b
    bash:  stompbridge completion bash > ~/.local/share/bash-completion/completions/stompbridge
    zsh:   stompbridge completion zsh > DIRECTORY/_stompbridge    (a directory in $fpath)
    fish:  stompbridge completion fish > ~/.config/fish/completions/stompbridge.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    instance = kind(ctx.find_root().command, {}, "stompbridge", "_STOMPBRIDGE_COMPLETE")
    # Not the subclass's own, which starts a bash to learn its version.
    click.echo(ShellComplete.source(instance))
