"""The package that node files are modules of: ``flowkit_nodes.add`` is ``add.py`` of the nodes folder.

A package of its own lets a node be called like any other module, such as ``json``. It can be imported like any package:
what a node file defines can be pickled, and a child process finds it again. ``flowkit/packages.py`` says which folders
belong to it.
"""

from flowkit.packages import open_package as _open_package

__path__ = _open_package()
