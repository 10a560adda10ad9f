"""What a node file may do while it is imported, and what it is as a module."""

import asyncio
import os
import pickle
import signal
import sys

import pytest

from flowkit import loading
from flowkit.errors import InvalidNode

GOOD = """
from flowkit import Node
node = Node()
@node.main
async def main():
    return [], {}, ""
node.run()
"""
MAKER = """
from flowkit import Node

def make(name=None):
    node = Node(name)
    @node.main
    async def main():
        return [], {}, ""
    return node

class Special(Node):
    def __init__(self, name):
        super().__init__(name)
        self.register_main(self.work)
    async def work(self):
        return [], {}, ""

def step(name):
    def decorate(function):
        Node(name).register_main(function)
        return function
    return decorate
"""


def names(found):
    return [definition.name for definition in found]


def loaded(file, folder):
    """The module of a node file."""
    (definition,) = loading.load(file, folder)
    return sys.modules[definition.main.__module__]


# Modules


def test_what_a_file_defines_can_be_pickled(nodes):
    module = loaded("shape", nodes(shape="class Shape: pass\ndef area(): return 3\n" + GOOD))
    shape = pickle.loads(pickle.dumps(module.Shape()))
    assert type(shape) is module.Shape
    assert pickle.loads(pickle.dumps(module.area)) is module.area


def test_two_folders_may_have_a_file_of_one_name(nodes):
    folder = nodes(same="class Own: pass\n" + GOOD)
    (folder / "other").mkdir()
    (folder / "other" / "same.py").write_text("class Own: pass\n" + GOOD)
    first, second = loaded("same", folder), loaded("same", folder / "other")
    assert first.__file__ != second.__file__
    for module in (first, second):
        assert type(pickle.loads(pickle.dumps(module.Own()))) is module.Own


def test_relative_imports_of_helpers_packages_and_other_nodes(nodes):
    folder = nodes(
        first=GOOD + "VALUE = 1",
        beside="VALUE = 2",
        second="from . import beside\nfrom .beside import VALUE as two\nfrom .first import VALUE as one\n"
        "from .pack.inner import three\nimport pack.inner\nTOTAL = one + two + three\n" + GOOD,
    )
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").touch()
    (folder / "pack" / "inner.py").write_text("three = 3")
    assert loaded("second", folder).TOTAL == 6
    assert loaded("first", folder) is sys.modules[loaded("second", folder).__package__ + ".first"]


def test_a_folder_that_is_a_package_keeps_its_name(nodes):
    root = nodes()
    folder = root / "shop_of_this_test" / "jobs"
    folder.mkdir(parents=True)
    (root / "shop_of_this_test" / "__init__.py").touch()
    (root / "shop_of_this_test" / "prices.py").write_text("PRICE = 7")
    (folder / "__init__.py").write_text("TAX = 2")
    (folder / "pay.py").write_text("from . import TAX\nfrom ..prices import PRICE\nSUM = TAX + PRICE\n" + GOOD)
    module = loaded("pay", folder)
    assert (module.__name__, module.SUM) == ("shop_of_this_test.jobs.pay", 9)


def test_a_package_of_a_name_that_is_taken_is_imported_under_another(nodes):
    folder = nodes() / "json"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "pay.py").write_text("import json\nTEXT = json.dumps(1)\n" + GOOD)
    assert loaded("pay", folder).TEXT == "1"


def test_nodes_called_like_what_the_package_needs(nodes):
    folder = nodes(**dict.fromkeys(("sys", "importlib", "flowkit_nodes", "packages"), GOOD), late=GOOD)
    for name in ("sys", "importlib", "flowkit_nodes", "packages", "late"):
        assert names(loading.load(name, folder)) == [name]


def test_a_file_that_is_a_link_is_known_by_its_own_name(nodes):
    folder = nodes()
    (folder / "v2").mkdir()
    (folder / "v2" / "add-2.0.py").write_text("from link_helper import VALUE\n" + GOOD)
    (folder / "v2" / "link_helper.py").write_text("VALUE = 1")
    (folder / "add.py").symlink_to(folder / "v2" / "add-2.0.py")
    assert names(loading.load("add", folder)) == ["add"]


def test_a_file_that_is_new_is_found(nodes):
    loading.load("first", nodes(first=GOOD))
    assert names(loading.load("second", nodes(second=GOOD))) == ["second"]


def test_a_package_beside_a_file_of_its_name_is_an_error(nodes):
    folder = nodes(add=GOOD)
    (folder / "add").mkdir()
    (folder / "add" / "__init__.py").touch()
    with pytest.raises(InvalidNode, match=r"add\.py: Python finds .*add/__init__\.py under its name; rename one"):
        loading.load("add", folder)


# Event loops

