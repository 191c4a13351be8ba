"""What is imported when: the language costs nothing until a file is read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def modules_after(code: str) -> set[str]:
    script = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_language_imports_no_parser() -> None:
    loaded = modules_after("import dsl")
    assert not loaded & {"lark", "msgspec", "msgpack", "trio", "dsl.parser", "csv"}


def test_printing_diagnostics_imports_no_parser() -> None:
    assert "lark" not in modules_after("import dsl; dsl.render([], {}); dsl.render([], {}, 'json')")


def test_compiling_a_file_imports_neither_lark_nor_anything_of_the_daemons(tmp_path: Path) -> None:
    code = f"import os; os.environ['XDG_CACHE_HOME'] = {str(tmp_path)!r}\n"
    code += "import dsl; dsl.check_text('pool p { }', 'x', read_file=open)"
    assert "lark" in modules_after(code)  # it makes the tables, the first time
    assert not modules_after(code) & {"lark", "msgspec", "msgpack", "trio", "structlog", "click"}
