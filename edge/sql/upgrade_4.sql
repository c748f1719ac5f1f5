-- From schema 3 to 4: a time line for which one time-stamp alone speaks.

ALTER TABLE time_line ADD COLUMN doubtful INTEGER NOT NULL DEFAULT 0;
