# ruff: noqa: SIM115 -- written as that of nanoGPT is: run by exec in the globals of the script, which `--name=value`
# overrides.
import sys
from ast import literal_eval

for argument in sys.argv[1:]:
    if not argument.startswith("--"):
        exec(open(argument).read())
        continue
    key, value = argument[2:].split("=", 1)
    if key not in globals():
        raise ValueError(f"Unknown config key: {key}")
    try:
        attempt = literal_eval(value)
    except (SyntaxError, ValueError):
        attempt = value
    assert type(attempt) is type(globals()[key])
    print(f"Overriding: {key} = {attempt}")
    globals()[key] = attempt
