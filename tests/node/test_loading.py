"""From a node's name to its definition."""

import pytest

from flowkit import loading
from flowkit.errors import InvalidNode, NodeNotFound, UsageError

GOOD = """
from flowkit import Node
node = Node()
@node.main
async def main():
    return [], {}, ""
node.run()
"""


def test_a_file_in_the_folder(nodes):
    folder = nodes(add=GOOD)
    (definition,) = loading.load("add", folder)
    assert (definition.name, definition.source) == ("add", str(folder / "add.py"))
    assert loading.load("add", folder)[0].main is definition.main, "imported once"


def test_a_path_and_an_attribute(nodes, monkeypatch):
    folder = nodes(add=GOOD, lib=GOOD.replace("Node()", 'Node("named")'))
    assert loading.load(str(folder / "add.py"), folder / "elsewhere")[0].name == "add"
    monkeypatch.chdir(folder)
    assert loading.load("lib:node", folder)[0].name == "named"
    with pytest.raises(InvalidNode, match="'main' of lib is function; expected a Node"):
        loading.load("lib:main", folder)
    with pytest.raises(InvalidNode, match="ModuleNotFoundError: No module named 'no_module_of_this_name'"):
        loading.load("no_module_of_this_name:node", folder)


@pytest.mark.parametrize("name", ["json", "select", "asyncio", "flowkit"])
def test_a_node_may_be_called_like_a_module(nodes, name):
    folder = nodes(**{name: GOOD + f"\nimport {name} as real\nassert 'flowkit_nodes' not in real.__name__\n"})
    assert loading.load(name, folder)[0].name == name


def test_helpers_beside_it(nodes):
    folder = nodes(add="from my_helpers_here import VALUE\n" + GOOD, my_helpers_here="VALUE = 1")
    assert loading.load("add", folder)
    with pytest.raises(InvalidNode, match=r"my_helpers_here.py holds no Node"):
        loading.load("my_helpers_here", folder)


def test_another_nodes_file_as_a_helper(nodes):
    folder = nodes(first=GOOD, second="from first import node as other\n" + GOOD)
    assert [one.name for one in loading.load("second", folder)] == ["second"]


def test_several_nodes_in_a_file(nodes):
    two = GOOD.replace("Node()", 'Node("images")') + GOOD.replace("Node()", 'Node("crop")').replace("node", "other")
    folder = nodes(
        images=two.replace("from flowkit import Node", "from flowkit import Node").replace("flowkit import Other", "")
    )
    assert [one.name for one in loading.load("images", folder)] == ["images", "crop"]
    same = GOOD.replace("Node()", 'Node("same")')
    folder = nodes(same=same + same.replace("node", "other"))
    with pytest.raises(InvalidNode, match="several Nodes called 'same'"):
        loading.load("same", folder)


def test_a_file_whose_node_has_another_name(nodes):
    folder = nodes(add=GOOD.replace("Node()", 'Node("sum")'))
    with pytest.raises(InvalidNode, match=r"holds 'sum', and no node 'add'; name its path"):
        loading.load("add", folder)
    assert loading.load(str(folder / "add.py"), folder)[0].name == "sum"


@pytest.mark.parametrize("name", ["../add", "a/b", "", "a.b", "9", "-x", "add\n", "x" * 64])
def test_names_are_checked_before_any_use(nodes, name):
    with pytest.raises(InvalidNode, match="cannot be the name of a node"):
        loading.load(name, nodes(add=GOOD))


def test_a_file_that_is_not_there(nodes):
    folder = nodes(add=GOOD, other=GOOD)
    with pytest.raises(NodeNotFound, match=r"no file ad.py in .*\(it has add, other\)"):
        loading.load("ad", folder)
    with pytest.raises(NodeNotFound, match=r"no file nope.py"):
        loading.load("nope.py", folder)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys\nsys.exit(3)", ", line 2: SystemExit: 3"),
        ("x = 1\ny = 1 / 0", ", line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n  pass", ", line 1: SyntaxError: "),
        ("import no_such_module", ", line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("\0", "bad"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("raise BaseException('base')", "BaseException: base"),
        ("from flowkit import Node\nnode = Node()", "registers no main"),
        ("from flowkit import Node\nnode = Node()\ndef main(): pass\nnode.register_main(main)", "main is not async"),
        ("from flowkit import Node\nnode = Node()\nnode.get_inputs()", r"get_inputs() is for main"),
        ("from flowkit import Node\nnode = Node(timeout=0)\n@node.main\nasync def main(): ...", "timeout=0"),
    ],
)
def test_files_that_cannot_be_used(nodes, source, said):
    with pytest.raises(InvalidNode) as caught:
        loading.load("bad", nodes(bad=source))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_finding_imports_nothing(nodes):
    folder = nodes(add="boom", _private="", test_add="", conftest="", other="")
    (folder / "9x.py").touch()
    (folder / "notes.txt").touch()
    assert loading.find(folder) == ["add", "other"]
    assert loading.find(folder / "no_module_of_this_name") == []


def test_a_whole_folder(nodes):
    two = GOOD.replace("Node()", 'Node("images")') + GOOD.replace("Node()", 'Node("crop")').replace("node", "other")
    folder = nodes(
        add=GOOD, images=two, crop=GOOD, broken="1 / 0", helper="VALUE = 1", named=GOOD.replace("Node()", 'Node("sum")')
    )
    found = loading.load_all(folder)
    assert sorted(found.definitions) == ["add", "crop", "images", "sum"]
    assert found.definitions["crop"].source == str(folder / "crop.py"), "the file of that name comes first"
    assert list(found.failures) == ["broken"]
    assert "line 1: ZeroDivisionError" in str(found.failures["broken"])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"no such directory\. Point --nodes at the folder"):
        loading.load_all(tmp_path / "nowhere")
