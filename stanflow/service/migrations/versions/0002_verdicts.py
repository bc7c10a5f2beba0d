"""Verdicts beside the jobs, so that a list of them need not read their results."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and fill it from the results that are there."""
    op.add_column("jobs", sa.Column("verdict", sa.String(16), nullable=True))
    jobs = sa.table("jobs", sa.column("id"), sa.column("result", sa.JSON()), sa.column("verdict"))
    connection = op.get_bind()
    ended = sa.select(jobs.c.id, jobs.c.result).where(jobs.c.result.is_not(None))
    for job, result in connection.execute(ended).all():
        verdict = (result or {}).get("verdict", (result or {}).get("agreement"))
        connection.execute(sa.update(jobs).where(jobs.c.id == job).values(verdict=verdict))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("jobs", "verdict")
