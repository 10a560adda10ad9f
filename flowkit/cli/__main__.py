"""``python -m flowkit.cli``: the ``flowkit`` command where its script is not on the path."""

from flowkit.cli.app import main

main()
