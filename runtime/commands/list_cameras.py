"""`asperity camera list`: the installed sources of live cameras, and the cameras that each sees."""

from __future__ import annotations

import json
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def list_cameras(as_json: Json = False) -> None:
    """List the sources of live cameras, and the cameras that each sees now."""
    import msgspec

    from asperity.runtime.cameras.survey import Found, survey

    found = survey()
    if as_json:
        typer.echo(json.dumps({"sources": msgspec.to_builtins(found)}))
        return
    width = max((len(each.name) for each in found), default=0)

    def lines(each: Found) -> list[str]:
        said = [f"{each.summary} ({', '.join(each.triggers)})"] if each.summary else []
        if each.lacking:
            said.append(f"needs {', '.join(each.lacking)}; install with: {each.remedy}")
        if each.problem:
            said.append(each.problem)
        if each.devices == []:
            said.append("sees no camera now")
        said += [f"camera {device['id']}: {device['text']}" for device in each.devices or ()]
        return said or [""]

    for each in found:
        first, *others = lines(each)
        typer.echo(f"{each.name:{width}}  {first}")
        for line in others:
            typer.echo(f"{'':{width}}  {line}")
    if not found:
        typer.echo("no camera source is installed; install Asperity again, with all that it requires")