AT_IMPORT = """
import asyncio, signal, threading
async def three(): return 3
RUN = asyncio.run(three())
asyncio.set_event_loop(asyncio.new_event_loop())
LOOP = asyncio.get_event_loop()
UNTIL = LOOP.run_until_complete(three())
LOOP.close()
asyncio.set_event_loop(None)
LOCK = asyncio.Lock()
THREAD = threading.current_thread() is threading.main_thread()
signal.signal(signal.SIGUSR2, signal.getsignal(signal.SIGUSR2))
"""


def test_no_loop_runs_while_a_file_is_imported(nodes):
    folder = nodes(at_import=AT_IMPORT + GOOD)

    async def within():
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        module = loaded("at_import", folder)
        assert asyncio.current_task() is task
        assert asyncio.get_running_loop() is loop
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return module

    module = asyncio.run(within())
    assert (module.RUN, module.UNTIL, module.THREAD) == (3, 3, True)


def test_what_one_file_does_to_the_event_loop_is_none_of_the_others(nodes):
    run = "import asyncio\nasync def three(): return 3\n"
    folder = nodes(
        first=run + "asyncio.run(three())\n" + GOOD,
        second=run + "asyncio.get_event_loop().run_until_complete(three())\nasyncio.get_event_loop().close()\n" + GOOD,
        third=run + "asyncio.get_event_loop().run_until_complete(three())\n" + GOOD,
    )
    found = loading.load_all(folder)
    assert (sorted(found.definitions), found.failures) == (["first", "second", "third"], {})


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("call", ["asyncio.get_running_loop()", "asyncio.timeout(1).__aenter__().send(None)"])
def test_what_needs_a_running_loop_is_refused_everywhere_alike(nodes, running, call):
    folder = nodes(needs=f"import asyncio\n{call}\n" + GOOD)

    async def within():
        with pytest.raises(InvalidNode, match=r"line 2: RuntimeError: no running event loop; .* move this into main"):
            loading.load("needs", folder)

    if running:
        asyncio.run(within())
    else:
        with pytest.raises(StopIteration):
            within().send(None)


# Odd modules

