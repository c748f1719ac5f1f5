"""`hearth admin careteam`: who cares for whom, over time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import typer

from api import accounts
from gateway.cli.admin.options import TIME_HELP, AsJson, moment_of, open_archive
from gateway.cli.tables import show
from gateway.errors import UsageError

EXAMPLES = """\
例 / examples:

hearth admin careteam add "Wuxing clinic 1"

hearth admin careteam join "Wuxing clinic 1" --user wang.li

hearth admin careteam care "Wuxing clinic 1" --resident RESIDENT --resident ANOTHER

hearth admin careteam leave "Wuxing clinic 1" --user wang.li
"""

app = typer.Typer(
    help="照护团队 / care teams: who sees whom, over time.", no_args_is_help=True, epilog=EXAMPLES
)

Team = Annotated[str, typer.Argument(help="团队名称 / the team's name.")]
User = Annotated[str, typer.Option("--user", help="用户名 / the login.")]
StartsAt = Annotated[
    datetime | None,
    typer.Option("--from", parser=moment_of, help=f"默认此刻 / default: now; {TIME_HELP}."),
]
EndsAt = Annotated[
    datetime | None,
    typer.Option("--to", parser=moment_of, help=f"默认无限期 / default: open; {TIME_HELP}."),
]
At = Annotated[
    datetime | None,
    typer.Option("--at", parser=moment_of, help=f"默认此刻 / default: now; {TIME_HELP}."),
]


@app.command("add")
def add_team(team: Team) -> None:
    """登记一个团队 / enter a care team."""
    with open_archive() as connection:
        accounts.add_care_team(connection, team)


@app.command("list")
def list_teams(*, as_json: AsJson = False) -> None:
    """列出团队 / list care teams and how many are in them now."""
    with open_archive() as connection:
        show(accounts.list_care_teams(connection), as_json=as_json)


@app.command("join")
def join(team: Team, *, user: User, starts_at: StartsAt = None, ends_at: EndsAt = None) -> None:
    """把医生或协调员加入团队 / put a clinician or coordinator into a team, for a time."""
    with open_archive() as connection:
        begins = starts_at or datetime.now(UTC)
        accounts.join_care_team(connection, team, user, begins, ends_at)


@app.command("leave")
def leave(team: Team, *, user: User, at: At = None) -> None:
    """离开团队 / end somebody's time in a team."""
    with open_archive() as connection:
        if not accounts.leave_care_team(connection, team, user, at or datetime.now(UTC)):
            raise UsageError(f"不在此团队 / {user} is not in it then")


@app.command("care")
def care(
    team: Team,
    *,
    resident: Annotated[
        list[UUID], typer.Option(help="居民编号, 可重复 / a resident's id; may repeat.")
    ],
    starts_at: StartsAt = None,
    ends_at: EndsAt = None,
) -> None:
    """把居民交给团队照护 / put residents into a team's care, for a time."""
    with open_archive() as connection:
        begins = starts_at or datetime.now(UTC)
        accounts.care_for(connection, team, resident, begins, ends_at)


@app.command("release")
def release(
    team: Team,
    *,
    resident: Annotated[UUID, typer.Option(help="居民编号 / the resident's id.")],
    at: At = None,
) -> None:
    """结束照护 / end a team's care for a resident."""
    with open_archive() as connection:
        if not accounts.end_care(connection, team, resident, at or datetime.now(UTC)):
            raise UsageError("团队此时并不照护此居民 / the resident is not in the team's care then")
