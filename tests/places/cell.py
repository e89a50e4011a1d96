"""Runs one `%%sandbox` cell and one line, as a person at IPython would, and prints what came back.

A script for :mod:`test_places`: it is run by other users, from other directories, with other Pythons.
"""

from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "jupyter_sandbox")
try:
    for cell in (
        "%%sandbox places\nimport os, sys\nplace = os.getcwd()\nprint('cell in', place, 'as', os.environ['USER'])",
        "%%sandbox places\nprint('still in', place)",
    ):
        shell.run_cell(cell, store_history=False).raise_error()
finally:
    shell.run_line_magic("sandbox", "destroy places")