SPLIT = "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (SPLIT + "raise Odd", ", line 4: Odd: (its str() raised ValueError)"),
        (SPLIT.replace("ValueError", "SystemExit") + "raise Odd", ", line 4: Odd: (its str() raised SystemExit)"),
        ("raise KeyboardInterrupt", ", line 1: KeyboardInterrupt"),
        ("raise ValueError", ", line 1: ValueError"),
        ("raise ValueError('\\n \\n second')", ", line 1: ValueError: second"),
        ("raise ValueError('a\\x1b[31mb\\x00\\ud800')", r", line 1: ValueError: a\x1b[31mb\x00"),
        ("raise ValueError('x' * 10**6)", "x" * 500 + "…"),
        ("raise ExceptionGroup('several', [ValueError()])", "ExceptionGroup: several (1 sub-exception)"),
        ("import asyncio\nraise asyncio.CancelledError", ", line 2: CancelledError"),
        ("import sys\nsys.modules[__name__] = 3", "replaces itself in sys.modules with a int"),
        ("import sys\ndel sys.modules[__name__]", "KeyError: "),
        ("from pydantic import BaseModel\nclass A(BaseModel):\n  a: int\nA()", "ValidationError: a: Field required"),
        ("from bad import absent", "cannot import name 'absent'"),
        ("def f():\n f()\nf()", "RecursionError: maximum recursion depth"),
        ("x = '\xe9'\n".encode("latin-1"), "SyntaxError: "),
        (b"\xff\xfe\x00", "bad"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(nodes, source, said):
    folder = nodes()
    (folder / "bad.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    with pytest.raises(InvalidNode) as caught:
        loading.load("bad", folder)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert str(folder / "bad.py") in str(caught.value)
    assert len(str(caught.value)) < 800


def test_an_exception_that_hides_what_it_is(nodes):
    odd = """
class Meta(type):
    __name__ = property(lambda kind: 1 / 0)
class Odd(Exception, metaclass=Meta):
    __class__ = property(lambda self: 1 / 0)
raise Odd("text")
"""
    with pytest.raises(InvalidNode, match=r"odd\.py, line 6: Exception: "):
        loading.load("odd", nodes(odd=odd))


def test_a_file_may_change_the_working_directory(nodes, monkeypatch):
    folder = nodes(a="import os\nos.chdir('/')\n" + GOOD, b=GOOD)
    monkeypatch.chdir(folder.parent)
    relative = folder.relative_to(folder.parent)
    assert sorted(loading.load_all(relative).definitions) == ["a", "b"]
    monkeypatch.chdir(folder.parent)
    del sys.modules[loaded("a", folder).__name__]
    assert names(loading.load_each(["a", "b", f"{relative}/b.py", "a"], relative)) == ["a", "b", "b"]


@pytest.mark.parametrize("running", [True, False])
def test_ctrl_c_ends_an_import_at_once_and_is_none_of_its_errors(nodes, running):
    folder, handler = nodes(slow="import signal\nsignal.raise_signal(signal.SIGINT)\n" + GOOD), []

    async def within():
        handler.append(signal.getsignal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            loading.load("slow", folder)
        assert signal.getsignal(signal.SIGINT) is handler[0]

    if running:
        asyncio.run(within())
    else:
        with pytest.raises(StopIteration):
            within().send(None)


ODD = """
class Lazy:
    @property
    def __class__(self):
        raise RuntimeError("not now")
    def __eq__(self, other):
        raise RuntimeError("not now")
    __bool__ = __len__ = __hash__ = __repr__ = None
    def __getattr__(self, name):
        raise RuntimeError("not now")
lazy = Lazy()
def __getattr__(name):
    raise RuntimeError(name)
def __dir__():
    raise RuntimeError
"""


def test_odd_values_in_a_module_hide_no_node(nodes):
    folder = nodes(odd=ODD + GOOD)
    assert names(loading.load("odd", folder)) == ["odd"]
    with pytest.raises(InvalidNode, match="odd:absent: RuntimeError: absent"):
        loading.load("odd:absent", folder)


def test_what_is_no_file_is_said_and_the_rest_of_the_folder_goes_on(nodes):
    folder = nodes(add=GOOD, odd=ODD + GOOD, broken=SPLIT + "raise Odd", interrupted="raise KeyboardInterrupt")
    (folder / "folder.py").mkdir()
    (folder / "gone.py").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.py")
    found = loading.load_all(folder)
    assert sorted(found.definitions) == ["add", "odd"]
    assert sorted(found.failures) == ["broken", "folder", "gone", "interrupted", "pipe"]
    assert str(found.failures["folder"]).endswith("folder.py is a folder; expected a file with Python code")
    with pytest.raises(InvalidNode, match=r"gone\.py cannot be read: no such file"):
        loading.load("gone", folder)


# Whose a Node is


@pytest.mark.parametrize(
    "made",
    [
        "from maker import make\nextra = make('extra')\n",
        "from maker import make\nmake('extra')\n",
        "from maker import make\nEXTRAS = {'extra': [make('extra')]}\n",
        "from .maker import make\nextra = make('extra')\n",
        "from maker import Special\nextra = Special('extra')\n",
        "from maker import step\n@step('extra')\nasync def extra():\n    return [], {}, ''\n",
        "def begin():\n    from maker import make\n    make('extra')\nbegin()\n",
    ],
)
def test_a_node_that_a_helper_makes_belongs_to_the_file_that_asks_for_it(nodes, made):
    folder = nodes(own=GOOD + made, maker=MAKER)
    assert sorted(names(loading.load("own", folder))) == ["extra", "own"]
    assert sorted(loading.load_all(folder).definitions) == ["extra", "own"]


def test_a_helper_names_its_node_after_the_file(nodes):
    folder = nodes(own="from maker import make\nnode = make()\n", maker=MAKER)
    (definition,) = loading.load("own", folder)
    assert (definition.name, definition.source) == ("own", str(folder / "own.py"))


def test_a_node_of_another_file_is_not_counted_twice(nodes, caplog):
    folder = nodes(own="from shared import node as other\nfrom .shared import node as third\n" + GOOD, shared=GOOD)
    assert names(loading.load("own", folder)) == ["own"]
    assert sorted(loading.load_all(folder).definitions) == ["own", "shared"]
    assert not caplog.messages


def test_a_node_of_a_library_that_is_left_out_is_said(nodes, caplog):
    folder = nodes(own="from library.nodes import shared\n" + GOOD)
    (folder / "library").mkdir()
    (folder / "library" / "nodes.py").write_text(GOOD.replace("Node()", "Node('shared')") + "shared = node")
    assert names(loading.load("own", folder)) == ["own"]
    (said,) = caplog.messages
    assert "node 'shared' of" in said
    assert "serve it with '--node package.module:attribute'" in said
    assert names(loading.load("library.nodes:shared", folder)) == ["shared"]


def test_a_node_without_main_is_an_error_only_where_it_can_be_reached(nodes):
    folder = nodes(replaced="from flowkit import Node\nnode = Node('first')\n" + GOOD, lacking="node = 1\n" + GOOD
                   + "other = Node('other')\n")  # fmt: skip
    assert names(loading.load("replaced", folder)) == ["replaced"]
    with pytest.raises(InvalidNode, match=r"node 'other': .*lacking\.py registers no main"):
        loading.load("lacking", folder)
